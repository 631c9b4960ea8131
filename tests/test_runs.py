"""`weitiao runs`: which folders are listed, how far each has come, and what is said of a broken one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from weitiao.config import load_config
from weitiao.errors import CheckpointError
from weitiao.run_folder import RunFolder
from weitiao.runs import Listed, runs_below, runs_table

METRICS = {
    "schema_version": 1,
    "task": "classification",
    "split": "test",
    "rows": 300,
    "headline": "accuracy",
    "ceiling": 1.0,
    "systems": {"finetuned": {"accuracy": 0.877, "accuracy_low": 0.84, "accuracy_high": 0.913}, "majority": {}},
}


def a_run(folder: Path, *steps: int, metrics: Any = None, checkpoint: int | None = None, changed: float = 0) -> Path:
    """A run of 100 rows, 16 a step, 2 epochs: 14 steps."""
    config = load_config(
        {"task": {"name": "classification"}, "model": {"name": "ORG/Model-1B"}, "data": {"train": "rows.jsonl"}}
    )
    run = RunFolder(folder)
    run.start(config, {"schema_version": 1, "files": {}, "rows": {"train": 100, "validation": 10, "test": 0}})
    lines = [{"step": 0, "started": {}}, *({"step": step, "loss": 1.0} for step in steps)]
    run.log.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    if checkpoint:
        run.checkpoint(checkpoint).mkdir()
        (run.checkpoint(checkpoint) / "task.json").write_text("{}", "utf-8")
    if metrics is not None:
        run.metrics.write_text(json.dumps(metrics), "utf-8")
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (changed, changed)) if changed else None
    return folder


def states(folder: Path) -> dict[str, str]:
    return {run.name: run.state for run in runs_below(folder)}


def test_states(tmp_path: Path) -> None:
    a_run(tmp_path / "done", 10, 14, metrics=METRICS)
    a_run(tmp_path / "half", 3, 6)
    a_run(tmp_path / "saved", 6, checkpoint=8)
    a_run(tmp_path / "begun")
    assert states(tmp_path) == {
        "done": "finished",
        "half": "unfinished at step 6 of 14",
        "saved": "unfinished at step 8 of 14",
        "begun": "empty",
    }


def test_a_finished_run(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "done", 14, metrics=METRICS, changed=1_700_000_000)
    [run] = runs_below(tmp_path)
    taken = sum(path.lstat().st_size for path in folder.rglob("*"))
    assert run == Listed(
        path=str(folder),
        name="done",
        bytes=taken,
        changed=1_700_000_000,
        state="finished",
        task="classification",
        model="ORG/Model-1B",
        metric="accuracy",
        value=0.877,
        low=0.84,
        high=0.913,
        rows=300,
        train_rows=100,
    )
    assert runs_below(folder) == [run], "a run folder itself is listed alone"


def test_a_run_that_measured_nothing(tmp_path: Path) -> None:
    a_run(tmp_path / "done", metrics=METRICS | {"systems": {}})
    [run] = runs_below(tmp_path)
    assert (run.state, run.metric, run.rows) == ("finished", None, None)


def test_two_levels_and_no_deeper_and_nothing_else(tmp_path: Path) -> None:
    a_run(tmp_path / "here", changed=2e9)
    a_run(tmp_path / "group" / "there", changed=1.9e9)
    a_run(tmp_path / "a" / "b" / "too-deep")
    a_run(tmp_path / ".hidden")
    a_run(tmp_path / "here" / "adapter")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("another: program\n", "utf-8")
    (tmp_path / "file").write_text("", "utf-8")
    found = runs_below(tmp_path)
    assert [run.path for run in found] == [str(tmp_path / "here"), str(tmp_path / "group" / "there")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.yaml", "run: [", "unreadable: config.yaml:1: is not valid YAML"),
        ("config.yaml", "{}", "unreadable: config.yaml: "),
        ("config.yaml", None, "unreadable: no run here (no config.yaml)"),
        ("data.json", "{", "unreadable: data.json: unreadable"),
        ("metrics.json", "{", "unreadable: metrics.json: unreadable"),
        ("metrics.json", "{}", "unreadable: 'systems'"),
        ("metrics.json", json.dumps(METRICS | {"systems": {"finetuned": []}}), "unreadable: "),
    ],
)
def test_a_broken_run_says_why(name: str, text: str | None, words: str, tmp_path: Path) -> None:
    a_run(tmp_path / "sound", 14, metrics=METRICS)
    folder = a_run(tmp_path / "broken", 14, metrics=METRICS)
    (folder / name).unlink() if text is None else (folder / name).write_text(text, "utf-8")
    found = states(tmp_path)
    assert found["sound"] == "finished"
    assert found["broken"].startswith(words), found["broken"]
    assert "\n" not in found["broken"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder; wanted one that holds run folders"):
        runs_below(tmp_path / "output")
    assert runs_below(tmp_path) == []


def test_the_table(tmp_path: Path) -> None:
    a_run(tmp_path / "group" / "done [1]", 14, metrics=METRICS)
    a_run(tmp_path / "half", 3)
    console = Console(width=160, record=True, file=(tmp_path / "screen").open("w"))
    console.print(runs_table(runs_below(tmp_path), tmp_path))
    text = console.export_text()
    [line] = [line for line in text.splitlines() if "done" in line]
    for cell in ("group/done [1]", "classification", "ORG/Model-1B", "accuracy 0.877 [0.840–0.913]", "300", "finished"):
        assert cell in line
    assert "unfinished at step 3 of 14" in text


def test_the_table_of_a_narrow_terminal(tmp_path: Path) -> None:
    a_run(tmp_path / "done", 14, metrics=METRICS)
    a_run(tmp_path / "half", 3)
    console = Console(width=80, record=True, file=(tmp_path / "screen").open("w"))
    console.print(runs_table(runs_below(tmp_path), tmp_path, 80))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for word in ("classification", "accuracy 0.877", "[0.840–0.913]", "unfinished", "finished", "last change"):
        assert word in text
    assert "ORG/Model-1B" not in text


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    a_run(tmp_path / "output" / "done", 14, metrics=METRICS)
    script = (
        "import sys, weitiao.cli\n"
        "sys.argv = ['weitiao', 'runs', *sys.argv[1:]]\n"
        "try:\n    weitiao.cli.main()\n"
        "finally:\n    assert not {'torch', 'transformers', 'peft'} & sys.modules.keys()\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *arguments]
        environment = os.environ | {"PYTHONUTF8": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    table = run()
    assert table.returncode == 0, table.stderr
    assert "accuracy 0.877 [0.840–0.913]" in table.stdout
    assert [line for line in table.stdout.splitlines() if line != line.rstrip()] == []
    values = json.loads(run("output", "--json").stdout)
    assert [(value["name"], value["value"], value["state"]) for value in values] == [("done", 0.877, "finished")]
    shutil.rmtree(tmp_path / "output")
    missing = run()
    assert missing.returncode == 2
    assert missing.stderr == "weitiao: output: no such folder; wanted one that holds run folders, by default output\n"
