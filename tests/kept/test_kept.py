"""Runs that earlier versions left are opened, answer as they did then, and can be gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kept.make import TASKS
from runs import SILENT
from weitiao import load
from weitiao.config import load_config
from weitiao.export import export
from weitiao.prediction.evaluate import evaluate
from weitiao.report.page import write_report
from weitiao.runs import runs_below
from weitiao.training.train import train

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "answers.json").exists())


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kept"
    shutil.copytree(request.param, folder)
    monkeypatch.chdir(folder)
    return folder


def told(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_some_are_kept() -> None:
    assert VERSIONS


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("part", [".", "adapter", "checkpoint-60"])
def test_answers(kept: Path, task: str, part: str) -> None:
    then = told(kept / "answers.json")[task]
    now = load(kept / task / part, device="cpu").predict([row["text"] for row in then])
    if part == "checkpoint-60":
        assert len(now) == len(then)  # the best adapter may be another
        return
    assert [answer.text for answer in now] == [row["answer"] for row in then]
    assert [answer.probability for answer in now] == pytest.approx([row["probability"] for row in then], abs=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_figures(kept: Path, task: str) -> None:
    then = told(kept / task / "metrics.json")["systems"]["finetuned"]
    now = evaluate(kept / task, screen=SILENT)["systems"]["finetuned"]
    assert now.keys() >= then.keys()
    assert {name: now[name] for name in then if isinstance(then[name], float)} == pytest.approx(
        {name: value for name, value in then.items() if isinstance(value, float)}, abs=1e-4
    )


@pytest.mark.parametrize("task", TASKS)
def test_what_else_reads_a_run(kept: Path, task: str) -> None:
    assert write_report(kept / task).read_text("utf-8").startswith("<!DOCTYPE html>")
    assert (export(kept / task, kept / "exported", "adapter") / "adapter_model.safetensors").exists()
    assert {run.state for run in runs_below(kept)} == {"finished"}


@pytest.mark.parametrize("task", TASKS)
def test_the_same_command_prints_the_figures_of_a_finished_run(kept: Path, task: str) -> None:
    before = (kept / task / "adapter" / "adapter_model.safetensors").read_bytes()
    assert train(load_config(f"{task}/config.yaml"), screen=SILENT) == told(kept / task / "metrics.json")
    assert (kept / task / "adapter" / "adapter_model.safetensors").read_bytes() == before
