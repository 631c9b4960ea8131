"""What a run goes on from: adapter, AdamW's moments and the trainer's own numbers, as safetensors and JSON.

A checkpoint folder is an adapter folder too, so PEFT and `weitiao predict` open it as it is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from weitiao.errors import CheckpointError
from weitiao.model.adapter import adapter_parameters, save_adapter
from weitiao.run_folder import TASK_FILE, TaskFile, damage, whole_folder, write_json


@dataclass
class Progress:
    """How far a run has come. Samples, learning rate and dropout are functions of `step`."""

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    evaluations_without_gain: int = 0
    finished: bool = False
    loss_scale: float | None = None
    """Of a training in float16 (`guards.py`)."""
    without_overflow: int = 0


def save_checkpoint(
    folder: Path, model: Any, told: TaskFile, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    with whole_folder(folder) as draft:
        write_adapter(draft, model, told)
        save_file(_moments(model, optimizer), draft / "optimizer.safetensors")
        write_json(draft / "trainer.json", asdict(progress))


def write_adapter(folder: Path, model: Any, told: TaskFile) -> None:
    save_adapter(model, folder)
    write_json(folder / TASK_FILE, told.model_dump(mode="json"))


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> Progress:
    """Put the saved adapter and moments into `model` and `optimizer`. Raises CheckpointError when they do not fit."""
    problem = damage(folder)
    if problem:
        raise CheckpointError(f"{folder}: damaged checkpoint ({problem}); remove it to go on from the one before")
    load_weights(folder, model)
    moments = load_file(folder / "optimizer.safetensors")
    for name, parameter in adapter_parameters(model):
        kinds = ("exp_avg", "exp_avg_sq", "step")
        optimizer.state[parameter] = {
            kind: moments[f"{name}/{kind}"].to(parameter.device if kind != "step" else "cpu") for kind in kinds
        }
        if parameter.device.type == "cuda":  # fused AdamW counts on the device
            optimizer.state[parameter]["step"] = optimizer.state[parameter]["step"].to(parameter.device)
    return Progress(**json.loads((folder / "trainer.json").read_text("utf-8")))


def load_weights(folder: Path, model: Any) -> None:
    """Put the adapter of a folder into a model that already has adapters of the same layers."""
    from peft import set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise CheckpointError(f"{folder}: the adapter has other layers than this config makes ({missing[:1]})")


def _moments(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{kind}": value.detach().cpu().contiguous()
        for name, parameter in adapter_parameters(model)
        for kind, value in optimizer.state[parameter].items()
    }
