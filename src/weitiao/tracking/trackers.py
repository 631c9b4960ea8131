"""The trackers of `tracking.trackers`, and what they get of a run.

line of log.jsonl                                                    names at the trackers
{"step": 10, "loss": 0.7, "learning_rate": 1e-4, …}                  train/loss, train/learning_rate
{"step": 10, "evaluation": {"accuracy": 0.8}, "best": true}          eval/accuracy
metrics.json, {"split": "test", "systems": {"finetuned": {…}}}       test/accuracy, test/per_class/好评/f1
the first rows of predictions.jsonl                                  texts under "Prediction"; images with a caption
                                                                     where rows have them and the tracker can
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from weitiao.config import RunConfig, TrackingSection
from weitiao.errors import ConfigError, DataError
from weitiao.images import allowed_path, image_names, measured_root
from weitiao.run_folder import RunFolder
from weitiao.tracking.process import TrackerProcess, finish_all
from weitiao.tracking.screen import Screen
from weitiao.tracking.shown import Shown, as_reference


def refuse_missing(section: TrackingSection) -> None:
    """ConfigError when a tracker's library is not installed, with the command that installs it."""
    for name in section.trackers:
        if not _installed(name):
            raise ConfigError(f"tracking.trackers: {name} is not installed; pip install {name}, or leave it out")
    if section.mode == "local" and "swanlab" in section.trackers and not _installed("swanboard"):
        raise ConfigError(
            "tracking.mode=local: SwanLab's dashboard is not installed; pip install 'swanlab[dashboard]', "
            "or set tracking.mode=offline"
        )


class Trackers:
    """One process for each tracker, finished at the end of a `with` block; nothing at all without trackers."""

    def __init__(self, run: RunFolder, config: RunConfig, screen: Screen) -> None:
        self._section, self._data, self._screen = config.tracking, config.data, screen
        start = {
            "name": config.run_name,
            "project": config.tracking.project,
            "mode": config.tracking.mode,
            "config": config.model_dump(mode="json"),
        }
        self._all = [
            TrackerProcess(
                name,
                command(name),
                {**start, "folder": str(run.tracking / name)},
                run.tracking / f"{name}.log",
                screen,
            )
            for name in dict.fromkeys(config.tracking.trackers)
        ]

    def line(self, line: Mapping[str, Any]) -> None:
        """A line of `log.jsonl`."""
        figures = curves(line)
        for tracker in self._all if figures else ():
            tracker.log(line["step"], figures, line["time"])

    def result(self, step: int, at: float, metrics: Mapping[str, Any], predictions: Path) -> None:
        """The fine-tuned system's figures, and its first predictions.

        metrics: content of `metrics.json`. predictions: `predictions.jsonl`.
        """
        if not self._all or not metrics["systems"]:
            return
        figures = dict(_numbers(metrics["systems"]["finetuned"], metrics["split"]))
        root = measured_root(self._data, metrics["split"])
        rows = list(islice(prediction_rows(predictions, root, self._data.columns), self._section.predictions))
        for tracker in self._all:
            tracker.log(step, figures, at)
            if rows:
                tracker.rows(step, "Prediction", rows)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        state, reason = "success", None
        if kind is not None:
            state = "aborted" if issubclass(kind, KeyboardInterrupt) else "crashed"
            reason = f"{kind.__name__}: {error}"
        finish_all(self._all, state, reason, self._section.timeout, self._screen)


def command(name: str) -> list[str]:
    """What runs a tracker's process. `-P`: a file of the working directory is never taken for a library."""
    return [sys.executable, "-P", "-m", "weitiao.tracking.child", name]


def curves(line: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a line of `log.jsonl` under the names that they have at trackers; see above."""
    own = {key: value for key, value in line.items() if key not in ("step", "time") and not isinstance(value, dict)}
    return dict([*_numbers(own, "train"), *_numbers(line.get("evaluation", {}), "eval")])


def prediction_rows(predictions: Path, root: str, columns: Mapping[str, str]) -> Iterator[Shown]:
    """Each row of `predictions.jsonl`. root: folder below which its images must lie. columns: `data.columns`."""
    with predictions.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            answer = as_reference(row["prediction"])
            told, wanted = _brief(answer), _brief(row.get("reference"))
            right = "reference" not in row or answer == row["reference"]
            own = {key: value for key, value in row.items() if key not in ("prediction", "reference")}
            yield Shown(
                json.dumps(row, ensure_ascii=False, indent=2),
                told if right else f"{told} (reference: {wanted})",
                _image(own, root, columns),
            )


def _image(fields: Mapping[str, Any], root: str, columns: Mapping[str, str]) -> str | None:
    """Absolute path of a row's first image; None where it has none, or it is no file below `root`."""
    names = image_names(fields, columns)
    try:
        return allowed_path(names[0], root) if names else None
    except DataError:
        return None


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbers(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """(path, number) of each finite number in nested mappings."""
    for key, value in values.items():
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, value


def _installed(library: str) -> bool:
    found = importlib.util.find_spec(library)
    return found is not None and found.origin is not None  # a mere folder of that name has no origin
