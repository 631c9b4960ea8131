"""Which rows a report shows, and which mistakes are made most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from weitiao.metrics.entities import Entity
from weitiao.metrics.intervals import Counts
from weitiao.report.marks import marks
from weitiao.report.run import Answered, Run

MOST_WRONG = 30
MOST_UNSURE = 10
MOST_CONFUSIONS = 12
MOST_WORST, MOST_BEST = 30, 10
"""Rows of free text."""
MOST_REFERENCES = 5
HEAD, TAIL = 320, 120
"""Code points of a long text that are shown; as in training, its head and tail say most."""


def surest_wrong(rows: Iterable[Answered]) -> list[Answered]:
    """Wrong answers, the surest first; those without a probability last, as they stand in the file."""
    return sorted((row for row in rows if not row.right), key=sure, reverse=True)[:MOST_WRONG]


def sure(row: Answered) -> float:
    """To sort by: the probability, and less than any where there is none."""
    return -1.0 if row.probability is None else row.probability


def least_sure_right(rows: Iterable[Answered]) -> list[Answered]:
    found = [row for row in rows if row.right and row.probability is not None]
    return sorted(found, key=lambda row: row.probability or 0.0)[:MOST_UNSURE]


def by_value(run: Run) -> list[tuple[Answered, float | None]]:
    """Rows with the headline metric of each alone, the lowest first; as they stand in the file, and without, where the
    metric is no mean over rows."""
    counts, _ = run.task.counts([row.answer for row in run.rows], [row.example for row in run.rows])
    values = values_of_rows(counts)
    if values is None:
        return [(row, None) for row in run.rows]
    order = np.argsort(values, kind="stable").tolist()
    return [(run.rows[i], values[i]) for i in order]


def values_of_rows(counts: Counts) -> list[float] | None:
    """The metric of each row from its counts [rows, 2], a value and 1; None where there are others, as for BLEU."""
    return (counts[:, 0] / counts[:, 1].clip(1)).tolist() if counts.shape[1] == 2 else None


def references(row: Answered) -> tuple[list[str], int]:
    """The first references of a row that are not the same, and how many more it has."""
    told = list(dict.fromkeys(getattr(row.example, "references", ()) or (row.example.answer,)))
    return told[:MOST_REFERENCES], len(told[MOST_REFERENCES:])


def confusions(rows: Iterable[Answered]) -> list[tuple[str, str | None, int]]:
    """(reference, answer, rows) of wrong single labels, the most frequent first; None: no valid answer."""
    counted = Counter((row.example.answer, row.answer) for row in rows if not row.right)
    return [(wanted, told, count) for (wanted, told), count in counted.most_common(MOST_CONFUSIONS)]


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
