"""Rows with nearly the same text, within training and between splits: at least 0.8 of all shingles of two are shared.

Candidates meet by MinHash (`check/minhash.py`), and each is compared exactly. Of a text that many rows have, one is
looked at; equal texts are told by `checks/repeats.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import MOST_EXAMPLES, Finding, clipped, rows
from weitiao.check.meetings import Meetings
from weitiao.check.minhash import SHINGLES, jaccard
from weitiao.check.table import UNUSED, Table, digest
from weitiao.data.splits import NAMES

NEAR = 0.8
"""Jaccard index of shingles from which on texts are nearly the same."""
SHORTEST = 4
"""Times the length of a shingle that a text must have; one changed letter changes most of a shorter one."""


class Near(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.shingle = SHINGLES[setting.task.options.language or "en"]
        self.meetings = Meetings(self.shingle)
        self.texts = 0
        self._pairs: NDArray[np.int64] | None = None
        self._left_out = 0

    def look(self, batch: Batch) -> None:
        kept = [
            at
            for at, example in enumerate(batch.examples)
            if not example.images and len(batch.texts[at]) >= SHORTEST * self.shingle
        ]
        texts = [batch.texts[at].casefold() for at in kept]
        self.texts += len(kept)
        self.meetings.add([batch.start + at for at in kept], [digest(text) for text in texts], texts)

    def findings(self, table: Table) -> Iterator[Finding]:
        pairs = self._near(table)
        self.meetings.close()
        if not len(pairs):
            return
        split = table.split[pairs]
        yield from self._leaked(table, pairs, split)
        within = pairs[(split == NAMES.index("train")).all(axis=1)]
        if not len(within):
            return
        differ = table.answer[within[:, 0]] != table.answer[within[:, 1]]
        if self.setting.task.picks_one and differ.any():
            yield self._finding(
                table,
                within[differ],
                "near-conflicts",
                f"{{rows}} differ in their label from one with nearly the same text",
                "look at them: one of the labels is often wrong",
            )
        same = within[~differ]
        if len(same):
            yield self._finding(
                table,
                same,
                "near-duplicates",
                "{rows} have nearly the text of an earlier one, and its answer",
                "remove them, unless they are to weigh more",
            )

    def _near(self, table: Table) -> NDArray[np.int64]:
        """Pairs of rows in use, of each text the first."""
        used = np.flatnonzero(table.split != UNUSED)
        _, first = np.unique(table.key[used], return_index=True)
        met, self._left_out = self.meetings.pairs(used[np.sort(first)])
        kept = [self._jaccard(table, one, two) >= NEAR for one, two in met.tolist()]
        return met[np.array(kept, bool)] if len(met) else met

    def _jaccard(self, table: Table, one: int, two: int) -> float:
        first, second = (table.texts[at].casefold() for at in (one, two))
        if min(len(first), len(second)) < NEAR * max(len(first), len(second)) / 2:
            return 0.0
        return jaccard(first, second, self.shingle)

    def _leaked(self, table: Table, pairs: NDArray[np.int64], split: NDArray[np.uint8]) -> Iterator[Finding]:
        for keeps in ("test", "validation"):
            code = NAMES.index(keeps)
            crossing = pairs[(split == code).any(axis=1) & (split == NAMES.index("train")).any(axis=1)]
            if not len(crossing):
                continue
            held_first = np.where((table.split[crossing[:, 0]] == code)[:, None], crossing, crossing[:, ::-1])
            share = len(np.unique(held_first[:, 0])) / len(table.of(keeps))
            yield self._finding(
                table,
                held_first[:, ::-1],
                "near-leakage",
                f"{{rows}} ({share:.1%} of them) have nearly the text of a training row",
                "figures on them flatter: split by source, or remove them from the training file",
                kind=keeps,
            )

    def _finding(
        self, table: Table, pairs: NDArray[np.int64], name: str, what: str, do: str, kind: str = "training"
    ) -> Finding:
        """pairs: (the row beside, the row that is counted)."""
        _, first = np.unique(pairs[:, 1], return_index=True)
        few = len(first) <= len(table) / 100 and name == "near-duplicates"
        finding = Finding(name, "note" if few else "warning", what.format(rows=rows(len(first), kind)), do, len(first))
        for at in first[:MOST_EXAMPLES]:
            beside, row = pairs[at].tolist()
            finding.examples.append((f"{table.place(row)} ≈ {table.place(beside)}", clipped(table.texts[row])))
        return finding

    def facts(self, table: Table) -> dict[str, Any]:
        sample = None
        if self.meetings.sampled:
            sample = f"a share of {self.meetings.limit / 2**64:.3g} of all texts, by the hash of each"
        return {"near": {"threshold": NEAR, "texts": self.texts, "sample": sample, "pairs_left_out": self._left_out}}


CHECK = Near
