"""Where weights go: one card, several, 4 bits, or a clear no; and that a spread model computes the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from parity.oracle import TARGETS, TOLERANCE, gradients, worst_error
from runs import lines, run_config, trained
from tiny import old_glm
from weitiao.data.collate import packed_batch
from weitiao.data.pack import pack, training_row
from weitiao.engine.forward import Forward
from weitiao.errors import ConfigError, ModelError
from weitiao.model.load import load_model
from weitiao.model.placement import GIB, Placement, decide, place, weight_sizes
from weitiao.types import Encoded

CPU = torch.device("cpu")
SIZES = {"one": 18 * GIB, "nf4": 7 * GIB}
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")


@pytest.mark.parametrize(
    ("rooms", "card", "has_nf4", "kind"),
    [
        ([20], 0, True, "one"),
        ([18], 0, False, "one"),
        ([4, 20], 1, True, "one"),
        ([10, 10], 0, True, "spread"),
        ([17], 0, True, "nf4"),
        ([8, 8], 1, True, "nf4"),
    ],
)
def test_the_first_that_fits(rooms: list[int], card: int, has_nf4: bool, kind: str) -> None:
    assert decide("auto", SIZES, [room * GIB for room in rooms], card, has_nf4) == kind


def test_what_fits_in_no_way_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"take 18\.0 GiB, .* 17\.0 GiB left; in 4 bits they take 7\.0 GiB: pip install"
    ):
        decide("auto", SIZES, [17 * GIB], 0, has_nf4=False)
    with pytest.raises(ModelError, match="take a smaller model"):
        decide("auto", SIZES, [6 * GIB], 0, has_nf4=True)
    with pytest.raises(ConfigError, match="has one card"):
        decide("spread", SIZES, [80 * GIB], 0, has_nf4=True)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        decide("nf4", SIZES, [80 * GIB], 0, has_nf4=False)
    assert decide("nf4", SIZES, [80 * GIB], 0, has_nf4=True) == "nf4"


def test_on_a_cpu_there_is_one_way(qwen2_folder: Path) -> None:
    assert place("auto", qwen2_folder, CPU, torch.float32) == Placement("one")
    with pytest.raises(ConfigError, match='"nf4" needs CUDA cards'):
        place("nf4", qwen2_folder, CPU, torch.float32)


@pytest.mark.parametrize("old", [False, True])
def test_sizes_are_those_of_the_weights(glm4_folder: Path, tmp_path: Path, old: bool) -> None:
    folder = old_glm(tmp_path / "old", glm4_folder) if old else glm4_folder
    model = load_model(glm4_folder, CPU, torch.float32)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    rotary = 4 if old else 0  # the old checkpoint keeps what is computed here
    sizes = weight_sizes(folder, torch.bfloat16)
    assert sizes["one"] == 2 * (wanted + rotary)
    linear = sum(
        m.weight.numel() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_" not in n
    )
    assert sizes["nf4"] == pytest.approx(2 * (wanted + rotary - linear) + 0.53 * linear, abs=1)


def adapted(folder: Path, device_map: dict[str, str | int] | None = None) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.requires_grad_(False)
    if device_map:
        model = dispatch_model(model, device_map, main_device="cpu")
    peft = get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
    return peft


@cuda
@pytest.mark.parametrize("family", ["qwen2", "glm4"])
def test_a_model_on_two_devices_computes_the_same(request: pytest.FixtureRequest, family: str) -> None:
    """Layers on the CPU and on the card stand for two cards."""
    folder = request.getfixturevalue(f"{family}_folder")
    halves = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": 0}
    spread = adapted(folder, {**halves, "model.norm": 0, "lm_head": "cpu" if family == "qwen2" else 0})
    draw = torch.Generator().manual_seed(0)
    ids = [tuple(torch.randint(0, 500, (n,), generator=draw).tolist()) for n in (30, 41, 52)]
    rows = [training_row(Encoded((*range(20), *row), len(row)), 20) for row in ids]
    found = []
    for model in (spread, adapted(folder)):
        ((packed, _),) = pack(tuple(range(20)), rows, 4096)
        loss = Forward(model.get_base_model(), "rows").loss(packed_batch(packed))
        loss.backward()
        found.append((float(loss), {name: gradient.cpu() for name, gradient in gradients(model).items()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=TOLERANCE)
    error, name = worst_error(found[0][1], found[1][1])
    assert error <= 5e-5, name


@cuda
@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_training_on_four_bits(glm4_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    old = old_glm(tmp_path / "old", glm4_folder)
    overrides = ("model.device=cuda", "model.placement=nf4", "data.test=0.2")
    run = trained(run_config(tmp_path, old, classification_file, *overrides))
    assert [line["loss"] for line in lines(run / "log.jsonl") if "loss" in line]
    assert '"quantization": "nf4"' in (run / "adapter" / "task.json").read_text("utf-8")
    assert len(lines(run / "predictions.jsonl")) == 10
