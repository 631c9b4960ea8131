"""Rows with the same text: twice with one answer, with different answers, and in two splits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from weitiao.check.base import Check
from weitiao.check.finding import MOST_EXAMPLES, Finding, clipped, rows
from weitiao.check.table import Positions, Table


class Repeats(Check):
    def findings(self, table: Table) -> Iterator[Finding]:
        yield from _leakage(table)
        for split in ("train", "test"):
            yield from _within(table, split)


def _leakage(table: Table) -> Iterator[Finding]:
    """Rows of one split whose text another has. They are left out in training; the files are told of all the same."""
    for (keeps, loses), lost in table.left_out.items():
        loser, keeper = ("training" if loses == "train" else loses), keeps
        what = f"{rows(len(lost), loser)} have a text that the {keeper} rows have, too, and are left out"
        finding = Finding("leakage", "warning", what, "remove them from one of the files", len(lost))
        kept = dict(zip(table.key[table.of(keeps)].tolist(), table.of(keeps).tolist(), strict=True))
        for at in lost[:MOST_EXAMPLES].tolist():
            other = kept.get(int(table.key[at]))
            beside = "" if other is None else f" = {table.place(other)}"
            finding.examples.append((f"{table.place(at)}{beside}", clipped(table.texts[at])))
        yield finding


def _within(table: Table, split: str) -> Iterator[Finding]:
    train = table.of(split)
    if not len(train):
        return
    order = train[np.argsort(table.key[train], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(table.key[order]) != 0])
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(order)]))
    different = table.answer[order] != table.answer[order[starts]][group]
    in_conflict = np.zeros(len(starts), bool)
    in_conflict[group[different]] = True
    kind = "training" if split == "train" else split
    if in_conflict.any():
        yield _conflicts(table, [part for part in np.split(order, starts[1:]) if len(part) > 1], kind)
    repeats = np.setdiff1d(np.arange(len(order)), starts)
    repeats = np.sort(order[repeats[~in_conflict[group[repeats]]]])
    if len(repeats):
        level = "warning" if len(repeats) > len(order) / 100 else "note"
        yield Finding(
            "duplicates",
            level,
            f"{rows(len(repeats), kind)} of {len(train):,} repeat the text and answer of an earlier one",
            "remove them, unless they are to weigh more" if split == "train" else "remove them: they count twice",
            len(repeats),
            [(table.place(at), clipped(table.texts[at])) for at in repeats[:MOST_EXAMPLES].tolist()],
        )


def _conflicts(table: Table, groups: list[Positions], kind: str) -> Finding:
    groups = [group for group in groups if len(set(table.answer[group].tolist())) > 1]
    groups.sort(key=lambda group: int(group[0]))
    do = "no model can get both right: decide for one answer, or allow several (task.multi_label)"
    finding = Finding("conflicts", "warning", do=do, count=sum(map(len, groups)))
    texts = f"{len(groups):,} text{'' if len(groups) == 1 else 's'}"
    finding.what = f"{texts} ({rows(finding.count, kind)}) have different answers"
    for group in groups[:MOST_EXAMPLES]:
        first = int(group[0])
        other = int(group[table.answer[group] != table.answer[first]][0])
        told = [
            f"{table.place(at)} [{', '.join(table.names[table.stratum[at]])}]".replace(" []", "")
            for at in (first, other)
        ]
        finding.examples.append((" ≠ ".join(told), clipped(table.texts[first])))
    return finding


CHECK = Repeats
