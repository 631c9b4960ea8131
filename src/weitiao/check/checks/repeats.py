"""Rows with the same text: twice with one answer, with different answers, and in two splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from weitiao.check.base import Check
from weitiao.check.finding import Finding, clipped, rows
from weitiao.check.table import Positions, Table
from weitiao.data.splits import NAMES

FEW = 0.01
"""Share of the rows below which repeats are no more than a note."""


class Repeats(Check):
    def findings(self, table: Table) -> Iterator[Finding]:
        if table.left_out:
            yield _leakage(table)
        within = [_Within(table, split) for split in reversed(NAMES) if len(table.of(split))]
        free = not self.setting.task.has_labels
        yield from _conflicts(table, [one for one in within if len(one.conflicts)], free)
        yield from _duplicates(table, [one for one in within if len(one.repeats)])


def _leakage(table: Table) -> Finding:
    """Rows of one split whose text another has. Training leaves them out; other programs would not."""
    told = [
        f"{rows(len(lost), _kind(loses))} with a text of the {keeps} rows"
        for (keeps, loses), lost in table.left_out.items()
    ]
    pairs = [pair for (keeps, _), lost in table.left_out.items() for pair in _beside(table, keeps, lost)]
    what = f"{'; '.join(told)}: left out, so that no text is in two splits"
    finding = Finding("leakage", "warning", what, "remove them from one of the files", len(pairs))
    finding.name_first(pairs, lambda pair: (table.places(np.array(pair), "="), clipped(table.texts[pair[0]])))
    return finding


def _beside(table: Table, keeps: str, lost: Positions) -> list[tuple[int, int]]:
    """Each lost row with the first row that has its text."""
    held = np.flatnonzero(table.split_said == NAMES.index(keeps))
    keys, first = np.unique(table.key[held], return_index=True)
    return list(zip(lost.tolist(), held[first[np.searchsorted(keys, table.key[lost])]].tolist(), strict=True))


class _Within:
    """What repeats within a split."""

    def __init__(self, table: Table, split: str) -> None:
        rows_of = table.of(split)
        order = rows_of[np.argsort(table.key[rows_of], kind="stable")]
        new = np.r_[True, np.diff(table.key[order]) != 0]
        group = np.cumsum(new) - 1
        firsts = order[new][group]
        differ = table.answer[order] != table.answer[firsts]
        conflicting = np.isin(group, group[differ])
        self.split, self.rows = split, len(order)
        self.repeats = np.sort(order[~new & ~conflicting])
        """Rows with the text and answer of an earlier one."""
        self.involved = int(conflicting.sum())
        """Rows of texts with different answers."""
        _, one_each = np.unique(group[differ], return_index=True)
        self.conflicts = np.stack([firsts, order], axis=1)[differ][one_each]
        """The first row of such a text, and the first that differs from it."""


def _duplicates(table: Table, within: list[_Within]) -> Iterator[Finding]:
    if not within:
        return
    told = [f"{len(one.repeats):,} of {rows(one.rows, _kind(one.split))}" for one in within]
    repeats = np.concatenate([one.repeats for one in within])
    often = any(len(one.repeats) >= FEW * one.rows for one in within)
    what = f"{', '.join(told)} with the text and the answer of an earlier one"
    do = "remove them, unless they are to weigh more; in a test each counts twice"
    finding = Finding("duplicates", "warning" if often else "note", what, do, len(repeats))
    finding.name_first(repeats, lambda at: (table.place(at), clipped(table.texts[at])))
    yield finding


def _conflicts(table: Table, within: list[_Within], free: bool) -> Iterator[Finding]:
    """free: whether answers are free texts, of which several may be right."""
    if not within:
        return
    told = [f"{rows(one.involved, _kind(one.split))}" for one in within]
    pairs = np.concatenate([one.conflicts for one in within])
    pairs = pairs if len(within) > 1 else pairs[np.argsort(pairs[:, 0])]
    what = f"{', '.join(told)} with another answer than a row of the same text"
    do = "no model can get all of them right: decide for one answer, or allow several (task.multi_label)"
    if free:
        do = "nothing, where a question has several good answers"
    finding = Finding("conflicts", "note" if free else "warning", what, do, sum(one.involved for one in within))
    finding.name_first(pairs, lambda pair: (table.places(pair, "≠"), clipped(table.texts[int(pair[0])])))
    yield finding


def _kind(split: str) -> str:
    return "training" if split == "train" else split


CHECK = Repeats
