"""Entities as they are marked: spaces in them, borders within a word, overlaps, and the ceiling of repeated mentions.

An entity that is not where its row says is refused before (`entity-offsets`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import Finding, rows
from weitiao.check.table import Table
from weitiao.metrics.entities import Entity
from weitiao.tasks.base import Example

SAID: dict[str, tuple[Any, str, str]] = {
    "entity-spaces": ("warning", "with a space at an end", "move the offsets to the first and last letter"),
    "entity-in-word": (
        "warning",
        "with an end within a Latin word or a number",
        "look at the offsets: they are often one off, or count bytes",
    ),
    "entity-overlaps": (
        "warning",
        "across the end of another one, or with two types",
        "look at them: both are trained",
    ),
    "entity-nested": ("note", "within another one", "nothing: both are trained and found again"),
}


class Entities(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._on = setting.task.in_windows
        self._found = {name: Finding(name, level, do=do) for name, (level, _, do) in SAID.items()}
        self._ambiguous = Finding("repeated-mentions", "note")
        self._counts: Any = 0
        self._statistic: Any = None
        self._entities = 0

    def look(self, batch: Batch) -> None:
        if not self._on:
            return
        for example in batch.examples:
            self._look(example)
        self._ceiling(batch.examples)

    def _look(self, example: Example) -> None:
        self._entities += len(example.answer)
        reached: Entity | None = None
        for entity in example.answer:  # in reading order, the longer one first
            if entity.text[0].isspace() or entity.text[-1].isspace():
                self._add("entity-spaces", example, entity)
            if _within_word(example.text, entity.start) or _within_word(example.text, entity.end):
                self._add("entity-in-word", example, entity)
            if reached is not None and entity.start < reached.end:
                same = (entity.start, entity.end) == (reached.start, reached.end)
                nested = entity.end <= reached.end and not same
                self._add("entity-nested" if nested else "entity-overlaps", example, entity)
            if reached is None or entity.end > reached.end:
                reached = entity

    def _add(self, name: str, example: Example, entity: Entity) -> None:
        before, behind = (
            example.text[max(entity.start - 12, 0) : entity.start],
            example.text[entity.end : entity.end + 12],
        )
        self._found[name].add(example.row.place, f"{before}【{entity.text}】{behind} {entity.type}")

    def _ceiling(self, examples: Sequence[Example]) -> None:
        """What an oracle reaches that writes every answer: a mention is found again where all before it are marked."""
        task = self.setting.task
        read = [task.parse(task.target(e.answer), e) if _ambiguous(e) else e.answer for e in examples]
        counts, self._statistic = task.counts(read, examples)
        self._counts = self._counts + counts.sum(axis=0)
        for answer, example in zip(read, examples, strict=True):
            if answer is not example.answer and not task.right(answer, example):
                missed = next((e for e in example.answer if e not in (answer or ())), None)
                self._ambiguous.add(
                    example.row.place, f"{missed.text} ({missed.type}) at {missed.start}" if missed else ""
                )

    def findings(self, table: Table) -> Iterator[Finding]:
        for name, finding in self._found.items():
            if finding.count:
                finding.what = f"{finding.count:,} of {self._entities:,} entities {SAID[name][1]}"
                yield finding
        if self._ambiguous.count:
            count, ceiling = self._ambiguous.count, float(self._statistic(np.asarray(self._counts)[None])[0])
            self._ambiguous.level = "warning" if ceiling < 0.99 else "note"
            self._ambiguous.what = (
                f"{rows(count)} with a mention that is not marked before one that is, so that the answer does not lead "
                f"back to its place: F1 over all rows cannot pass {ceiling:.4f}"
            )
            self._ambiguous.do = "mark every mention of an entity, or none but the first"
            yield self._ambiguous


def _within_word(text: str, at: int) -> bool:
    """Whether a border parts two Latin letters or two digits."""
    if not 0 < at < len(text):
        return False
    before, behind = text[at - 1], text[at]
    return (_latin(before) and _latin(behind)) or (before.isdecimal() and behind.isdecimal())


def _latin(char: str) -> bool:
    return char < "\u0250" and char.isalpha()


def _ambiguous(example: Example) -> bool:
    """Whether an entity's text stands in the row before it, or the normal form of the text is another."""
    text = example.text
    if not unicodedata.is_normalized("NFC", text):
        return True
    seen = {entity.text for entity in example.answer}
    return len(seen) < len(example.answer) or any(text.find(e.text) != e.start for e in example.answer)


CHECK = Entities
