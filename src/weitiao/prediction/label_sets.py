"""Several labels: how likely each of them is among a row's.

They are written one a line in the set's order, so each set is written in one way, and its beginnings are a tree:

    ─┬─ 0.6 屏幕 ─┬─ 0.7 音质 ─ …             屏幕   0.6
     │            └─ 0.3 (end)               音质   0.6 · 0.7 + 0.3
     ├─ 0.3 音质 ─ …
     └─ 0.1 (end)

A label's probability is that of all sets with it together. For that the likeliest way is walked to its end, and then
beginnings that were passed by, the likeliest first, until those left have less than `REST` together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from weitiao.types import Choice

REST = 0.1
"""Probability of what is not looked at. It counts for no further label, so a label's probability is at most so much
too low, unless `MOST` ends the walk."""
MOST = 4
"""Beginnings that are looked at, each by a pass over the prompt; more only where the likeliest way is longer. A model
that was unsure of everything found no better labels by 16 (docs/decisions/0016)."""


class LabelSets:
    """`taken` is the beginning to look at next: its labels, in the set's order."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.taken: tuple[str, ...] = ()
        self.done = False
        self.looks = 0
        self.chances = dict.fromkeys(choice.labels, 0.0)
        """Probability of each label, from what was looked at so far."""
        self._mass = 1.0
        self._first_way = True
        self._passed_by: list[tuple[float, tuple[str, ...]]] = []

    @property
    def text(self) -> str:
        return "\n".join(self.taken)

    @property
    def left(self) -> tuple[str, ...]:
        """Labels that may follow those taken."""
        after = self.choice.labels.index(self.taken[-1]) + 1 if self.taken else 0
        return self.choice.labels[after:]

    def look(self, shares: NDArray[np.float64]) -> None:
        """shares: probability of ending behind `taken`, then of each label of `left`; they sum to 1. [1 + left]"""
        self.looks += 1
        labels, best = self.left, int(shares.argmax())
        ways = [
            (self._mass * share, (*self.taken, label)) for label, share in zip(labels, shares[1:].tolist(), strict=True)
        ]
        for mass, (*_, label) in ways:
            self.chances[label] = min(self.chances[label] + mass, 1.0)
        # Behind the set's last label, which comes last here, too, nothing is open.
        self._passed_by += ways[:-1]
        self._first_way = self._first_way and 0 < best < len(labels)
        if self._first_way:
            self._go(ways[best - 1])
        elif self.looks < MOST and sum(mass for mass, _ in self._passed_by) > REST:
            self._go(max(self._passed_by))
        else:
            self.done = True

    def _go(self, way: tuple[float, tuple[str, ...]]) -> None:
        self._passed_by.remove(way)
        self._mass, self.taken = way
