"""A file as columns, and what each of them holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from weitiao.types import Row

Kind = str
"""`text`, `number`, `yes/no`, `list`, `object`, `mixed`, or `empty`."""
NUMBER = re.compile(r"[-+]?[\d.,:/\s年月日时分秒%-]*\d[\d.,:/\s年月日时分秒%TZ+-]*(?:[eE][-+]?\d+)?")
"""Numbers, dates and times as text."""
CODE = re.compile(r"(?=.*\d)[!-~]+|[a-z]+://\S+")
"""Identifiers and addresses: no space, a digit in it."""
MOST = 0.9
"""Share of a column's cells that says what the column is; real files have a few that differ."""
SHOWN = 24
"""Characters of an example."""


@dataclass(frozen=True)
class Column:
    name: str
    values: Sequence[Any]
    """One a row; None where a row has no such field."""

    @cached_property
    def filled(self) -> list[Any]:
        return [value for value in self.values if not is_empty(value)]

    @cached_property
    def kind(self) -> Kind:
        if not self.filled:
            return "empty"
        for kind, types in KINDS.items():
            if share(isinstance(value, types) for value in self.filled) >= MOST:
                return "number" if kind == "text" and self._mostly(NUMBER) else kind
        return "mixed"

    @cached_property
    def distinct(self) -> int:
        return len(set(map(as_key, self.filled)))

    @cached_property
    def length(self) -> int:
        """Median of the characters of a cell that is text."""
        return int(median([len(value) for value in self.filled if isinstance(value, str)] or [0]))

    @property
    def is_prose(self) -> bool:
        """Whether its cells are texts that mostly differ, and no codes."""
        differ = self.distinct * 2 >= len(self.filled) or self.length >= 15
        return self.kind == "text" and differ and not self._mostly(CODE)

    def told(self) -> str:
        """The column in one line."""
        empty = len(self.values) - len(self.filled)
        if self.kind == "empty":
            return f"{self.name}: empty"
        kind = self.kind if self.distinct == 1 else PLURALS.get(self.kind, "values")
        parts = [f"{self.distinct:,} different {kind}"]
        parts += [f"median {self.length} characters"] * (self.kind == "text") + [f"{empty:,} empty"] * bool(empty)
        example = " ".join(str(self.filled[0]).split())
        return f"{self.name}: {', '.join(parts)}; such as {example[:SHOWN]}{'…' * (len(example) > SHOWN)}"

    def _mostly(self, pattern: re.Pattern[str]) -> bool:
        return share(bool(pattern.fullmatch(str(value).strip())) for value in self.filled) >= MOST


KINDS: dict[Kind, tuple[type, ...]] = {
    "text": (str,),
    "yes/no": (bool,),
    "number": (int, float),
    "list": (list, tuple),
    "object": (dict,),
}


PLURALS = {"text": "texts", "number": "numbers", "list": "lists", "object": "objects"}


def table(rows: Sequence[Row]) -> dict[str, Column]:
    """Name → column, in the order of the file."""
    names = dict.fromkeys(str(name) for row in rows for name in row.fields)
    return {name: Column(name, [row.fields.get(name) for row in rows]) for name in names}


def headless(columns: Mapping[str, Column]) -> str | None:
    """Name of a column that is one of its own few values, as where a table begins with its first row of data."""
    # Columns without names are numbered by pandas, and a label may be a number, too.
    named = (column for column in columns.values() if not column.name.isdigit())
    repeated = (column for column in named if column.distinct * 2 <= len(column.filled))
    return next((column.name for column in repeated if column.name in map(as_key, column.filled)), None)


def is_empty(value: Any) -> bool:
    """Whether a cell says nothing. An empty list does: a row without entities, say."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def as_key(value: Any) -> str:
    return value.strip() if isinstance(value, str) else repr(value)


def share(truths: Iterable[bool]) -> float:
    found = list(truths)
    return sum(found) / len(found) if found else 0.0
