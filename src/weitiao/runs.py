"""`weitiao runs`: the run folders below a folder, and how far each has come. By their small files: no model, no torch.

A folder is a run when it holds two of the files that every run has; one whose files cannot be read is listed with the
reason. A run's own folders (checkpoints, adapter) are not looked into for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from weitiao.errors import CheckpointError, WeitiaoError
from weitiao.hub.download import size
from weitiao.report.log import read_log
from weitiao.report.run import planned_steps
from weitiao.run_folder import RunFolder

LEVELS = 2
"""How deep runs are looked for: `output/<name>`, and groups of them."""
WIDTH = 160
"""Columns of the table where there is no terminal to say how many fit."""

WIDE = 110
"""Columns from which on all of the table fits."""


@dataclass(frozen=True)
class Listed:
    path: str
    name: str
    bytes: int
    changed: float
    """Seconds since 1970, of the newest file."""
    state: str
    """finished · unfinished at step N of M · empty · unreadable: reason"""
    task: str | None = None
    model: str | None = None
    metric: str | None = None
    """The headline's name."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """Ends of its 95 % interval."""
    rows: int | None = None
    """That were measured."""
    train_rows: int | None = None


def runs_below(folder: Path) -> list[Listed]:
    """The runs in a folder, the newest first; those one or two levels below, or the folder itself when it is one.
    Raises CheckpointError when there is no such folder."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; wanted one that holds run folders, by default output")
    found = [_listed(path) for path in ([folder] if _is_run(folder) else _run_folders(folder, LEVELS))]
    return sorted(found, key=lambda run: (-run.changed, run.path))


def _run_folders(folder: Path, levels: int) -> Iterator[Path]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # not ours to read
        return
    for path in inside:
        if _is_run(path):
            yield path
        elif levels > 1:
            yield from _run_folders(path, levels - 1)


def _is_run(folder: Path) -> bool:
    run = RunFolder(folder)
    return sum(path.is_file() for path in (run.config, run.data, run.log, run.metrics)) >= 2


def _listed(folder: Path) -> Listed:
    taken, changed = _disk(folder)
    told: dict[str, Any] = {"path": str(folder), "name": folder.resolve().name, "bytes": taken, "changed": changed}
    try:
        return Listed(**told, **_read(RunFolder(folder)))
    except (WeitiaoError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).removeprefix(f"{folder}/").removeprefix(f"{folder}: ") or type(error).__name__
        return Listed(**told, state=f"unreadable: {' '.join(reason.split())}")


def _read(run: RunFolder) -> dict[str, Any]:
    config, facts = run.read_config(), run.read_data()
    told: dict[str, Any] = {"task": config.task["name"], "model": config.model.name}
    told["train_rows"] = facts.get("rows", {}).get("train")
    if run.finished:
        return told | {"state": "finished"} | _headline(run.read_metrics())
    step = max(read_log(run.log).last_step, *run.steps_of_checkpoints, 0)
    total = planned_steps(config, facts)
    return told | {"state": f"unfinished at step {step} of {total or '?'}" if step else "empty"}


def _headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Of the fine-tuned model; nothing where nothing was measured."""
    if not metrics["systems"]:
        return {}
    name, figures = metrics["headline"], metrics["systems"]["finetuned"]
    ends = {end: figures.get(f"{name}_{end}") for end in ("low", "high")}
    return {"metric": name, "value": float(figures[name]), "rows": int(metrics["rows"]), **ends}


def _disk(folder: Path) -> tuple[int, float]:
    """Bytes below a folder, and when the newest file was written; links are not followed."""
    taken, newest = 0, folder.stat().st_mtime
    for path in folder.rglob("*"):
        try:
            told = path.lstat()
        except OSError:  # a training that goes on renames its drafts
            continue
        taken += told.st_size
        newest = max(newest, told.st_mtime)
    return taken, newest


def runs_table(runs: Sequence[Listed], folder: Path, width: int = WIDTH) -> Table:
    """width: columns of the terminal; where they are few, models and measured rows are left to `--json`."""
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    table = Table(title=f"{count} in {folder}", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    wide = width >= WIDE
    for name, least in (("run", 8), ("task", 14), ("model", 8), ("metric", 14)):
        if wide or name != "model":
            table.add_column(name, overflow="fold", min_width=least)
    if wide:
        table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold", min_width=10)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("last change", overflow="fold", min_width=10)
    for run in runs:
        changed = datetime.fromtimestamp(run.changed).strftime("%Y-%m-%d %H:%M")
        name = str(Path(run.path).relative_to(folder)) if run.path != str(folder) else run.name
        rows = "" if run.rows is None else f"{run.rows:,}"
        more = (_model(run), rows) if wide else ()
        head, tail = (name, run.task or "", *more[:1], _metric(run)), (*more[1:], run.state, size(run.bytes), changed)
        table.add_row(*map(Text, (*head, *tail)))
    return table


def _model(run: Listed) -> str:
    """Without the folders of a path, which would fill the table."""
    model = run.model or ""
    return Path(model).name if Path(model).is_absolute() or model.startswith((".", "~")) else model


def _metric(run: Listed) -> str:
    if run.value is None:
        return ""
    interval = "" if run.low is None or run.high is None else f" [{run.low:.3f}–{run.high:.3f}]"
    return f"{run.metric} {run.value:.3f}{interval}"
