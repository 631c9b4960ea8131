"""Adapters: PEFT opens ours unchanged, and an adapter that does not fit is one clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from runs import run_config, trained
from tiny import small_classification, tiny_model
from weitiao.config import LoraSection
from weitiao.errors import CheckpointError, ConfigError, WeitiaoError
from weitiao.families.base import families
from weitiao.model.adapter import adapter_parameters, add_lora, open_adapter
from weitiao.model.load import load_model
from weitiao.prediction.predictor import load

CPU = torch.device("cpu")
QWEN2 = families()["qwen2"]


@pytest.fixture
def run(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> Path:
    """A run on a model of its own, which a test may harm."""
    shutil.copytree(qwen2_folder, tmp_path / "model")
    return trained(run_config(tmp_path, tmp_path / "model", classification_file))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("family", sorted(families()))
def test_plain_peft_gives_the_same_logits(
    request: pytest.FixtureRequest, classification_file: Path, tmp_path: Path, family: str
) -> None:
    model = request.getfixturevalue(f"{family}_folder")
    run = trained(run_config(tmp_path, model, classification_file))
    kind: Any = AutoModelForImageTextToText if families()[family].vision else AutoModelForCausalLM
    plain = kind.from_pretrained(model, dtype=torch.float32)
    ids = torch.randint(0, 500, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        base = plain(ids).logits.clone()
        ours = open_adapter(load_model(model, CPU, torch.float32), run / "adapter").eval()(ids).logits
        theirs = PeftModel.from_pretrained(plain, run / "adapter").eval()(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0)
    assert (ours - base).abs().max() > 1e-3, "the adapter does nothing"


def test_fresh_adapters(qwen2_folder: Path) -> None:
    section = LoraSection(r=3)  # type: ignore[call-arg]
    first, second, other = (
        dict(adapter_parameters(add_lora(load_model(qwen2_folder, CPU, torch.bfloat16), section, QWEN2, seed)))
        for seed in (1, 1, 2)
    )
    assert len(first) == 2 * 7 * 2
    assert all(parameter.dtype == torch.float32 for parameter in first.values())
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name])
        assert ("lora_B" in name) == (not parameter.any())
        assert ("lora_A" in name) == (not torch.equal(parameter, other[name]))


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (["q_proj", "qkv_proj"], "'qkv_proj' matches no layer of this model; did you mean"),
        (["q_porj"], "'q_porj' matches no layer of this model; did you mean 'q_proj'?"),
        (["act_fn"], "'act_fn' is no linear layer of this model"),
        (["embed_tokens"], "'embed_tokens' is no linear layer of this model"),
        (["self_attn"], "'self_attn' is no linear layer of this model"),
        ([""], "'' is no linear layer of this model"),
    ],
)
def test_a_wrong_target_is_refused_by_name(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, targets: list[str], told: str
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, "lora.target_modules=" + json.dumps(targets))
    with pytest.raises(ConfigError) as error:
        trained(config)
    assert told in str(error.value)
    assert "lora.target_modules" in str(error.value)
    assert not config.folder.exists()


def test_chosen_targets_alone_get_adapters(qwen2_folder: Path) -> None:
    section = LoraSection(target_modules=["v_proj"])  # type: ignore[call-arg]
    model = add_lora(load_model(qwen2_folder, CPU, torch.float32), section, QWEN2, 0)
    assert {name.split(".")[-4] for name, _ in adapter_parameters(model)} == {"v_proj"}


# -- Adapters that do not fit


def _other_weights(model: Path, tmp: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.add_(1e-3)
    weights.save_pretrained(model)


def _other_family(model: Path, tmp: Path) -> None:
    shutil.rmtree(model)
    tiny_model(model, "llama")


def _other_tokenizer(model: Path, tmp: Path) -> None:
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")


@pytest.mark.parametrize(
    ("change", "what"), [(_other_weights, "weights"), (_other_tokenizer, "tokenizer"), (_other_family, "")]
)
def test_an_adapter_of_another_base(run: Path, tmp_path: Path, change: Any, what: str) -> None:
    load(run, device="cpu")
    change(tmp_path / "model", tmp_path)
    with pytest.raises(CheckpointError, match=f"another base than .*{what}"):
        load(run, device="cpu")


@pytest.fixture(scope="module")
def trained_once(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return trained(run_config(folder, qwen2_folder, small_classification(folder / "classification.jsonl")))


@pytest.fixture
def copied(trained_once: Path, tmp_path: Path) -> Path:
    """An adapter folder that a test may harm."""
    return shutil.copytree(trained_once / "adapter", tmp_path / "adapter")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)


def _nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense" * 10)


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("listed", [True, False], ids=["with hashes", "without hashes"])
@pytest.mark.parametrize("harm", [_cut, _flipped, _nonsense, _gone])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "task.json"])
def test_a_damaged_adapter_is_one_clear_error(copied: Path, name: str, harm: Any, listed: bool) -> None:
    """An adapter that was copied without its `files.json` can still be read, so it can still be damaged."""
    if not listed:
        (copied / "files.json").unlink()
    harm(copied / name)
    if harm is _flipped and name.startswith("adapter_model") and not listed:
        load(copied, device="cpu")  # nothing tells one number from another
        return
    with pytest.raises(WeitiaoError) as error:
        load(copied, device="cpu")
    assert "\n" not in str(error.value)
    assert "adapter" in str(error.value) or "task.json" in str(error.value)


def test_an_adapter_whose_layers_are_not_all_there(copied: Path) -> None:
    """PEFT would go on with fresh ones in their place."""
    from safetensors.torch import load_file, save_file

    path = copied / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, path)
    (copied / "files.json").unlink()
    with pytest.raises(CheckpointError, match="adapter"):
        load(copied, device="cpu")
