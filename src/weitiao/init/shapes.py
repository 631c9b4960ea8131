"""Columns that their cells tell at once: conversations, entities, images, and which split a row belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weitiao.data.splits import SPELLINGS
from weitiao.errors import DataError
from weitiao.images import EXTENSIONS, allowed_path
from weitiao.init.found import Found, Table
from weitiao.init.table import MOST, Column, share
from weitiao.tasks.ner import KEYS

LOOKED_AT = 200
"""Cells whose images are looked for on the disk."""
MESSAGES = (("role", "content"), ("from", "value"))


def is_conversation(column: Column) -> bool:
    return column.kind == "list" and share(bool(v) and all(map(_is_message, v)) for v in column.filled) >= MOST


def is_entities(column: Column) -> bool:
    """Whether its cells are lists of entities that the task `ner` reads; some may be empty."""
    lists = [value for value in column.filled if isinstance(value, list) and value]
    return column.kind == "list" and bool(lists) and share(all(map(_is_entity, v)) for v in lists) >= MOST


def other_entities(column: Column) -> str | None:
    """What a column looks like that seems to hold entities in a shape that the task does not read."""
    first = next((value for value in column.filled if value), None)
    if isinstance(first, str) and first.lstrip().startswith(("[{", "[[")):
        return "text that holds JSON"
    item = first[0] if isinstance(first, list) else None
    if isinstance(item, list) and len(item) == 3 and isinstance(item[2], str):
        return "lists such as [start, end, type]"
    if isinstance(item, str) and any(str(tag).startswith("B-") for value in column.filled for tag in value):
        return "a tag for each token (BIO)"
    if isinstance(item, Mapping) and not _is_entity(item) and not _is_message(item):
        return f"objects with {', '.join(map(str, item))}"
    return None


def is_split(column: Column) -> bool:
    values = {value.strip().lower() if isinstance(value, str) else "" for value in column.values}
    return "train" in values and len(values) > 1 and values <= SPELLINGS.keys()


def image_column(table: Table, found: Found, root: str) -> Column | None:
    """The column whose cells are paths of images below `root`; said in `found`, also where none of them is there."""
    for column in table.values():
        paths = [path for value in column.filled[:LOOKED_AT] for path in _paths(value)]
        if column.kind not in ("text", "list") or share(path.lower().endswith(EXTENSIONS) for path in paths) < MOST:
            continue
        there = sum(_is_there(path, root) for path in paths)
        if there:
            found.take("image", column, f"{there} of the first {len(paths)} image files are there")
            return column
        found.reasons.append(
            f"column {column.name!r} left out: it names images, but none is in {root} (name their folder with --images)"
        )
    return None


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and any({role, said} <= item.keys() for role, said in MESSAGES)


def _is_entity(item: Any) -> bool:
    return (
        isinstance(item, Mapping)
        and any(k in item for k in KEYS["type"])
        and any(key in item for key in (*KEYS["start"], *KEYS["text"]))
    )


def _paths(value: Any) -> list[str]:
    parts = value.split(";") if isinstance(value, str) else value if isinstance(value, list) else []
    return [part.strip() for part in parts if isinstance(part, str)]


def _is_there(path: str, root: str) -> bool:
    try:
        return bool(allowed_path(path, root))
    except DataError:
        return False
