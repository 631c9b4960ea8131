"""The log read back: sessions, times, and lines that were cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weitiao.report.log import read_log


def log(path: Path, *lines: dict[str, object] | str) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_time_of_a_resumed_run(tmp_path: Path) -> None:
    told = read_log(
        log(
            tmp_path / "log.jsonl",
            {"step": 0, "time": 100.0, "started": {"device": "cpu"}, "data": {"train": {"rows": 3}}},
            {"step": 5, "time": 110.0, "loss": 2.0},
            {"step": 5, "time": 500.0, "started": {"device": "cuda"}, "data": {"train": {"rows": 3}}},
            {"step": 10, "time": 520.0, "loss": 1.0},
            {"step": 10, "time": 521.0, "evaluation": {"f1": 0.5}, "best": True},
            {"step": 10, "time": 522.0, "training_seconds": 21.5},
            {"step": 10, "time": 600.0, "finished": {"peak_gib": 1.5}},
        )
    )
    assert told.seconds == pytest.approx(10 + 21.5)
    assert (told.sessions, told.machine, told.last_step) == (2, {"device": "cuda"}, 10)
    assert [line["loss"] for line in told.training] == [2.0, 1.0]
    assert told.peak == {"peak_gib": 1.5}


def test_bad_lines_are_left_out(tmp_path: Path) -> None:
    told = read_log(
        log(
            tmp_path / "log.jsonl",
            {"step": 1, "time": 1.0, "loss": None, "grad_norm": None},
            "[1]",
            "\x00\x00",
            {"step": "x"},
            {"step": 2, "time": 2.0, "loss": 1.0},
            '{"step": 3, "los',
        )
    )
    assert [line["step"] for line in told.training] == [2]
    assert told.sessions == 0


def test_no_log(tmp_path: Path) -> None:
    told = read_log(tmp_path / "log.jsonl")
    assert (told.last_step, told.seconds, told.machine) == (0, None, {})
