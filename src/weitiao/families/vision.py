"""How a vision tower sees an image: resized, cut into square patches, of which a small square makes one token.

280 × 280 pixels  →  20 × 20 patches of 14 × 14  →  10 × 10 tokens of 2 × 2 patches
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from weitiao.config import DataSection
from weitiao.errors import ConfigError, DataError, ModelError
from weitiao.run_folder import ImageLimits

STRETCHED = 200
"""Longest side over shortest side from which on Qwen2-VL refuses an image."""


@dataclass(frozen=True)
class Vision:
    patch: int
    """Pixels of a patch's side."""
    merge: int
    """Patches of a token's side."""
    min_pixels: int
    max_pixels: int
    """What the model's own preprocessing allows an image."""

    @property
    def unit(self) -> int:
        """Pixels of a token's side."""
        return self.patch * self.merge

    def limits(self, data: DataSection) -> ImageLimits:
        """What a config says of images, and the model where it says nothing."""
        low, high = data.min_pixels or self.min_pixels, data.max_pixels or self.max_pixels
        if data.min_pixels is None:
            low = min(low, high)
        elif data.max_pixels is None:
            high = max(low, high)
        if low > high:
            raise ConfigError(f"keys `data.min_pixels` = {low} and `data.max_pixels` = {high}: no image fits")
        size = data.image_size and self.size(*data.image_size, low=1, high=1 << 40)
        return ImageLimits(size=size, min_pixels=low, max_pixels=high)

    def fitted(self, height: int, width: int, limits: ImageLimits, most: int | None = None) -> tuple[int, int]:
        """Height and width that an image is resized to. most: pixels, when fewer than the limits allow."""
        if limits.size is not None:
            return limits.size
        high = limits.max_pixels if most is None else min(most, limits.max_pixels)
        return self.size(height, width, min(limits.min_pixels, high), high)

    def size(self, height: int, width: int, low: int, high: int) -> tuple[int, int]:
        """Multiples of the unit near an image's own size, of `low` to `high` pixels, of about its shape.

        As Qwen2-VL's image processor computes it (`smart_resize`). DataError for one that is far too long.
        """
        if max(height, width) > STRETCHED * min(height, width):
            raise DataError(f"{width} × {height} pixels: one side is over {STRETCHED} times the other; cut it")
        unit = self.unit
        tall, wide = round(height / unit) * unit, round(width / unit) * unit
        if tall * wide > high:
            shrink = math.sqrt(height * width / high)
            tall = max(unit, math.floor(height / shrink / unit) * unit)
            wide = max(unit, math.floor(width / shrink / unit) * unit)
        elif tall * wide < low:
            grow = math.sqrt(low / (height * width))
            tall, wide = math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit
        return tall, wide

    def tokens(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image of that size."""
        return height // self.unit, width // self.unit


def qwen2_vision(folder: Path) -> Vision:
    """From `preprocessor_config.json`, in the layout of the publisher or of a later transformers."""
    path = folder / "preprocessor_config.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        size = found.get("size") or {}
        return Vision(
            patch=int(found.get("patch_size", 14)),
            merge=int(found.get("merge_size", 2)),
            min_pixels=int(found.get("min_pixels") or size.get("shortest_edge") or size["min_pixels"]),
            max_pixels=int(found.get("max_pixels") or size.get("longest_edge") or size["max_pixels"]),
        )
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: no preprocessor_config.json, which says how images are read; fetch the model again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: does not say how images are read ({error}); fetch the model again") from None
