"""A row that a tracker shows: text, and its first image where that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from weitiao.errors import DataError
from weitiao.images import read_image

if TYPE_CHECKING:
    from PIL import Image

SIDE = 512
"""Pixels of an image's longer side, at most; larger ones are reduced before they are sent."""


class Shown(NamedTuple):
    content: str
    """Row of `predictions.jsonl`, indented."""
    caption: str
    """Its prediction, and the reference where that is another."""
    image: str | None = None
    """Absolute path of the row's first image."""


def as_reference(prediction: Any) -> Any:
    """A prediction's record as the reference has it: entities without their probabilities."""
    if not isinstance(prediction, list):
        return prediction
    return [_without_probability(item) if isinstance(item, dict) else item for item in prediction]


def _without_probability(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "probability"}


def opened(rows: Sequence[Shown]) -> tuple[list[tuple[Image.Image, Shown]], list[Shown]]:
    """Rows with their image, and those without one or whose image cannot be read."""
    images, texts = [], []
    for row in rows:
        try:
            if row.image is None:
                raise DataError("no image")
            image = read_image(row.image)
        except (DataError, MemoryError):
            texts.append(row)
            continue
        image.thumbnail((SIDE, SIDE))
        images.append((image, row))
    return images, texts
