"""A run folder as one value: all that a report says comes from here, and here it comes from the folder alone.

No model, no data file and no torch is needed; images that rows name are shown where they still lie. A run that is still
going on, or was interrupted, has no metrics and no answers yet; the rest is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from weitiao.config import RunConfig
from weitiao.data.pack import steps_per_epoch
from weitiao.errors import CheckpointError, WeitiaoError
from weitiao.images import measured_root
from weitiao.report.log import Log, read_log
from weitiao.run_folder import TASK_FILE, RunFolder, TaskFile, read_task_file
from weitiao.tasks.base import Example, Language, Task, language_of, task_class, task_options
from weitiao.types import Row

TOLD = ("prediction", "probability", "suggestion")
"""Fields of a row of `predictions.jsonl` that the run added; all others, `reference` too, are the row's own."""


@dataclass(frozen=True)
class Answered:
    """One row of `predictions.jsonl`, read back by its task."""

    example: Example
    """With the reference as its answer."""
    answer: Any
    probability: float | None
    right: bool


@dataclass(frozen=True)
class Run:
    path: Path
    config: RunConfig
    task: Task
    log: Log
    told: TaskFile | None
    """Of the best adapter, or of the newest checkpoint; None before there is one."""
    facts: Mapping[str, Any]
    """`data.json`."""
    metrics: Mapping[str, Any] | None
    """`metrics.json`; None before the run is finished."""
    rows: Sequence[Answered]
    """Rows that were measured; empty before the run is finished."""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def systems(self) -> Mapping[str, Mapping[str, Any]]:
        return (self.metrics or {}).get("systems", {})

    @property
    def own(self) -> Mapping[str, Any]:
        """Metrics of the fine-tuned model."""
        return self.systems.get("finetuned", {})

    @property
    def headline(self) -> str:
        return str((self.metrics or {}).get("headline") or self.task.headline)

    @property
    def image_root(self) -> str:
        """Folder below which the images of the measured rows must lie."""
        return measured_root(self.config.data, str((self.metrics or {}).get("split")))

    @property
    def temperature(self) -> float:
        return self.told.temperature if self.told else 1.0

    @cached_property
    def language(self) -> Language:
        """The task's; before an adapter says it, that of the names in the data."""
        told = self.task.options.language
        names = [name for split in self.log.data.values() for name in split.get("names", {})]
        return told or language_of(names)

    @property
    def steps(self) -> int | None:
        """Steps that the run takes when nothing stops it early."""
        return planned_steps(self.config, self.facts)


def planned_steps(config: RunConfig, facts: Mapping[str, Any]) -> int | None:
    """By a config and `data.json`; None where these do not say."""
    rows = facts.get("rows", {}).get("train")
    section = config.training
    if section.max_steps or not rows:
        return section.max_steps
    return max(1, round(section.num_train_epochs * steps_per_epoch(rows, section.samples_per_step)))


def read_run(path: str | Path) -> Run:
    """Raises CheckpointError (or ConfigError) in one line when there is no run in `path`, or its files are damaged."""
    folder = RunFolder(path)
    config = folder.read_config()
    told = _task_file(folder)
    task = _task(told.task if told else config.task)
    metrics = _checked(folder) if folder.finished else None
    rows = list(_rows(folder, task, told)) if metrics and folder.predictions.is_file() else []
    facts = folder.read_data() if folder.data.is_file() else {}
    return Run(folder.path, config, task, read_log(folder.log), told, facts, metrics, rows)


def _task_file(folder: RunFolder) -> TaskFile | None:
    # Whether a checkpoint's weights are whole does not matter here, and to see it would mean to read them all.
    checkpoints = sorted(folder.path.glob(f"checkpoint-*/{TASK_FILE}"), key=lambda path: path.stat().st_mtime)
    found = [folder.adapter / TASK_FILE, *reversed(checkpoints)]
    return next((read_task_file(path.parent) for path in found if path.is_file()), None)


def _task(options: Mapping[str, Any]) -> Task:
    return task_class(str(options["name"]))(task_options(options))


def _checked(folder: RunFolder) -> dict[str, Any]:
    metrics = folder.read_metrics()
    try:
        headline = metrics["headline"]
        sound = all(isinstance(figures[headline], float | int) for figures in metrics["systems"].values())
        if not sound or not isinstance(metrics["rows"], int) or "split" not in metrics:
            raise ValueError("it lacks figures")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder.metrics}: is not what `weitiao train` writes ({error}); remove it, and train goes on"
        ) from None
    return metrics


def _rows(folder: RunFolder, task: Task, told: TaskFile | None) -> Iterator[Answered]:
    columns = told.columns if told else {}
    with folder.predictions.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _answered(json.loads(line), task, Row({}, str(folder.predictions), number, columns, None))
            except (ValueError, KeyError, TypeError, AttributeError, WeitiaoError) as error:
                raise CheckpointError(
                    f"{folder.predictions}:{number}: is not a row that `weitiao train` writes ({error}); "
                    "remove metrics.json, and train measures again"
                ) from None


def _answered(record: Mapping[str, Any], task: Task, place: Row) -> Answered:
    row = replace(place, fields={key: value for key, value in record.items() if key not in TOLD})
    example = replace(task.example(row, labelled=False), answer=task.read_record(record["reference"]))
    answer, probability = task.read_record(record["prediction"]), record["probability"]
    return Answered(example, answer, probability, task.right(answer, example))
