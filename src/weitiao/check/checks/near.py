"""Rows with nearly the same text, within training and between splits: at least 0.8 of all shingles of two are shared.

Candidates meet by MinHash (`check/minhash.py`), and each is compared exactly. Of a text that many rows have, one is
looked at; equal texts are told by `checks/repeats.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import Finding, clipped, percent, rows
from weitiao.check.meetings import Meetings
from weitiao.check.minhash import SHINGLES, jaccard, shingles
from weitiao.check.table import UNUSED, Table, Texts, digest
from weitiao.data.splits import NAMES

NEAR = 0.8
"""Jaccard index of shingles from which on texts are nearly the same."""
SHORTEST = 8
"""Times the length of a shingle that a text must have; in a shorter one the word that differs may be all there is."""
COMMON = 5
"""Rows from which on a line that they share says nothing of any of them."""
MOST_LINES = 200_000
"""Different lines that are counted."""
FEW = 0.005
"""Share of the rows below which it is no more than a note."""
Pairs = NDArray[np.int64]
"""[pairs, 2]: the row that is told of, the row beside it."""


class Near(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.shingle = SHINGLES[setting.task.options.language or "en"]
        self.meetings = Meetings(self.shingle)
        self._pairs_left_out = 0
        self._lines: Counter[int] = Counter()
        self._shingles: Callable[[Texts, int], frozenset[str]] = lru_cache(1024)(self._shingles_of)

    def look(self, batch: Batch) -> None:
        if not self.setting.task.has_labels:
            for text in batch.texts:
                self._count(text)
        texts = [self._own(text) for text in batch.texts]
        kept = [at for at, example in enumerate(batch.examples) if texts[at] and not example.images]
        texts = [texts[at] for at in kept]
        self.meetings.add([batch.start + at for at in kept], [digest(text) for text in texts], texts)

    def _count(self, text: str) -> None:
        for line in map(hash, text.split("\n")):
            if line in self._lines or len(self._lines) < MOST_LINES:
                self._lines[line] += 1

    def _own(self, text: str) -> str:
        """What is compared: a text without lines that many have, such as an instruction; of a short one nothing."""
        if self._lines:
            text = "\n".join(line for line in text.split("\n") if self._lines[hash(line)] < COMMON)
        return text.casefold() if len(text) >= SHORTEST * self.shingle else ""

    def findings(self, table: Table) -> Iterator[Finding]:
        pairs = self._near(table)
        yield from _leaked(table, pairs)
        later = pairs[(table.split[pairs] == NAMES.index("train")).all(axis=1)][:, ::-1]
        # Offsets and free texts differ with every letter, so that only labels can be compared.
        labels = self.setting.task.lists_labels
        differ = (table.answer[later[:, 0]] != table.answer[later[:, 1]]) & labels
        if differ.any():
            what = "{rows} with another label than an earlier one of nearly the same text"
            do = "look at them: often one of the two labels is wrong"
            yield _finding(table, "near-conflicts", later[differ], "warning", what, do)
        same = later[~differ]
        if len(same):
            often = len(np.unique(same[:, 0])) >= FEW * len(table.of("train"))
            what = "{rows} with nearly the text of an earlier one" + (", and its label" if labels else "")
            do = "remove them, unless they are to weigh more"
            yield _finding(table, "near-duplicates", same, "warning" if often else "note", what, do)

    def _near(self, table: Table) -> Pairs:
        """Pairs of rows in use, of each text the first row, the earlier row first."""
        used = np.flatnonzero(table.split != UNUSED)
        _, first = np.unique(table.key[used], return_index=True)
        met, self._pairs_left_out = self.meetings.pairs(used[np.sort(first)])
        self.meetings.close()
        near = [self._jaccard(table, one, two) >= NEAR for one, two in met.tolist()]
        return met[np.array(near, bool)]

    def _jaccard(self, table: Table, one: int, two: int) -> float:
        return jaccard(self._shingles(table.texts, one), self._shingles(table.texts, two))

    def _shingles_of(self, texts: Texts, at: int) -> frozenset[str]:
        return shingles(self._own(texts[at]), self.shingle)

    def facts(self, table: Table) -> dict[str, Any]:
        share, left_out = self.meetings.share, self._pairs_left_out
        notes = [f"nearly equal texts were looked for in a sample: {share:.1%} of all texts, by the hash of each"]
        notes = notes if share < 1 else []
        if left_out:
            notes.append(f"{left_out:,} pairs of texts that may be nearly equal were not compared")
        return {"notes": notes}


def _leaked(table: Table, pairs: Pairs) -> Iterator[Finding]:
    """Held-out rows with a near text in training."""
    split = table.split[pairs]
    told, found, shares = [], [], []
    for keeps in ("test", "validation"):
        held = split == NAMES.index(keeps)
        crossing = held.any(axis=1) & (split == NAMES.index("train")).any(axis=1)
        some = np.where(held[crossing][:, :1], pairs[crossing], pairs[crossing][:, ::-1])
        count, whole = len(np.unique(some[:, 0])), len(table.of(keeps))
        if count:
            told.append(f"{rows(count, keeps)} ({percent(count, whole)})")
            found.append(some)
            shares.append(count / whole)
    if told:
        what = f"{' and '.join(told)} with nearly the text of a training row"
        do = "figures on them flatter: draw the splits by source or author, or remove them from training"
        level = "warning" if max(shares) >= FEW else "note"
        yield _finding(table, "near-leakage", np.concatenate(found), level, what, do)


def _finding(table: Table, name: str, pairs: Pairs, level: Any, what: str, do: str) -> Finding:
    _, first = np.unique(pairs[:, 0], return_index=True)
    finding = Finding(name, level, what.format(rows=rows(len(first), "training")), do, len(first))
    finding.name_first(
        pairs[np.sort(first)], lambda pair: (table.places(pair, "≈"), clipped(table.texts[int(pair[0])]))
    )
    return finding


CHECK = Near
