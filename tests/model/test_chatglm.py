"""GLM-4's first checkpoints: what the publisher's own code computed, and what a user sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import weitiao
from runs import lines, lively_model, run_config, trained
from tiny import old_glm
from weitiao.errors import ModelError
from weitiao.families.base import context_length, family_of
from weitiao.model.chatglm import native_config
from weitiao.model.load import load_model

CPU = torch.device("cpu")
SHARED = Path(__file__).parents[3] / "shared" / "data"
"""Recorded outputs, which lie beside a checkout where they are to be had."""


def golden(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} beside the checkout")
    return load_model(folder, CPU, torch.float32), load_file(folder / "golden.safetensors")


def error(model: Any, told: dict[str, torch.Tensor]) -> float:
    with torch.inference_mode():
        return float((model(told["input_ids"][None]).logits[0] - told["logits"]).abs().max())


@pytest.mark.parametrize("name", ["glm4-tiny-chat", "glm4-tiny-base"])
def test_logits_and_greedy_tokens_of_the_publishers_code(name: str) -> None:
    model, told = golden(name)
    assert type(model).__name__ == "GlmForCausalLM"
    assert error(model, told) <= 1e-5
    wanted = told["greedy_ids"].tolist()
    ids = wanted[:20]
    with torch.inference_mode():
        while len(ids) < len(wanted):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert ids == wanted


def swap_k_and_v(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.k_proj, layer.self_attn.v_proj = layer.self_attn.v_proj, layer.self_attn.k_proj


def swap_gate_and_up(model: Any) -> None:
    for layer in model.model.layers:
        weight = layer.mlp.gate_up_proj.weight
        weight.copy_(weight.roll(len(weight) // 2, dims=0))


def drop_bias(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.q_proj.bias.zero_()


def plain_theta(model: Any) -> None:
    config = model.config
    config.rope_parameters["rope_theta"] = 10_000.0
    model.model.rotary_emb = type(model.model.rotary_emb)(config)


@pytest.mark.parametrize("harm", [swap_k_and_v, swap_gate_and_up, drop_bias, plain_theta])
def test_a_wrong_map_would_be_noticed(harm: Any) -> None:
    model, told = golden("glm4-tiny-chat")
    with torch.no_grad():
        harm(model)
    assert error(model, told) > 1e-2


def test_rope_theta() -> None:
    for name, theta in (("glm4-tiny-chat", 5e6), ("glm4-tiny-base", 1e4)):
        if not (SHARED / name).is_dir():
            pytest.skip(f"no {name} beside the checkout")
        assert native_config(SHARED / name).rope_parameters["rope_theta"] == theta


@pytest.fixture
def old(glm4_folder: Path, tmp_path: Path) -> Path:
    return old_glm(tmp_path / "old", glm4_folder)


@pytest.mark.parametrize("shards", [1, 3])
def test_old_and_native_names_are_one_model(glm4_folder: Path, tmp_path: Path, shards: int) -> None:
    folder = old_glm(tmp_path / "old", glm4_folder, shards)
    ours, native = (load_model(path, CPU, torch.float32) for path in (folder, glm4_folder))
    first, second = ours.state_dict(), native.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    keys = ("vocab_size", "head_dim", "rope_parameters", "rms_norm_eps", "num_key_value_heads", "attention_bias")
    assert all(getattr(ours.config, key) == getattr(native.config, key) for key in keys)
    assert context_length(folder) == context_length(glm4_folder)
    assert family_of(folder)[0] == "glm4"


def test_loading_leaves_transformers_as_it_was(old: Path, glm4_folder: Path, tmp_path: Path) -> None:
    load_model(old, CPU, torch.float32).save_pretrained(tmp_path / "saved")
    assert load_file(tmp_path / "saved/model.safetensors").keys() == load_file(glm4_folder / "model.safetensors").keys()


def test_rope_theta_of_a_longer_context(old: Path) -> None:
    """glm-4-9b-chat-1m says 10,000."""
    config = json.loads((old / "config.json").read_text("utf-8")) | {"rope_ratio": 10_000}
    (old / "config.json").write_text(json.dumps(config), "utf-8")
    assert native_config(old).rope_parameters["rope_theta"] == 1e8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rmsnorm": False}, "rmsnorm = False; GLM-4 has True"),
        ({"original_rope": False}, "original_rope = False"),
        ({"kv_channels": None}, "lacks 'kv_channels'"),
    ],
)
def test_other_models_of_the_type_are_refused(old: Path, change: dict[str, Any], message: str) -> None:
    config = json.loads((old / "config.json").read_text("utf-8")) | change
    config = {key: value for key, value in config.items() if value is not None}
    (old / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=message):
        load_model(old, CPU, torch.float32)


def test_a_missing_tensor_is_told(old: Path) -> None:
    from safetensors.torch import save_file

    tensors = load_file(old / "model.safetensors")
    del tensors["transformer.encoder.layers.1.self_attention.query_key_value.bias"]
    save_file(tensors, old / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack 'model\.layers\.1\.self_attn\.k_proj\.bias' \(3 in all\)"):
        load_model(old, CPU, torch.float32)


def test_train_and_predict(glm4_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    old = old_glm(tmp_path / "old", lively_model(tmp_path / "lively", glm4_folder))
    overrides = ("training.max_steps=60", "training.samples_per_step=16", "training.save_steps=100")
    run = trained(run_config(tmp_path, old, classification_file, *overrides))
    rows = lines(classification_file)
    answers = weitiao.load(run, device="cpu").predict([row["text"] for row in rows])
    assert [answer.answer for answer in answers] == [row["label"] for row in rows]
    assert not list(old.glob("*.py"))
