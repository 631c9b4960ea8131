"""A folder to work in, as a user has one: a tiny model, data, a config; for some tests, a run too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny import small_classification, small_ner, tiny_model

CONFIG = """
run: {name: run}
task: {name: classification}
model: {name: model, device: cpu}
data: {train: rows.jsonl, validation: 0.25}
training: {max_steps: 2, samples_per_step: 4}
evaluation: {baselines: false, untuned: false, bootstrap: 100}
"""
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a user whose caches are empty. One thread: more would wait for each other at this size."""
    home = tmp_path_factory.mktemp("home")
    ours = ("HF_", "WEITIAO_", "MODELSCOPE_", "XDG_", "COLUMNS", "CUDA_VISIBLE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    offline = {"HF_HUB_OFFLINE": "1", "WEITIAO_OFFLINE": "1"}
    return kept | offline | {"HOME": str(home), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def command() -> list[str]:
    return [sys.executable, "-m", "weitiao.cli"]


@pytest.fixture(scope="session")
def weitiao(command: list[str], environment: dict[str, str]) -> Cli:
    """weitiao(folder, *arguments, stdin=b"") runs the command line there."""

    def run(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*command, *arguments], cwd=folder, env=environment, input=stdin, capture_output=True, timeout=300
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
        )

    return run


@pytest.fixture(scope="session")
def _bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "work"
    tiny_model(folder / "model", "qwen2")
    small_classification(folder / "rows.jsonl")
    small_ner(folder / "ner.jsonl", 24)
    (folder / "config.yaml").write_text(CONFIG, "utf-8")
    (folder / "ner.yaml").write_text(CONFIG.replace("classification", "ner").replace("rows.", "ner."), "utf-8")
    return folder


@pytest.fixture(scope="session")
def _trained(_bare: Path, tmp_path_factory: pytest.TempPathFactory, weitiao: Cli) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "trained"
    shutil.copytree(_bare, folder)
    done = weitiao(folder, "train", "config.yaml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def work(_bare: Path, tmp_path: Path) -> Path:
    """A folder with `model/`, `rows.jsonl`, `ner.jsonl`, `config.yaml` and `ner.yaml`; a copy of its own."""
    return Path(shutil.copytree(_bare, tmp_path / "work"))


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """The same with the finished run `output/run` of `config.yaml`."""
    return Path(shutil.copytree(_trained, tmp_path / "work"))
