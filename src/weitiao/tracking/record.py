"""The record of a run: `log.jsonl`, always, and the trackers of `tracking.trackers`, which get the same figures.

A run that goes on after an interruption is a new run of the same name at a tracker, which gets all earlier lines of
`log.jsonl` again: no tracker's own way to resume has to be trusted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.config import RunConfig, load_config
from weitiao.errors import CheckpointError, ConfigError
from weitiao.run_folder import RunFolder
from weitiao.tracking.jsonl import JsonlLog
from weitiao.tracking.screen import Screen
from weitiao.tracking.trackers import Trackers, refuse_missing


class Record:
    """A context manager around all that a run does. Its `write` is that of `JsonlLog`."""

    def __init__(self, run: RunFolder, config: RunConfig, screen: Screen, from_step: int = 0) -> None:
        """from_step: figures of later steps are dropped, for they will come again."""
        self._log = JsonlLog(run.log, from_step)
        self._trackers = Trackers(run, config, screen)
        for line in _lines(run):
            self._trackers.line(line)

    def write(self, step: int, **values: Any) -> None:
        self._trackers.line(self._log.write(step, **values))

    def result(self, step: int, metrics: Mapping[str, Any], predictions: Path) -> None:
        """What is in files of its own, and not repeated in `log.jsonl`; see `Trackers.result`."""
        self._trackers.result(step, time.time(), metrics, predictions)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *error: Any) -> None:
        self._log.close()
        self._trackers.__exit__(*error)


def resend(run: str | Path, overrides: Sequence[str] = (), screen: Screen | None = None) -> None:
    """Give what a run folder holds to trackers, as a new run of the same name: to those of the run's own config, or
    others, such as `["tracking.trackers=[swanlab]", "tracking.mode=local"]`. The folder's config stays as it is.

    Raises ConfigError when there is no tracker, or one is not installed; CheckpointError when there is no run.
    """
    folder = RunFolder(run)
    config = load_config(folder.read_config().model_dump(mode="json"), overrides)
    if not config.tracking.trackers:
        raise ConfigError("no tracker to send to; name one, such as tracking.trackers=[swanlab]")
    refuse_missing(config.tracking)
    lines = _lines(folder)
    if not lines:
        raise CheckpointError(f"{folder.log}: nothing to send")
    with Trackers(folder, config, screen or Screen()) as trackers:
        for line in lines:
            trackers.line(line)
        if folder.finished:
            trackers.result(lines[-1]["step"], lines[-1]["time"], folder.read_metrics(), folder.predictions)


def _lines(run: RunFolder) -> list[dict[str, Any]]:
    if not run.log.is_file():
        return []
    found = []
    for line in run.log.read_text("utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off by an interruption
            continue
    return found
