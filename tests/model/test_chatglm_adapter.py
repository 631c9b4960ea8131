"""Adapters by the names of GLM-4's own code: the same update, both ways, exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import weitiao
from runs import lines, lively_model, run_config, trained
from tiny import old_glm
from weitiao.config import LoraSection
from weitiao.errors import CheckpointError, ConfigError
from weitiao.export import export
from weitiao.families.base import families
from weitiao.model.adapter import add_lora, open_adapter, save_adapter
from weitiao.model.chatglm_adapter import CONFIG, FUSED, NATIVE, OLD, PARTS, WEIGHTS, write_native, write_old
from weitiao.model.load import load_model

CPU = torch.device("cpu")
ROWS = (64, 32, 32)
TUTORIAL = ["query_key_value", "dense", "dense_h_to_4h", "activation_func", "dense_4h_to_h"]


@pytest.fixture(scope="module")
def run(glm4_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on an old checkpoint, with the tutorial's targets by their old names."""
    from tiny import small_classification

    folder = tmp_path_factory.mktemp("glm")
    old = old_glm(folder / "old", lively_model(folder / "lively", glm4_folder))
    rows = small_classification(folder / "classification.jsonl")
    targets = [target for target in TUTORIAL if target != "activation_func"]
    return trained(run_config(folder, old, rows, f"lora.target_modules={json.dumps(targets)}"))


def update(folder: Path, module: str) -> torch.Tensor:
    """B·A·α/r of a module, by PEFT's rules for its two files, in float64."""
    tensors, config = load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text("utf-8"))
    a, b = (tensors[f"{module}.lora_{half}.weight"].double() for half in "AB")
    target = module.rpartition(".")[2]
    assert target in config["target_modules"]
    assert len(a) == b.shape[1] == config["rank_pattern"].get(target, config["r"])
    return b @ a * config["alpha_pattern"].get(target, config["lora_alpha"]) / len(a)


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal but for the order of a float64 sum, which a larger rank may change."""
    return torch.allclose(first, second, rtol=1e-12, atol=1e-12)


def same_update(native: Path, old: Path) -> None:
    """Every layer's update of one folder is that of the other."""
    for at in range(2):
        parts = torch.cat([update(native, f"{NATIVE}{at}.{part}") for part in PARTS])
        assert close(update(old, f"{OLD}{at}.{FUSED}"), parts)
        for was, now in (
            ("self_attention.dense", "self_attn.o_proj"),
            ("mlp.dense_h_to_4h", "mlp.gate_up_proj"),
            ("mlp.dense_4h_to_h", "mlp.down_proj"),
        ):
            assert close(update(old, f"{OLD}{at}.{was}"), update(native, f"{NATIVE}{at}.{now}"))


def test_export_and_back(run: Path, tmp_path: Path) -> None:
    old = export(run, tmp_path / "old", "chatglm-adapter")
    same_update(run / "adapter", old)
    config = json.loads((old / CONFIG).read_text("utf-8"))
    assert sorted(config["target_modules"]) == ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({"query_key_value": 12}, {"query_key_value": 96})
    (tmp_path / "back").mkdir()
    write_native(old, tmp_path / "back", ROWS)
    first, second = load_file(run / "adapter" / WEIGHTS), load_file(tmp_path / "back" / WEIGHTS)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    told = json.loads((tmp_path / "back" / CONFIG).read_text("utf-8"))
    assert (told["r"], told["lora_alpha"], told["rank_pattern"], told["alpha_pattern"]) == (4, 32, {}, {})


def test_an_exported_adapter_answers_as_the_run_does(run: Path, tmp_path: Path) -> None:
    old = export(run, tmp_path / "old", "chatglm-adapter")
    texts = [row["text"] for row in lines(run.parent / "classification.jsonl")]
    assert weitiao.load(old, device="cpu").predict(texts) == weitiao.load(run, device="cpu").predict(texts)


def test_an_adapter_of_the_tutorial_is_read_and_written_exactly(glm4_folder: Path, tmp_path: Path) -> None:
    """Rank 8 with one A for q, k and v, as PEFT made it around GLM-4's own code."""
    draw = torch.Generator().manual_seed(0)
    sizes = {
        FUSED: (64, sum(ROWS)),
        "self_attention.dense": (64, 64),
        "mlp.dense_h_to_4h": (64, 192),
        "mlp.dense_4h_to_h": (96, 64),
    }
    tensors = {}
    for at in range(2):
        for module, (inside, outside) in sizes.items():
            tensors[f"{OLD}{at}.{module}.lora_A.weight"] = torch.randn(8, inside, generator=draw)
            tensors[f"{OLD}{at}.{module}.lora_B.weight"] = torch.randn(outside, 8, generator=draw)
    tutorial = tmp_path / "tutorial"
    tutorial.mkdir()
    save_file(tensors, tutorial / WEIGHTS)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 32, "lora_dropout": 0.1}
    (tutorial / CONFIG).write_text(json.dumps(config | {"target_modules": TUTORIAL, "rank_pattern": None}))

    (tmp_path / "native").mkdir()
    write_native(tutorial, tmp_path / "native", ROWS)
    told = json.loads((tmp_path / "native" / CONFIG).read_text("utf-8"))
    (tutorial / CONFIG).write_text(
        json.dumps(config | {"target_modules": TUTORIAL, "rank_pattern": {}, "alpha_pattern": {}})
    )
    assert (told["r"], told["rank_pattern"], told["alpha_pattern"]) == (8, {}, {})
    same_update(tmp_path / "native", tutorial)

    (tmp_path / "again").mkdir()
    write_old(tmp_path / "native", tmp_path / "again", ROWS)
    again = load_file(tmp_path / "again" / WEIGHTS)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)

    model = load_model(glm4_folder, CPU, torch.float32)
    ids = torch.arange(30)[None]
    with torch.inference_mode():
        before = model(ids).logits.clone()
        merged = open_adapter(model, tutorial).merge_and_unload()
        weight = merged.model.layers[1].self_attn.k_proj.weight
        plain = load_model(glm4_folder, CPU, torch.float32).model.layers[1].self_attn.k_proj.weight
        fused = update(tutorial, f"{OLD}1.{FUSED}")
        assert torch.allclose((weight - plain).double(), fused[64:96], atol=1e-5)
        assert not torch.allclose(merged(ids).logits, before, atol=1e-2)


def test_parts_without_an_adapter_are_rows_of_zeros(glm4_folder: Path, tmp_path: Path) -> None:
    section = LoraSection(r=2, target_modules=["q_proj", "v_proj"])  # type: ignore[call-arg]
    model = add_lora(load_model(glm4_folder, CPU, torch.float32), section, families()["glm4"], 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    for name in ("native", "old"):
        (tmp_path / name).mkdir()
    save_adapter(model, tmp_path / "native")
    write_old(tmp_path / "native", tmp_path / "old", ROWS)
    whole = update(tmp_path / "old", f"{OLD}0.{FUSED}")
    assert close(whole[:64], update(tmp_path / "native", f"{NATIVE}0.{PARTS[0]}"))
    assert not whole[64:96].any()
    assert close(whole[96:], update(tmp_path / "native", f"{NATIVE}0.{PARTS[2]}"))


def test_what_the_old_names_cannot_say_is_refused(run: Path, tmp_path: Path, qwen2_folder: Path) -> None:
    with pytest.raises(ConfigError, match="no export format 'chatglm'; did you mean 'chatglm-adapter'"):
        export(run, tmp_path / "x", "chatglm")
    with pytest.raises(ConfigError, match="is there already"):
        export(run, tmp_path, "chatglm-adapter")
    (tmp_path / "dora").mkdir()
    for name in (WEIGHTS, CONFIG):
        (tmp_path / "dora" / name).write_bytes((run / "adapter" / name).read_bytes())
    config = json.loads((tmp_path / "dora" / CONFIG).read_text("utf-8")) | {"use_dora": True}
    (tmp_path / "dora" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="use_dora = True cannot be said"):
        write_old(tmp_path / "dora", tmp_path, ROWS)
    rows = run.parent / "classification.jsonl"
    other = trained(run_config(tmp_path, qwen2_folder, rows, "training.max_steps=1", "run.name=qwen"))
    with pytest.raises(ConfigError, match="an adapter of 'qwen2'; chatglm-adapter is GLM-4's form"):
        export(other, tmp_path / "x", "chatglm-adapter")
    assert not (tmp_path / "x").exists()


def test_the_tutorials_targets(
    run: Path, glm4_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads((run / "adapter" / CONFIG).read_text("utf-8"))["target_modules"]
    assert sorted(told) == sorted(families()["glm4"].lora_targets)
    config = run_config(
        tmp_path, glm4_folder, run.parent / "classification.jsonl", f"lora.target_modules={json.dumps(TUTORIAL)}"
    )
    with pytest.raises(ConfigError, match="'activation_func' matches no layer"):
        weitiao.train(config)
    assert "query_key_value is q_proj, k_proj, v_proj" in capsys.readouterr().err
    assert not config.folder.exists()
