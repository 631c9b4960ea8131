"""What runs leave behind, read back: by a tracker's own reader, and out of `log.jsonl`.

wanted_curves(run)      {"train/loss": [(step, value), …], …}: what a tracker must hold of a run folder
wanted_texts(run)       contents and captions of its predictions
read_swanlab(folder)    a SwanLab run, by SwanLab's reader of its own files
break_at(step, …)       training fails there
captured()              a Screen and a function that gives the lines which it showed
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console

from runs import lines
from weitiao.tracking.screen import Screen
from weitiao.tracking.trackers import curves
from weitiao.training.loop import Loop

Curves = dict[str, list[tuple[int, float]]]


def captured() -> tuple[Screen, Callable[[], list[str]]]:
    out = io.StringIO()
    console = Console(file=out, width=1000, highlight=False, soft_wrap=True)
    return Screen(console), lambda: out.getvalue().splitlines()


def break_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training fails when it comes to this step."""
    computed = Loop.step

    def breaking(self: Loop, number: int) -> Any:
        if number == step:
            raise RuntimeError("no power")
        return computed(self, number)

    monkeypatch.setattr(Loop, "step", breaking)


def wanted_curves(run: Path) -> Curves:
    """Curves of `log.jsonl`, and the numbers of `metrics.json` at the last step."""
    found: Curves = {}
    log = lines(run / "log.jsonl")
    for line in log:
        for name, value in curves(line).items():
            found.setdefault(name, []).append((line["step"], value))
    if (run / "metrics.json").is_file():
        metrics = json.loads((run / "metrics.json").read_text("utf-8"))
        for name, value in _numbers(metrics["systems"]["finetuned"], metrics["split"]).items():
            found[name] = [(log[-1]["step"], value)]
    return found


def _numbers(values: Any, name: str) -> dict[str, float]:
    if isinstance(values, dict):
        inner = [_numbers(value, f"{name}/{key}") for key, value in values.items()]
        return {key: value for found in inner for key, value in found.items()}
    return {name: values} if isinstance(values, int | float) else {}


def wanted_texts(run: Path, count: int | None = None) -> list[tuple[dict[str, Any], str]]:
    """(row, caption) of the first rows of `predictions.jsonl`."""
    rows = lines(run / "predictions.jsonl")[:count]
    return [
        (
            row,
            row["prediction"]
            if row["prediction"] == row["reference"]
            else f"{row['prediction']} (reference: {row['reference']})",
        )
        for row in rows
    ]


@dataclass
class SwanLabRun:
    curves: Curves = field(default_factory=dict)
    texts: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    images: list[tuple[Image.Image, str]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    project: str = ""
    state: str | None = None
    error: str = ""


def read_swanlab(folder: Path) -> SwanLabRun:
    """folder: a `run-*` folder, or what holds the only one. SwanLab's own metrics (`__swanlab__…`) are left out."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.proto.swanlab.run.v1.run_pb2 import RunState
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    (folder,) = [folder] if folder.name.startswith("run-") else folder.glob("run-*")
    (file,) = folder.glob("*.swanlab")
    reader, run = DataStoreReader(), SwanLabRun()
    reader.open(file)
    for raw in reader:
        record = Record()
        record.ParseFromString(raw)
        if record.HasField("start"):
            run.name, run.project = record.start.name, record.start.project
        elif record.HasField("scalar") and not record.scalar.key.startswith("__swanlab__"):
            run.curves.setdefault(record.scalar.key, []).append((record.scalar.step, record.scalar.value.number))
        elif record.HasField("media") and record.media.key.startswith("Prediction"):
            for item in record.media.value.items:
                file = folder / "media" / "image" / item.filename
                if file.is_file():
                    run.images.append((Image.open(file), item.caption))
                    continue
                text = (folder / "media" / "text" / item.filename).read_text("utf-8")
                run.texts.append((json.loads(text), item.caption))
        elif record.HasField("finish"):
            run.state = RunState.Name(record.finish.state).removeprefix("RUN_STATE_").lower()
            run.error = record.finish.error
    reader.close()
    entries = yaml.safe_load((folder / "files" / "config.yaml").read_text("utf-8"))
    run.config = {key: entry["value"] for key, entry in entries.items()}
    return run
