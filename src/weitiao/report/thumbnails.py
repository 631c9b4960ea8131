"""The images of the rows that a report shows, small and inside the page.

An image that was moved, is broken or lies elsewhere is its name: a report needs the run folder alone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from weitiao.errors import DataError
from weitiao.images import allowed_path, read_image
from weitiao.tasks.base import Example

SIDE = 160
"""Pixels of the longer side, at most."""
QUALITY = 80
"""Of the JPEG; about 5 KiB for a photograph."""
MOST_IN_ROW = 4
MOST_BYTES = 4 * 2**20
"""Of all the images of a page, as base64; those that come later are names."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    name: str
    """The file's, without its folder."""
    data: str | None = None
    """JPEG in base64; None where there is no image to show."""
    width: int = 0
    height: int = 0
    """Pixels."""


class Thumbnails:
    """Those of one page, which share `MOST_BYTES`."""

    def __init__(self, root: str) -> None:
        """root: folder that the names of images are relative to, and below which they must lie."""
        self._root, self._left = root, MOST_BYTES

    def of(self, example: Example) -> tuple[Sequence[Thumbnail], int]:
        """The first images of a row, and how many more it has."""
        shown = [self._thumbnail(name) for name in example.images[:MOST_IN_ROW]]
        return shown, len(example.images) - len(shown)

    def _thumbnail(self, name: str) -> Thumbnail:
        short = PurePath(name).name or name
        if self._left <= 0:
            return Thumbnail(short)
        try:
            thumbnail = _reduced(short, allowed_path(name, self._root))
        except (DataError, MemoryError):
            return Thumbnail(short)
        size = len(thumbnail.data or "")
        if size > self._left:
            self._left = 0
            return Thumbnail(short)
        self._left -= size
        return thumbnail


def _reduced(name: str, path: str) -> Thumbnail:
    image = read_image(path)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return Thumbnail(name, base64.b64encode(file.getvalue()).decode("ascii"), *image.size)
