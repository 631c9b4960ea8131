"""What a run says it takes on the disk, beside what it took; and a disk that is too small."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from runs import run_config
from weitiao.config import RunConfig
from weitiao.errors import ConfigError
from weitiao.run_folder import RunFolder, whole_folder
from weitiao.tracking.screen import Screen
from weitiao.training import disk
from weitiao.training.disk import checkpoints_at_most, told_disk
from weitiao.training.train import train

MIB = 2**20


def config(**training: int) -> RunConfig:
    values = {"task": {"name": "ner"}, "model": {"name": "x"}, "data": {"train": "y"}, "training": training}
    return RunConfig.model_validate(values)


@pytest.mark.parametrize(
    ("training", "total", "most"),
    [
        ({}, 1000, 4),
        ({"keep_checkpoints": 1}, 1000, 3),
        ({"keep_checkpoints": 9}, 1000, 11),
        ({}, 50, 1),
        ({"save_steps": 20}, 50, 3),
    ],
)
def test_checkpoints_at_most(training: dict[str, int], total: int, most: int) -> None:
    assert checkpoints_at_most(config(**training), total, per_epoch=200) == most


def test_what_a_run_takes_is_no_more_than_it_said(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    write = whole_folder

    def watched(target: Path):  # type: ignore[no-untyped-def]
        seen.append(sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors")))
        return write(target)

    monkeypatch.setattr("weitiao.training.checkpoint.whole_folder", watched)
    monkeypatch.setattr("weitiao.training.loop.whole_folder", watched)
    monkeypatch.setattr(disk, "ROOM", 64 * 1024)  # of headers and JSON, which outweigh a tiny adapter
    every = ("training.save_steps=1", "data.validation=0.2", "evaluation.steps=1", "training.keep_checkpoints=1")
    settings = run_config(tmp_path, qwen2_folder, classification_file, *every)
    told: list[int] = []
    monkeypatch.setattr(disk, "size", lambda count: told.append(count) or f"{count:,} B")
    console = Console(record=True, quiet=False, width=200, file=(tmp_path / "screen").open("w"))
    train(settings, screen=Screen(console))
    assert "the run takes at most " in console.export_text()
    assert len(seen) > 6
    assert max(seen) < max(told[:2])
    written = RunFolder(settings.folder).bytes_of_adapters
    assert 0 < written <= told[1]


def test_a_disk_that_is_too_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = 100 * MIB
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    run = RunFolder(tmp_path / "output" / "run")
    line = told_disk(run, 5 * MIB, 4)
    assert line == "the run takes at most 90.2 MB of disk, with up to 4 checkpoints of 15.7 MB; 105 MB are free"
    with pytest.raises(ConfigError, match=r"takes up to 178 MB .* 105 MB are free; make room, .*keep_checkpoints"):
        told_disk(run, 11 * MIB, 4)
    # What it overwrites counts as free.
    run.checkpoint(3).mkdir(parents=True)
    (run.checkpoint(3) / "optimizer.safetensors").write_bytes(bytes(80 * MIB))
    assert "at most" in told_disk(run, 11 * MIB, 4)


def test_nothing_is_written_where_there_is_no_room(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    settings = run_config(tmp_path, qwen2_folder, classification_file)
    with pytest.raises(ConfigError, match="0 B are free"):
        train(settings, screen=Screen(silent=True))
    assert not settings.folder.exists()
