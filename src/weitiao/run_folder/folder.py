"""A run folder: the names inside it, and whose run it holds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weitiao.config import RunConfig, dump_yaml, load_config
from weitiao.errors import CheckpointError, ConfigError, shown
from weitiao.run_folder.task_file import TASK_FILE
from weitiao.run_folder.whole import damage, write_json, write_text

NO_RESULT: dict[str, Any] = {"tracking": True, "training": {"keep_checkpoints", "on_cpu", "check_first"}}
"""Of a config, what changes no result."""


class RunFolder:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.data = self.path / "data.json"
        self.log = self.path / "log.jsonl"
        self.adapter = self.path / "adapter"
        self.metrics = self.path / "metrics.json"
        self.predictions = self.path / "predictions.jsonl"
        self.report = self.path / "report.html"
        self.tracking = self.path / "tracking"

    @property
    def exists(self) -> bool:
        return self.config.is_file()

    @property
    def finished(self) -> bool:
        return self.metrics.is_file()

    def start(self, config: RunConfig, data: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.data, data)
        write_text(self.config, dump_yaml(config))

    def clear(self) -> None:
        """Remove what a run wrote here, and nothing else."""
        for path in (self.config, self.data, self.log, self.metrics, self.predictions, self.report):
            path.unlink(missing_ok=True)
        for folder in [self.adapter, self.tracking, *self._checkpoints()]:
            shutil.rmtree(folder, ignore_errors=True)

    def refuse_blocked(self) -> None:
        """ConfigError when something that is no folder, or may not be written into, stands where the run would be."""
        place = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            what = "may not be written into" if place.is_dir() else "is no folder"
            raise ConfigError(f"{place}: {what}, so no run can be in {self.path}; set run.output_dir or run.name")

    def read_config(self) -> RunConfig:
        if not self.exists:
            raise CheckpointError(
                f"{self.path}: no run here (no config.yaml); wanted a folder that `weitiao train` wrote"
            )
        return load_config(self.config)

    def read_metrics(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.metrics.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{self.metrics}: unreadable ({error}); remove it, and train goes on") from None

    def read_data(self) -> dict[str, Any]:
        try:
            facts = json.loads(self.data.read_text("utf-8"))
            if not isinstance(facts["files"], dict):
                raise ValueError("`files` is no mapping")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.data}: unreadable ({error}); train again with --overwrite") from None
        return dict(facts)

    def refuse_other(self, config: RunConfig, data: dict[str, Any]) -> None:
        """ConfigError with the difference when the folder belongs to another config or to other data.

        What changes no result makes no other run: `tracking`, how many checkpoints are kept, leave to use a CPU,
        whether rows are checked first.
        """
        before, after = map(_compared, (self.read_config(), config))
        changes = [*_differences(before, after), *_differences(self.read_data(), data)]
        if changes:
            shown = "; ".join(changes[:4]) + ("; …" if len(changes) > 4 else "")
            raise ConfigError(
                f"{self.path} holds a run with another config or data ({shown}); "
                "choose another folder with run.name=…, or replace the run with --overwrite"
            )

    def checkpoint(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"

    @property
    def bytes_of_adapters(self) -> int:
        """What the adapter and the checkpoints that are here take on the disk."""
        folders = [self.adapter, *self._checkpoints()]
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())

    def _checkpoints(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return [self.checkpoint(step) for step in self.steps_of_checkpoints]

    @property
    def steps_of_checkpoints(self) -> list[int]:
        names = (path.name.removeprefix("checkpoint-") for path in self.path.glob("checkpoint-*"))
        return sorted(int(name) for name in names if name.isdigit())

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are all there and whole."""
        return next((path for path in reversed(self._checkpoints()) if damage(path) is None), None)

    def keep_checkpoints(self, best_step: int | None, last: int) -> None:
        """Remove all but the last ones and the best."""
        best = self.checkpoint(best_step) if best_step is not None else None
        for path in self._checkpoints()[:-last]:
            if path != best:
                shutil.rmtree(path, ignore_errors=True)


def _compared(config: RunConfig) -> dict[str, Any]:
    values = config.model_dump(mode="json", exclude=NO_RESULT)
    # Version 0.1 wrote the second where nothing was set; every file that it could read so is found to be UTF-8.
    if values["data"]["encoding"] == "auto":
        values["data"]["encoding"] = "utf-8"
    return values


def find_adapter(path: str | Path) -> Path:
    """The adapter folder that a user means: a run folder's `adapter/`, or an adapter or checkpoint folder itself."""
    path = Path(path)
    for folder in (path / "adapter", path):
        if (folder / TASK_FILE).is_file():
            return folder
    if not path.exists():
        raise CheckpointError(f"no run folder {str(path)!r}; train one with `weitiao train`, or check the path")
    if RunFolder(path).exists:
        raise CheckpointError(f"{path}: the run has no adapter yet; run the same `weitiao train` command to finish it")
    raise CheckpointError(f"{path}: not a run, adapter or checkpoint folder (no task.json)")


def _differences(before: Any, after: Any, key: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(n for n in after if n not in before)]:
            yield from _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield f"{key}: {shown(before, 40)} → {shown(after, 40)}"
