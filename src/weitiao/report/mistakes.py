"""Which rows a report shows, and which mistakes are made most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from weitiao.metrics.entities import Entity
from weitiao.report.marks import marks
from weitiao.report.run import Answered

MOST_WRONG = 30
MOST_UNSURE = 10
MOST_CONFUSIONS = 12
HEAD, TAIL = 320, 120
"""Code points of a long text that are shown; as in training, its head and tail say most."""


def surest_wrong(rows: Iterable[Answered], most: int = MOST_WRONG) -> list[Answered]:
    """Wrong answers, the surest first; those without a probability last, as they stand in the file."""
    return sorted((row for row in rows if not row.right), key=sure, reverse=True)[:most]


def sure(row: Answered) -> float:
    """To sort by: the probability, and less than any where there is none."""
    return -1.0 if row.probability is None else row.probability


def least_sure_right(rows: Iterable[Answered], most: int = MOST_UNSURE) -> list[Answered]:
    found = [row for row in rows if row.right and row.probability is not None]
    return sorted(found, key=lambda row: row.probability or 0.0)[:most]


def confusions(rows: Iterable[Answered], most: int = MOST_CONFUSIONS) -> list[tuple[str, str | None, int]]:
    """(reference, answer, rows) of wrong single labels, the most frequent first; None: no valid answer."""
    counted = Counter((row.example.answer, row.answer) for row in rows if not row.right)
    return [(wanted, told, count) for (wanted, told), count in counted.most_common(most)]


def entity_mistakes(rows: Iterable[Answered]) -> list[tuple[str, str, int]]:
    """(kind of `marks.Mark`, type or "wanted → answered", how often), the most frequent first. An entity of another
    extent counts once, by its reference."""
    counted: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for mark in marks(row.example.answer or (), row.answer or ()):
            if mark.kind == "type":
                counted[mark.kind, f"{mark.wanted} → {mark.answered}"] += 1
            elif mark.kind == "invented" or (mark.kind != "hit" and mark.wanted is not None):
                counted[mark.kind, str(mark.wanted or mark.answered)] += 1
    return [(kind, what, count) for (kind, what), count in counted.most_common(MOST_CONFUSIONS)]


def shortened(text: str, head: int = HEAD, tail: int = TAIL) -> tuple[str, int, str]:
    """(head, code points left out, tail) of a text; all of it is the head when that hides little."""
    gap = len(text) - head - tail
    return (text, 0, "") if gap < 20 else (text[:head], gap, text[-tail:])


def is_entities(answer: Any) -> bool:
    return isinstance(answer, Sequence) and all(isinstance(item, Entity) for item in answer)
