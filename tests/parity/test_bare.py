"""A run opened without transformers and PEFT answers as one that they open; where it cannot be, they open it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import weitiao
from parity.oracle import TARGETS, TOLERANCE, plain_model
from runs import lively_model, run_config, trained
from tiny import small_classification, small_ner
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine.bare import Bare, open_bare
from weitiao.engine.forward import Forward
from weitiao.engine.outline import outline
from weitiao.families.base import families
from weitiao.prediction.adapter_folder import open_folder
from weitiao.prediction.predictor import Predictor
from weitiao.types import Prediction

CPU = torch.device("cpu")
FAMILIES = [name for name, family in sorted(families().items()) if family.vision is None] + ["glm4_0414"]
ROWS = {
    "classification": ["手机很好，非常满意。", "讨厌这个酒店，浪费钱。", "书质量不错，下次还买。"],
    "ner": ["王小明住在南京。", "昨天李华从北京回来了。", "在上海，张伟开了一家店。"],
}
ROUNDING = 1e-5


@pytest.mark.parametrize("task", sorted(ROWS))
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_transformers_and_peft(
    request: pytest.FixtureRequest, tmp_path: Path, family: str, task: str
) -> None:
    """With the adapter and without it: scores of labels, and decoded answers with their probabilities."""
    make = small_ner if task == "ner" else small_classification
    model = lively_model(tmp_path / "model", request.getfixturevalue(f"{family}_folder"))
    run = trained(run_config(tmp_path, model, make(tmp_path / f"{task}.jsonl")))
    folder = open_folder(run)
    bare, theirs = Predictor.open(folder, "cpu"), Predictor.open(folder, "cpu", merging=True)
    assert isinstance(bare.model, Bare)
    assert isinstance(theirs.model, PeftModel)
    tuned = bare.predict(ROWS[task])
    _assert_alike(tuned, theirs.predict(ROWS[task]))
    with bare.untuned(), theirs.untuned():
        untuned = bare.predict(ROWS[task])
        _assert_alike(untuned, theirs.predict(ROWS[task]))
    changed = (
        a.text != b.text or abs((a.probability or 0) - (b.probability or 0)) > 100 * ROUNDING
        for a, b in zip(tuned, untuned, strict=True)
    )
    assert any(changed), "the adapter does nothing"
    assert bare.predict(ROWS[task]) == tuned


def _assert_alike(found: list[Prediction], wanted: list[Prediction]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.answer, ours.text) == (theirs.answer, theirs.text)
        assert ours.probability == pytest.approx(theirs.probability, abs=ROUNDING)
        assert dict(ours.scores) == pytest.approx(dict(theirs.scores), abs=ROUNDING)
        assert ours.parts == pytest.approx(theirs.parts, abs=ROUNDING)


def _old_words(folder: Path) -> None:
    """As transformers 4 wrote configs."""

    def change(config: dict[str, Any]) -> None:
        rope = config.pop("rope_parameters")
        config |= {"rope_theta": 1e6, "rope_scaling": None, "sliding_window": 4096, "use_sliding_window": False}
        config.pop("layer_types", None)
        if "partial_rotary_factor" in rope:
            config["partial_rotary_factor"] = 0.25

    _edit(folder / "config.json", change)


def _no_rotated_share(folder: Path) -> None:
    _edit(folder / "config.json", lambda config: config["rope_parameters"].pop("partial_rotary_factor", None))


def _in_shards(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def _head_stored_too(folder: Path) -> None:
    _store(folder, lambda found: found | {"lm_head.weight": found["model.embed_tokens.weight"].clone()})


def _in_16_bits(folder: Path) -> None:
    _store(folder, lambda found: {name: tensor.bfloat16() for name, tensor in found.items()})


def _untied_with_biases(folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["tie_word_embeddings"] = False
        config |= {key: True for key in ("attention_bias", "mlp_bias") if key in config}

    _edit(folder / "config.json", change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or name == "lm_head.weight":
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(folder)


CHANGES: list[Callable[[Path], None]] = [
    *(_old_words, _no_rotated_share, _in_shards, _head_stored_too, _in_16_bits, _untied_with_biases)
]
ADAPTERS: list[Mapping[str, Any]] = [
    {"lora_dropout": 0.1},
    {"use_rslora": True, "lora_alpha": 6},
    {"target_modules": ["v_proj", "model.layers.1.mlp.down_proj"], "init_lora_weights": "gaussian"},
]


CASES: list[tuple[str, Callable[[Path], None] | None, Mapping[str, Any]]]
CASES = [(family, None, options) for family in FAMILIES for options in ADAPTERS]
CASES += [(family, change, {}) for family in FAMILIES for change in CHANGES]
CASES = [(family, change, _) for family, change, _ in CASES if not ("glm4" in family and change is _head_stored_too)]


@pytest.mark.parametrize(("family", "change", "options"), CASES)
def test_whatever_the_outline_covers_gives_the_same_states(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    family: str,
    change: Callable[[Path], None] | None,
    options: Mapping[str, Any],
) -> None:
    folder, adapter = _pair(request.getfixturevalue(f"{family}_folder"), tmp_path, change, options)
    found = outline(folder, adapter)
    assert found is not None
    bare = open_bare(found, CPU, torch.float32)
    assert bare is not None
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    theirs = PeftModel.from_pretrained(plain, adapter).eval()
    names = {name: parameter.shape for name, parameter in theirs.named_parameters()}
    ours = {name: parameter.shape for name, parameter in bare.named_parameters()}
    assert ours.keys() - names.keys() <= {"base_model.model.lm_head.weight"}, "a tied head is told once by PyTorch"
    assert {name: ours[name] for name in names} == names
    ids = torch.randint(0, 500, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    batch = packed_batch(Pack((), (PackRow(tuple(ids), tuple(range(40)), (0,) * 40),)))
    forward = Forward(bare.get_base_model(), fast=True)
    with torch.inference_mode():
        for on in (True, False):
            wanted = _logits(theirs, ids, on)
            got = forward.head(_hidden(bare, forward, batch, on))
            assert (got - wanted).norm() <= TOLERANCE * wanted.norm()
        assert (_logits(theirs, ids, True) - wanted).norm() > 0.01 * wanted.norm(), "the adapter does nothing"


def _logits(model: Any, ids: list[int], on: bool) -> torch.Tensor:
    if on:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    with model.disable_adapter():
        return _logits(model, ids, True)


def _hidden(model: Bare, forward: Forward, batch: Any, on: bool) -> torch.Tensor:
    if on:
        return forward.hidden(batch)
    with model.disable_adapter():
        return forward.hidden(batch)


def _pair(
    model: Path, tmp: Path, change: Callable[[Path], None] | None = None, options: Mapping[str, Any] | None = None
) -> tuple[Path, Path]:
    """A model's folder, changed, and that of an adapter for it, whose A and B are random."""
    folder, adapter = tmp / "model", tmp / "adapter"
    shutil.copytree(model, folder)
    if change:
        change(folder)
    told = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **(options or {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(plain_model(folder), LoraConfig(**told))
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
        adapted.save_pretrained(str(adapter))
    return folder, adapter


# -- What is not covered


def _config(**values: Any) -> Callable[[Path, Path], None]:
    return lambda model, adapter: _edit(model / "config.json", lambda config: config.update(values))


def _rope(**values: Any) -> Callable[[Path, Path], None]:
    return lambda model, adapter: _edit(model / "config.json", lambda config: config["rope_parameters"].update(values))


def _adapter(**values: Any) -> Callable[[Path, Path], None]:
    return lambda model, adapter: _edit(adapter / "adapter_config.json", lambda config: config.update(values))


def _without(key: str) -> Callable[[Path, Path], None]:
    return lambda model, adapter: _edit(model / "config.json", lambda config: config.pop(key))


def _weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path, Path], None]:
    return lambda model, adapter: _store(model, change)


def _adapters_weights(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
) -> Callable[[Path, Path], None]:
    return lambda model, adapter: _store(adapter, change)


def _cut_off(model: Path, adapter: Path) -> None:
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-1000])


def _twice(model: Path, adapter: Path) -> None:
    shutil.copyfile(model / "model.safetensors", model / "again.safetensors")


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
UNCOVERED: dict[str, Callable[[Path, Path], None]] = {
    "yarn": _rope(rope_type="yarn", factor=4.0),
    "llama3": _config(rope_scaling={"rope_type": "llama3", "factor": 8.0}),
    "old name of a scaling": _config(rope_scaling={"type": "linear", "factor": 2.0}),
    "sections": _rope(mrope_section=[2, 1, 1]),
    "part of a head rotated": _config(partial_rotary_factor=0.5),
    "windows": _config(use_sliding_window=True),
    "windows of layers": _config(layer_types=["full_attention", "sliding_attention"]),
    "another activation": _config(hidden_act="gelu"),
    "another type": _config(model_type="mistral"),
    "few bits": _config(quantization_config={"quant_method": "fp8"}),
    "another size of heads": _config(head_dim=32),
    "no epsilon": _without("rms_norm_eps"),
    "no rotation": _without("rope_parameters"),
    "no config": lambda model, adapter: (model / "config.json").unlink(),
    "a weight more": _weights(lambda found: found | {"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}),
    "a weight less": _weights(lambda found: {name: t for name, t in found.items() if "layers.1.mlp.up" not in name}),
    "another shape": _weights(lambda found: found | {"model.norm.weight": torch.ones(63)}),
    "integers": _weights(lambda found: {name: tensor.to(torch.int8) for name, tensor in found.items()}),
    "cut off": _cut_off,
    "stored twice": _twice,
    "DoRA": _adapter(use_dora=True),
    "a bias in LoRA": _adapter(lora_bias=True),
    "biases trained": _adapter(bias="all"),
    "whole layers": _adapter(modules_to_save=["lm_head"]),
    "ranks of their own": _adapter(rank_pattern={"q_proj": 8}),
    "scalings of their own": _adapter(alpha_pattern={"q_proj": 8}),
    "layers left out": _adapter(exclude_modules=["q_proj"]),
    "some layers": _adapter(layers_to_transform=[0]),
    "a pattern of names": _adapter(target_modules=r".*\.(q|v)_proj"),
    "an adapter of another kind": _adapter(peft_type="LOHA"),
    "weights changed at the start": _adapter(init_lora_weights="pissa"),
    "a setting unheard of": _adapter(use_new_thing=True),
    "other layers than told": _adapter(target_modules=["q_proj"]),
    "another rank than told": _adapter(r=8),
    "no adapter": lambda model, adapter: (adapter / "adapter_model.safetensors").unlink(),
    "an adapter's layer less": _adapters_weights(
        lambda found: {name: tensor for name, tensor in found.items() if not name.startswith(FIRST)}
    ),
    "a vector more": _adapters_weights(lambda found: found | {f"{FIRST}magnitude_vector": torch.ones(64)}),
}


@pytest.mark.parametrize("change", UNCOVERED)
def test_what_is_not_understood_has_no_outline(qwen2_folder: Path, tmp_path: Path, change: str) -> None:
    model, adapter = _pair(qwen2_folder, tmp_path)
    assert outline(model, adapter) is not None
    UNCOVERED[change](model, adapter)
    assert outline(model, adapter) is None


def test_a_tied_head_with_values_of_its_own_is_left_to_transformers(qwen2_folder: Path, tmp_path: Path) -> None:
    model, adapter = _pair(qwen2_folder, tmp_path)
    _store(model, lambda found: found | {"lm_head.weight": 2 * found["model.embed_tokens.weight"]})
    found = outline(model, adapter)
    assert found is not None
    assert open_bare(found, CPU, torch.float32) is None


def test_an_adapter_on_the_head_has_no_outline(glm4_folder: Path, tmp_path: Path) -> None:
    assert outline(*_pair(glm4_folder, tmp_path, options={"target_modules": ["q_proj", "lm_head"]})) is None


def test_a_run_that_is_not_covered_is_opened_by_transformers_and_peft(llama_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama_folder, folder)
    llama3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3["original_max_position_embeddings"] = 64
    _edit(folder / "config.json", lambda config: config.update(rope_parameters=llama3))
    run = trained(run_config(tmp_path, folder, small_classification(tmp_path / "classification.jsonl")))
    predictor = weitiao.load(run, device="cpu")
    assert isinstance(predictor.model, PeftModel)
    assert [answer.answer in ("好评", "差评") for answer in predictor.predict(ROWS["classification"])] == [True] * 3


# -- What is not imported

LATE = ("transformers", "peft", "accelerate", "sklearn", "pandas", "scipy", "sympy", "torch._dynamo")
BY_API = "weitiao.load(run).predict([text])"
BY_COMMAND = "from weitiao.cli import app; app(['predict', run, source, '-o', output], standalone_mode=False)"


@pytest.mark.parametrize("call", [BY_API, BY_COMMAND], ids=["load", "predict"])
def test_prediction_imports_none_of_the_large_libraries(qwen2_folder: Path, tmp_path: Path, call: str) -> None:
    run = trained(run_config(tmp_path, qwen2_folder, small_classification(tmp_path / "classification.jsonl")))
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "手机很好。"}\n', "utf-8")
    script = f"""
import sys, weitiao
run, source, output, text = {str(run)!r}, {str(source)!r}, {str(tmp_path / "out.jsonl")!r}, "手机很好。"
{call}
assert "torch" in sys.modules
print([name for name in {LATE} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")


def _store(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    [path] = folder.glob("*.safetensors")
    found = change(load_file(path))
    save_file(found, path, {"format": "pt"})
