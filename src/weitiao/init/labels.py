"""Which columns hold labels: few short values that come again and again, one or several in a cell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from weitiao.init.table import Column, share
from weitiao.tasks.classification import MOST_CLASSES

LONGEST = 40
"""Characters of a label; longer ones are texts."""
REPEATS = {"asked": 1, "named": 2, "neither": 5}
"""What says that a column holds labels: the user, its name, neither → rows that a label must have on average."""
UNNAMED_MOST, UNNAMED_MOST_NUMBERS = 50, 20
"""Labels of a column whose name says nothing; a number has fewer, or it counts or measures something."""
SEPARATORS = (";", "；", "|", "｜", "、", ",", "，")
ALONE = 0.5
"""Share of the joined labels that also stand alone, from which on a sign joins labels and is no part of one."""


@dataclass(frozen=True)
class Labels:
    counts: Counter[str]
    many: bool = False
    """Whether a cell may hold several."""
    separator: str | None = None
    """What joins them, where they are one string."""

    def told(self) -> str:
        (_, most), (_, least) = self.counts.most_common(1)[0], self.counts.most_common()[-1]
        return f"{len(self.counts):,} values, the commonest {most:,} times, the rarest {least:,}"


def labels_in(column: Column, trust: str) -> Labels | str:
    """The labels of a column, or why it holds none. trust: one of `REPEATS`."""
    if column.kind not in ("text", "number", "list"):
        return f"its cells are {column.kind}; wanted words or whole numbers"
    labels = _lists(column) if column.kind == "list" else _strings(column)
    return labels if isinstance(labels, str) else _refused(labels, column, trust) or labels


def _lists(column: Column) -> Labels | str:
    items = [item for value in column.filled if isinstance(value, list | tuple) for item in value]
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in items):
        return "its lists hold other things than words or whole numbers"
    many = any(len(value) != 1 for value in column.filled)
    return Labels(Counter(str(item).strip() for item in items), many)


def _strings(column: Column) -> Labels | str:
    if any(not isinstance(value, str | int) or isinstance(value, bool) for value in column.filled):
        return "it holds numbers that are not whole, or other things than words; write labels as words"
    counts = Counter(str(value).strip() for value in column.filled)
    separator = next((mark for mark in SEPARATORS if _joins(mark, counts)), None)
    if separator is None:
        return Labels(counts)
    parts = Counter[str]()
    for value, count in counts.items():
        parts.update(dict.fromkeys(_parts(value, separator), count))
    return Labels(parts, many=True, separator=separator)


def _joins(mark: str, counts: Counter[str]) -> bool:
    """Whether `mark` joins labels, of which most stand alone elsewhere, or of which few make many combinations."""
    joined = [value for value in counts if mark in value]
    parts = {part for value in joined for part in _parts(value, mark)}
    if len(parts) < 2:
        return False
    everything = parts | {value for value in counts if mark not in value}
    return share(part in counts for part in parts) >= ALONE or len(everything) * 2 <= len(counts)


def _parts(value: str, mark: str) -> list[str]:
    return [part.strip() for part in value.split(mark) if part.strip()]


def _refused(labels: Labels, column: Column, trust: str) -> str | None:
    counts, rows = labels.counts, len(column.filled)
    longest = max(map(len, counts), default=0)
    if len(counts) < 2:
        return "it has a single value; wanted two or more to tell apart"
    if len(counts) >= rows or len(counts) > MOST_CLASSES:
        return f"{len(counts):,} values in {rows:,} rows; labels come again and again"
    if trust != "asked" and longest > LONGEST:
        return f"values of up to {longest} characters; labels are short"
    if len(counts) * REPEATS[trust] > rows:
        return f"{len(counts):,} values in {rows:,} rows; labels come more often, so that each can be learned"
    most = UNNAMED_MOST_NUMBERS if column.kind == "number" else UNNAMED_MOST
    if trust == "neither" and len(counts) > most:
        return f"{len(counts):,} values, and a name that does not say what they are"
    return None


def holds(options: Any, label: Any) -> bool:
    """Whether a row's own options are a list that has its label."""
    return isinstance(options, list | tuple) and str(label).strip() in [str(option).strip() for option in options]
