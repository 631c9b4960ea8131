"""Small training runs on tiny models: their config, and what is read back from their folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from parity.oracle import plain_model
from weitiao.config import RunConfig, load_config
from weitiao.model.quiet import quiet
from weitiao.tracking.screen import Screen
from weitiao.training.train import train

SILENT = Screen(silent=True)


def run_config(tmp: Path, model: Path, rows: Path, *overrides: str) -> RunConfig:
    """A run of 6 steps of 4 rows on the CPU with a checkpoint every 2, in the folder `tmp / "run"`."""
    values = {
        "run": {"output_dir": str(tmp), "name": "run"},
        "task": {"name": "ner" if "ner" in rows.stem else "classification"},
        "model": {"name": str(model), "device": "cpu"},
        "data": {"train": str(rows), "validation": None},
        "lora": {"r": 4},
        "training": {
            "learning_rate": 1e-2,
            "samples_per_step": 4,
            "max_steps": 6,
            "save_steps": 2,
            "logging_steps": 1,
        },
        "evaluation": {"baselines": False, "untuned": False, "bootstrap": 100},
    }
    return load_config(values, overrides)


def lively_model(folder: Path, model: Path) -> Path:
    """A copy of a tiny model in `folder` with weights large enough to learn a task in a few steps."""
    shutil.copytree(model, folder)
    with quiet():
        plain_model(model).save_pretrained(folder)
    return folder


def trained(config: RunConfig, **options: Any) -> Path:
    """Train in silence; the run's folder."""
    train(config, screen=SILENT, **options)
    return config.folder


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of an adapter folder, or of a run's best adapter."""
    if (folder / "adapter").is_dir():
        folder = folder / "adapter"
    return load_file(folder / "adapter_model.safetensors")


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoint-*"))
