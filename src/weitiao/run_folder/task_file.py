"""`task.json`: what an adapter must be used with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from weitiao.config import SCHEMA_VERSION, Section, validated
from weitiao.errors import CheckpointError

TASK_FILE = "task.json"


class BaseName(Section):
    name: str
    """As the config had it."""
    fingerprint: str
    """Of the weights."""
    cache_dir: str | None = None
    quantization: Literal["nf4"] | None = None
    """How its linear layers were stored while the adapter was trained."""


class ImageLimits(Section):
    """How images are resized: the same in training and in prediction."""

    size: tuple[int, int] | None = None
    """Height and width in pixels, for every image."""
    min_pixels: int
    max_pixels: int
    """Of an image that keeps its shape."""
    backend: Literal["pil"] = "pil"
    """What resizes them: others give other pixels."""


class Thresholds(Section):
    """From which probability on a label is given, where a row may have several (`prediction/thresholds.py`)."""

    shared: float = Field(0.5, gt=0, lt=1)
    """Of labels that have none of their own."""
    labels: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}

    def of(self, label: str) -> float:
        return self.labels.get(label, self.shared)


class TaskFile(Section):
    """`task.json`: what an adapter must be used with."""

    schema_version: int = SCHEMA_VERSION
    task: dict[str, Any]
    """Complete options of the task."""
    family: str
    template_hash: str
    tokenizer_hash: str
    stop_ids: list[int]
    base: BaseName
    max_length: int
    max_answer_tokens: int
    """Longest answer that prediction writes: twice the longest one in training."""
    images: ImageLimits | None = None
    """None: the model reads no images."""
    temperature: float = Field(1.0, gt=0)
    """Of the probabilities, fitted on the validation rows (`prediction/calibration.py`)."""
    thresholds: Thresholds = Thresholds()
    """Of several labels, fitted on the validation rows, too."""
    columns: dict[str, str]
    encoding: str


def read_task_file(folder: Path) -> TaskFile:
    try:
        values = json.loads((folder / TASK_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / TASK_FILE}: unreadable ({error})") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder / TASK_FILE}: schema_version {version!r}, but this Weitiao reads {SCHEMA_VERSION}; "
            "use the version that wrote it"
        )
    return validated(TaskFile, values, str(folder / TASK_FILE))
