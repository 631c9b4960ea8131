"""File formats that rows are read from. To add one, write `formats/<name>.py` with

    EXTENSIONS = (".ext",)                         lower case, with the dot; no other format may have it
    def read(path: Path, encoding: str):           yields (line, fields), one per record, in file order

The file's name is the registry; nothing else changes. `line` is where a user finds the record: the 1-based line on
which it starts in a text file, the row of a sheet, else the 1-based number of the record. What is wrong with the file
is a `DataError` of one line that starts with `path:line`. Text formats read through `text_file`, which decodes
strictly and streams; heavy libraries are imported inside `read`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast


class Format(Protocol):
    """What each module of this package with `EXTENSIONS` answers."""

    EXTENSIONS: tuple[str, ...]

    def read(self, path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]: ...


@cache
def formats() -> dict[str, Format]:
    """Extension → the format that reads it, for every format in this package."""
    found: dict[str, Format] = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for extension in getattr(loaded, "EXTENSIONS", ()):
            found[extension] = cast(Format, loaded)
    return found
