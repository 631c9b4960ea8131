"""`examples/plain_loop.py` computes what `weitiao.train` computes: step by step the same loss, in the end the same
adapter. Both run as they are, from the same files, with the same seed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from parity.oracle import TOLERANCE
from runs import SILENT, adapter, lines
from tutorial_files import fudan_news
from weitiao.training.train import train

Script = Callable[..., "subprocess.CompletedProcess[str]"]
PLAIN_LOOP = Path(__file__).parents[2] / "examples" / "plain_loop.py"
ROWS, EPOCHS, STEPS = 40, 3, 9
RATE = 1e-2
"""High enough that the loss falls to a fiftieth; a difference at any step would grow in the next ones."""
MAX_LENGTH = 128


@pytest.fixture(scope="module")
def plain() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("plain_loop", PLAIN_LOOP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_loop"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["plain_loop"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl, whose first rows are longer than `MAX_LENGTH`, and test.jsonl."""
    folder = tmp_path_factory.mktemp("files")
    fudan_news(folder / "train.jsonl", ROWS, long=4)
    fudan_news(folder / "test.jsonl", 6, start=48)
    return folder


@pytest.fixture(scope="module")
def both(plain: ModuleType, files: Path, model: Path) -> tuple[list[float], list[float], Path]:
    """Losses of the plain loop, ours, and the folder with the runs `plain` and `ours`."""
    settings = plain.Settings(
        model=str(model),
        train=str(files / "train.jsonl"),
        test=str(files / "test.jsonl"),
        output=str(files / "plain"),
        max_length=MAX_LENGTH,
        epochs=EPOCHS,
        learning_rate=RATE,
    )
    theirs = plain.main(settings)
    train(config(files, model), screen=SILENT)
    ours = [line["loss"] for line in lines(files / "ours" / "log.jsonl") if "loss" in line]
    return theirs, ours, files


def config(files: Path, model: Path) -> dict[str, Any]:
    return {
        "run": {"output_dir": str(files), "name": "ours"},
        "task": {"name": "classification", "options": "row"},
        "model": {"name": str(model), "device": "cpu"},
        "data": {
            "train": str(files / "train.jsonl"),
            "validation": None,
            "test": str(files / "test.jsonl"),
            "max_length": MAX_LENGTH,
        },
        "training": {"learning_rate": RATE, "num_train_epochs": EPOCHS, "logging_steps": 1},
        "evaluation": {"baselines": False, "untuned": False, "bootstrap": 100},
    }


def test_every_step_has_the_same_loss(both: tuple[list[float], list[float], Path]) -> None:
    theirs, ours, _ = both
    assert len(theirs) == len(ours) == STEPS
    assert ours == pytest.approx(theirs, rel=TOLERANCE)
    assert theirs[-1] < theirs[0] / 20


def test_the_adapters_have_moved_alike(
    both: tuple[list[float], list[float], Path], plain: ModuleType, model: Path
) -> None:
    folder = both[2]
    ours = adapter(folder / "ours")
    theirs = load_file(folder / "plain" / f"checkpoint-{STEPS}" / "adapter_model.safetensors")
    fresh = plain.add_lora(plain.load_model(str(model))[0], plain.Settings.seed)
    start = {name.replace(".default", ""): tensor for name, tensor in fresh.state_dict().items() if "lora_" in name}
    assert ours.keys() == theirs.keys() == start.keys()
    moved = {name: theirs[name] - start[name] for name in theirs}
    worst = max(float(torch.norm(ours[name] - theirs[name]) / torch.norm(moved[name])) for name in moved)
    assert worst < TOLERANCE


@pytest.mark.slow
def test_it_runs_as_a_script(script: Script, files: Path, model: Path, tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    done = script(tmp_path, "plain_loop.py", f"model={model}", "max_steps=2", "learning_rate=1e-2", "shown=3")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("step")] == ["1/2", "2/2"]
    assert "of 3 right" in done.stdout
    saved = tmp_path / "output" / "plain-loop" / "checkpoint-2"
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in saved.iterdir()}


def test_it_imports_nothing_of_ours() -> None:
    imports = [line for line in PLAIN_LOOP.read_text("utf-8").splitlines() if "import" in line.split()]
    assert imports
    assert not [line for line in imports if line.lstrip().startswith(("import weitiao", "from weitiao"))]
