"""Images of rows. One that is missing or broken is refused (`bad-image`); here: very small, very large, there twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import Finding
from weitiao.check.table import Table
from weitiao.errors import DataError
from weitiao.images import image_facts

SMALL = 28
"""Pixels of a side below which an image is less than one token of Qwen2-VL."""
LARGE = 8_000_000
"""Pixels of an image that takes long to read, and is reduced in any case."""
SAID = {
    "small-image": (f"with a side below {SMALL} pixels", "look at them: thumbnails and icons show little"),
    "large-image": (
        f"with more than {LARGE:,} pixels",
        "reduce the files once: they are reduced each time they are read",
    ),
    "repeated-image": ("that are another one under another name", "name one file, so that it is read once"),
    "image-leakage": (
        "in held-out rows that are in training rows, too",
        "figures flatter where an image is known: split by image, unless its questions differ",
    ),
}


class Pictures(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._first: dict[str, tuple[str, str]] = {}
        self._known: set[str] = set()
        self._trained: set[str] = set()
        self._held: dict[str, str] = {}
        self._found = {name: Finding(name, "note", do=do) for name, (_, do) in SAID.items()}

    def look(self, batch: Batch) -> None:
        for example, split in zip(batch.examples, batch.splits, strict=True):
            for path in example.images:
                try:
                    facts = image_facts(path)
                except DataError:  # told by the tokens
                    continue
                if split == "train":
                    self._trained.add(facts.digest)
                else:
                    self._held.setdefault(facts.digest, example.row.place)
                if path not in self._known:
                    self._known.add(path)
                    self._look(path, facts.digest, facts.height, facts.width, example.row.place)

    def _look(self, path: str, digest: str, height: int, width: int, place: str) -> None:
        size = f"{Path(path).name}: {width} × {height}"
        if min(height, width) < SMALL:
            self._found["small-image"].add(place, size)
        if height * width > LARGE:
            self._found["large-image"].add(place, size)
        first, where = self._first.setdefault(digest, (path, place))
        if first != path:
            self._found["repeated-image"].add(f"{place} = {where}", Path(path).name)

    def findings(self, table: Table) -> Iterator[Finding]:
        for digest, place in self._held.items():
            if digest in self._trained:
                self._found["image-leakage"].add(place, Path(self._first[digest][0]).name)
        for name in ("small-image", "image-leakage"):
            self._found[name].level = "warning"
        for name, finding in self._found.items():
            if finding.count:
                whole = len(self._held if name == "image-leakage" else self._known)
                finding.what = f"{finding.count:,} of {whole:,} images {SAID[name][0]}"
                yield finding


CHECK = Pictures
