"""TensorBoard, W&B, MLflow and Trackio: accelerate's tracker classes, each with what it needs said beside them.

To add one that accelerate has: a class below with `_open` and `rows`; its name in `OTHERS`, in
`TrackingSection.trackers` and among the extras of pyproject.toml.

Files lie in the run folder unless the library's own variable names another place: WANDB_DIR, MLFLOW_TRACKING_URI,
TRACKIO_DIR.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weitiao.shell import typed
from weitiao.tracking.shown import Shown, opened


class Other(ABC):
    """One of accelerate's trackers; see `child.Tracker`."""

    notes: Sequence[str] = ()

    def __init__(self, start: Mapping[str, Any]) -> None:
        from accelerate import PartialState

        PartialState(cpu=True)  # accelerate's classes want it; they compute nothing
        self._start = start
        self._folder = Path(start["folder"])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tracker = self._open()
        self._tracker.store_init_configuration(flat(start["config"]))

    @abstractmethod
    def _open(self) -> Any:
        """accelerate's tracker, started; sets `notes`."""

    def log(self, step: int, figures: Mapping[str, float], at: float) -> None:
        self._tracker.log(dict(figures), step=step)

    @abstractmethod
    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        """Rows of predictions as texts, and as images where that is written."""

    def finish(self, state: str, error: str | None) -> None:
        self._tracker.finish()


class TensorBoard(Other):
    def _open(self) -> Any:
        from accelerate.tracking import TensorBoardTracker

        # A run that goes on logs all its points again; purge_step hides those of the files before.
        tracker = TensorBoardTracker(self._start["name"], self._folder, purge_step=0)
        tracker.start()
        self.notes = [f"TensorBoard: look with: tensorboard --logdir {typed(self._folder)}"]
        return tracker

    def log(self, step: int, figures: Mapping[str, float], at: float) -> None:
        self._tracker.log(dict(figures), step=step, walltime=at)

    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        # One text of all rows: of many under one name and step, TensorBoard shows a sample of ten.
        shown = (
            f"**{row.caption}**\n\n" + "\n".join("    " + line for line in row.content.split("\n")) for row in rows
        )
        self._tracker.log({name: "\n\n---\n\n".join(shown)}, step=step)
        for number, (image, _) in enumerate(opened(rows)[0], 1):
            self._tracker.writer.add_image(f"{name}/{number:03}", np.asarray(image), step, dataformats="HWC")


class WandB(Other):
    def _open(self) -> Any:
        import wandb
        from accelerate.tracking import WandBTracker

        mode = {"auto": os.environ.get("WANDB_MODE"), "local": "offline"}.get(self._start["mode"], self._start["mode"])
        mode = mode or ("online" if wandb.api.api_key else "offline")
        folder = os.environ.get("WANDB_DIR", str(self._folder))
        tracker = WandBTracker(self._start["project"], name=self._start["name"], dir=folder, mode=mode)
        tracker.start()
        path = typed(os.path.relpath(Path(tracker.run.dir).parent))
        offline = f"offline; upload with: wandb sync {path}"
        self.notes = [f"W&B: {tracker.run.url if mode == 'online' else offline}"]
        return tracker

    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        self._tracker.log_table(
            name, columns=["prediction", "row"], data=[[r.caption, r.content] for r in rows], step=step
        )

    def finish(self, state: str, error: str | None) -> None:
        self._tracker.run.finish(exit_code=int(state != "success"))


class MLflow(Other):
    def _open(self) -> Any:
        import mlflow
        from accelerate.tracking import MLflowTracker

        place = os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None
        if not place:
            place = f"sqlite:///{self._folder}/mlflow.db"
            artifacts = (self._folder / "artifacts").absolute().as_uri()
            mlflow.set_tracking_uri(place)
        tracker = MLflowTracker(self._start["project"], logging_dir=artifacts, run_name=self._start["name"])
        tracker.start()
        local = f"look with: mlflow ui --backend-store-uri {typed(place)}"
        self.notes = [f"MLflow: {place if place.startswith('http') else local}"]
        return tracker

    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        import mlflow

        mlflow.log_text("".join(f"{row.caption}\n{row.content}\n\n" for row in rows), f"{name}.txt")

    def finish(self, state: str, error: str | None) -> None:
        import mlflow

        mlflow.end_run({"success": "FINISHED", "crashed": "FAILED", "aborted": "KILLED"}[state])


class Trackio(Other):
    def _open(self) -> Any:
        folder = os.environ.setdefault("TRACKIO_DIR", str(self._folder.absolute()))  # read at import
        from accelerate.tracking import TrackioTracker

        tracker = TrackioTracker(self._start["project"], name=self._start["name"], embed=False)
        tracker.start()
        show = f"trackio show --project {self._start['project']}"
        self.notes = [f"Trackio: look with: TRACKIO_DIR={typed(folder)} {show}"]
        return tracker

    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        import pandas
        import trackio

        table = pandas.DataFrame([{"prediction": row.caption, "row": row.content} for row in rows])
        self._tracker.log({name: trackio.Table(dataframe=table)}, step=step)


OTHERS: dict[str, Callable[[Mapping[str, Any]], Other]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | float]:
    """`{"lora": {"r": 8}, "x": [1]}` → `{"lora.r": 8, "x": "[1]"}`: what accelerate's trackers take."""
    values: dict[str, str | float] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, str | int | float)
            values[f"{prefix}{key}"] = value if plain else json.dumps(value, ensure_ascii=False)
    return values
