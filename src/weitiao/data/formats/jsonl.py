"""JSON Lines: one object a line. Blank lines are skipped.

{"text": "续航两天，很满意", "label": "好评"}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from weitiao.data.formats.text_file import lines
from weitiao.errors import DataError

EXTENSIONS = (".jsonl", ".ndjson")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(path, encoding):
        if not line.isspace():
            yield number, record(line.rstrip(), f"{path}:{number}")


def record(line: str, place: str) -> dict[str, Any]:
    """The object that a line is; DataError, which starts with `place`, when it is none."""
    hint = "; a file that is one array needs the extension .json" if line.lstrip().startswith("[") else ""
    try:
        value = DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        position = error.pos if isinstance(error, JSONDecodeError) else 0
        raise DataError(f"{place}: {explain(error, line, position, position + 1)}{hint}") from None
    return as_fields(value, line, place, hint)


def as_fields(value: Any, source: str, place: str, hint: str = "") -> dict[str, Any]:
    """`value`, which was read from `source`, if it is an object whose strings are whole; else DataError."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: wanted a JSON object, found {type(value).__name__} {value!r:.40}{hint}")
    # Half of a pair reads as a string that no tokenizer takes.
    if SURROGATE.search(source) and not _encodable(value):
        raise DataError(f"{place}: a string holds half of a surrogate pair (\\ud800 to \\udfff); write the character")
    return value


def explain(error: Exception, source: str, position: int, column: int) -> str:
    """What is wrong with JSON, as one clause: the parser's words, the column and the text around it."""
    if isinstance(error, RecursionError):
        return "JSON is nested too deeply; wanted an object of plain fields"
    if not isinstance(error, JSONDecodeError):
        return f"JSON cannot be used: {error}"
    near = source[max(position - 10, 0) : position + 20].strip()
    return f"broken JSON at column {column}, near {near!r} ({error.msg}); correct or remove it"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is there twice; keep one")
    return found


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


DECODER = json.JSONDecoder(object_pairs_hook=_object)
