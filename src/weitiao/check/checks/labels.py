"""Labels of a classification, types of entities: spellings of one name, balance, and what training never sees."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from weitiao.check.base import Check
from weitiao.check.finding import Finding, percent, rows
from weitiao.check.table import Table
from weitiao.data.splits import NAMES

RARE = 5
"""Training rows below which a label is hardly learned."""
DOMINANT = 0.9
"""Share of the training rows from which on one label drowns the others."""
ODD = 2
"""Times the usual tokens a character from which on a label is split oddly."""
SHOWN = 12
LISTED = 1_000


class Labels(Check):
    def findings(self, table: Table) -> Iterator[Finding]:
        if not self.setting.task.has_labels:
            return
        counts = _counts(table)
        listed = getattr(self.setting.task.options, "labels", None) or getattr(self.setting.task.options, "types", None)
        known = dict.fromkeys([*(listed or ()), *(name for names in table.names for name in names)])
        yield from self._variants(known, counts["train"])
        yield from self._same_tokens(known)
        yield from self._split(known)
        yield from self._rare(known, counts)
        yield from self._dominant(table, counts["train"])

    def _variants(self, known: dict[str, None], counts: Counter[str]) -> Iterator[Finding]:
        same: dict[str, list[str]] = defaultdict(list)
        for name in known:
            same[plain(name)].append(name)
        finding = Finding("label-variants", "warning", do="write each the same way everywhere, or rename one of them")
        for names in same.values():
            if len(names) > 1:
                told = ", ".join(f"{name!r} ({rows(counts[name], 'training')})" for name in names)
                finding.add("", told)
        if finding.count:
            finding.what = (
                f"{finding.count:,} label{'' if finding.count == 1 else 's'} in several spellings (case, width, "
                "spaces), of which each counts as another"
            )
            yield finding

    def _same_tokens(self, known: dict[str, None]) -> Iterator[Finding]:
        """Names that the tokenizer's normal form makes one: no answer could tell them apart."""
        same: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for name in known:
            same[tuple(self.setting.encoder.chat.answer_ids(name))].append(name)
        finding = Finding("same-tokens", "error", do="rename one of them")
        for names in same.values():
            if len(names) > 1:
                finding.add("", ", ".join(map(ascii, names)))
        if finding.count:
            finding.what = f"{finding.count:,} groups of labels that are the same tokens for this model"
            yield finding

    def _split(self, known: dict[str, None]) -> Iterator[Finding]:
        """Names that the tokenizer takes apart far more finely than the others: it hardly knows their characters."""
        sizes = {name: (len(self.setting.encoder.chat.answer_ids(name)), len(name)) for name in known if name}
        usual = float(np.median([tokens / signs for tokens, signs in sizes.values()])) if sizes else 0.0
        odd = {
            name: tokens for name, (tokens, signs) in sizes.items() if tokens > signs and tokens >= ODD * usual * signs
        }
        if odd:
            finding = Finding(
                "split-label", "note", do=f"rename {'it' if len(odd) == 1 else 'them'} in common characters"
            )
            for name, tokens in odd.items():
                finding.add("", f"{name!r} is {tokens} tokens")
            finding.what = (
                f"{_labels(len(odd), len(known))} with more tokens than characters, and {ODD} times as many as usual: "
                f"{_listed(list(odd.items()))}"
            )
            yield finding

    def _rare(self, known: dict[str, None], counts: dict[str, Counter[str]]) -> Iterator[Finding]:
        train = counts["train"]
        rare = [(name, count) for name, count in sorted(train.items(), key=lambda item: item[1]) if count < RARE]
        if rare:
            finding = Finding("rare-label", "warning", do="add rows, or merge or drop the label", count=len(rare))
            finding.what = f"{_labels(len(rare), len(known))} in fewer than {RARE} training rows: {_listed(rare)}"
            yield finding
        unseen = [(name, counts["test"][name] + counts["validation"][name]) for name in known if name not in train]
        if unseen:
            do = "add training rows of them, or leave them out of the test and of task.labels or task.types"
            finding = Finding("unseen-label", "warning", do=do, count=len(unseen))
            finding.what = (
                f"{_labels(len(unseen), len(known))} in no training row (in brackets: held-out rows): {_listed(unseen)}"
            )
            yield finding

    def _dominant(self, table: Table, counts: Counter[str]) -> Iterator[Finding]:
        whole = len(table.of("train"))
        if not self.setting.task.picks_one or not counts or len(counts) < 2:
            return
        name, most = counts.most_common(1)[0]
        if most / whole >= DOMINANT:
            what = f"{percent(most, whole)} of the training rows are {name!r}; accuracy says little beside that"
            do = "judge by macro_f1, which counts each label alike (evaluation.metric=macro_f1), or add other rows"
            yield Finding("dominant-label", "warning", what, do, most)

    def facts(self, table: Table) -> dict[str, Any]:
        if not self.setting.task.has_labels:
            return {}
        counts = _counts(table)
        names = dict.fromkeys(
            name for split in ("train", "validation", "test") for name, _ in counts[split].most_common()
        )
        first = list(names)[:LISTED]
        return {"labels": {name: {split: counts[split][name] for split in reversed(NAMES)} for name in first}}


def _counts(table: Table) -> dict[str, Counter[str]]:
    """Split → rows that name each label or type."""
    found: dict[str, Counter[str]] = {}
    for split in NAMES:
        by_stratum = np.bincount(table.stratum[table.of(split)], minlength=len(table.names))
        found[split] = Counter()
        for names, count in zip(table.names, by_stratum.tolist(), strict=True):
            if count:
                found[split].update(dict.fromkeys(names, count))
    return found


def plain(name: str) -> str:
    """What spellings of one name have in common: NFKC (which knows no width), case and white space left out."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _labels(count: int, whole: int) -> str:
    return f"{count:,} of {whole:,} labels"


def _listed(counted: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counted[:SHOWN]) + (", …" if len(counted) > SHOWN else "")


CHECK = Labels
