"""Checkpoints: everything a run goes on from, whole or absent; a damaged one is passed over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from runs import SILENT, adapter, checkpoints, lines, run_config, same_bits, trained
from weitiao.config import dump_yaml
from weitiao.errors import CheckpointError
from weitiao.model.adapter import adapter_parameters
from weitiao.model.quiet import quiet
from weitiao.prediction.predictor import load
from weitiao.run_folder import TaskFile, damage, read_task_file
from weitiao.training.checkpoint import Progress, load_checkpoint, load_weights, save_checkpoint
from weitiao.training.loop import Loop
from weitiao.training.train import train

TOLD = {
    "task": {"name": "classification"},
    "family": "qwen2",
    "template_hash": "",
    "tokenizer_hash": "",
    "stop_ids": [1],
    "base": {"name": "x", "fingerprint": "y"},
    "max_length": 10,
    "max_answer_tokens": 10,
    "columns": {},
    "encoding": "utf-8",
}


def model_and_optimizer(folder: Path, targets: tuple[str, ...] = ("q_proj", "v_proj")) -> tuple[Any, Any]:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with quiet():
        model = get_peft_model(base, LoraConfig(r=2, target_modules=list(targets)))
    return model, torch.optim.AdamW([p for _, p in adapter_parameters(model)], lr=1e-2, fused=True)


def update(model: Any, optimizer: Any, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _, parameter in adapter_parameters(model):
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    optimizer.step()


def state(model: Any, optimizer: Any) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in adapter_parameters(model):
        found[name] = parameter.detach().clone()
        found.update({f"{name}/{key}": value.clone() for key, value in optimizer.state[parameter].items()})
    return found


def test_round_trip(qwen2_folder: Path, tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(qwen2_folder)
    for seed in range(3):
        update(model, optimizer, seed)
    saved = state(model, optimizer)
    progress = Progress(step=3, best_step=2, best_value=0.5, evaluations_without_gain=1)
    save_checkpoint(tmp_path / "checkpoint-3", model, TaskFile(**TOLD), optimizer, progress)  # type: ignore[arg-type]

    other, other_optimizer = model_and_optimizer(qwen2_folder)
    assert load_checkpoint(tmp_path / "checkpoint-3", other, other_optimizer) == progress
    assert same_bits(state(other, other_optimizer), saved)
    assert any(name.endswith("/exp_avg_sq") for name in saved)
    # And the next update is the same, bias correction included.
    update(model, optimizer, 9)
    update(other, other_optimizer, 9)
    assert same_bits(state(other, other_optimizer), state(model, optimizer))


def test_only_safetensors_and_json(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    run = trained(run_config(tmp_path, qwen2_folder, classification_file))
    for folder in (run / "adapter", run / "checkpoint-6"):
        assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
        assert {"adapter_config.json", "adapter_model.safetensors", "task.json"} <= {p.name for p in folder.iterdir()}
        assert damage(folder) is None
        assert all(tensor.dtype == torch.float32 for tensor in adapter(folder).values())
    assert read_task_file(run / "checkpoint-4") == read_task_file(run / "adapter")
    # A checkpoint is an adapter folder.
    [answer] = load(run / "checkpoint-4", device="cpu").predict(["手机很好"])
    assert answer.answer in ("好评", "差评")


def test_adapters_of_other_layers_are_refused(qwen2_folder: Path, tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(qwen2_folder)
    update(model, optimizer, 0)
    save_checkpoint(tmp_path / "checkpoint-1", model, TaskFile(**TOLD), optimizer, Progress(1))  # type: ignore[arg-type]
    for targets in (("q_proj",), ("q_proj", "v_proj", "o_proj")):
        other, _ = model_and_optimizer(qwen2_folder, targets)
        with pytest.raises(CheckpointError, match="checkpoint-1"):
            load_weights(tmp_path / "checkpoint-1", other)


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("adapter_model.safetensors", _flip),
        ("optimizer.safetensors", _flip),
        ("optimizer.safetensors", _remove),
        ("trainer.json", _flip),
        ("files.json", _remove),
        ("files.json", _empty),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    qwen2_folder: Path,
    classification_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    harm: Any,
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file)
    run = trained(config)
    whole = adapter(run)
    (run / "metrics.json").unlink()  # the run died while it was measured
    harm(run / "checkpoint-6" / name)
    steps = []
    step = Loop.step
    monkeypatch.setattr(Loop, "step", lambda self, number: steps.append(number) or step(self, number))
    trained(config)
    assert steps == [4, 5], "it did not go on from checkpoint-4"
    assert same_bits(adapter(run), whole)
    assert damage(run / "checkpoint-6") is None


def test_without_a_whole_checkpoint_it_starts_anew(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file)
    run = trained(config)
    whole = adapter(run)
    (run / "metrics.json").unlink()
    for path in run.glob("checkpoint-*/adapter_model.safetensors"):
        _flip(path)
    trained(config)
    assert same_bits(adapter(run), whole)
    assert [line["step"] for line in lines(run / "log.jsonl") if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_fits_its_hashes_but_not_the_model_is_refused(qwen2_folder: Path, tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(qwen2_folder)
    update(model, optimizer, 0)
    folder = tmp_path / "checkpoint-1"
    save_checkpoint(folder, model, TaskFile(**TOLD), optimizer, Progress(1))  # type: ignore[arg-type]
    _flip(folder / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors"):
        load_checkpoint(folder, model, optimizer)


KILLED_WHILE_SAVING = """
import os, signal, sys
from weitiao.training import checkpoint
from weitiao.training.train import train

write = checkpoint.write_json
def dying(path, value):
    if path.name == "trainer.json" and value["step"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, value)
checkpoint.write_json = dying
train(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_process_killed_while_it_saves(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    straight = trained(run_config(tmp_path / "a", qwen2_folder, classification_file, "lora.lora_dropout=0.1"))
    config = run_config(tmp_path / "b", qwen2_folder, classification_file, "lora.lora_dropout=0.1")
    (tmp_path / "config.yaml").write_text(dump_yaml(config), "utf-8")
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path / "config.yaml")]
    killed = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoints(config.folder) == ["checkpoint-2"]
    assert list(config.folder.glob(".*.partial")), "it was not killed in the middle of a save"
    resumed = trained(config)
    assert same_bits(adapter(resumed), adapter(straight))
    first, second = (load_file(run / "checkpoint-6" / "optimizer.safetensors") for run in (resumed, straight))
    assert same_bits(first, second)
    assert not list(resumed.glob(".*")), "a half-written folder was left"
    assert json.loads((resumed / "metrics.json").read_text("utf-8"))["schema_version"] == 1


def test_the_last_two_and_the_best_are_kept(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    overrides = ("training.max_steps=9", "training.save_steps=1", "data.validation=0.2", "evaluation.steps=3")
    run = trained(run_config(tmp_path, qwen2_folder, classification_file, *overrides))
    best = json.loads((run / "checkpoint-9" / "trainer.json").read_text("utf-8"))["best_step"]
    assert best in (3, 6, 9)
    assert checkpoints(run) == sorted({f"checkpoint-{step}" for step in (best, 8, 9)})
    assert same_bits(adapter(run), adapter(run / f"checkpoint-{best}"))


@pytest.mark.parametrize("last", [1, 4])
def test_as_many_of_the_last_are_kept_as_asked_for(
    last: int, qwen2_folder: Path, classification_file: Path, tmp_path: Path
) -> None:
    config = run_config(
        tmp_path, qwen2_folder, classification_file, "training.save_steps=1", f"training.keep_checkpoints={last}"
    )
    run = trained(config)
    assert checkpoints(run) == [f"checkpoint-{step}" for step in range(7 - last, 7)]
    other = run_config(tmp_path, qwen2_folder, classification_file, "training.save_steps=1", "training.on_cpu=allow")
    assert train(other, screen=SILENT)["systems"] == {}, "how many are kept makes no other run"


def test_a_finished_run_that_lost_its_adapter_says_so(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path
) -> None:
    """The adapter was damaged between training and measuring: one clear error, not metrics of something else."""
    config = run_config(tmp_path, qwen2_folder, classification_file, "data.validation=0.2")
    run = trained(config)
    (run / "metrics.json").unlink()
    broken = run / "adapter" / "adapter_model.safetensors"
    save_file({"something": torch.zeros(1)}, broken)
    with pytest.raises(CheckpointError, match="adapter"):
        train(config, screen=SILENT)
    broken.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="adapter"):
        train(config, screen=SILENT)
