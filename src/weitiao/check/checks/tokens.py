"""Rows as tokens: whether something of each is trained, and how many are shortened, of which class, by how much.

Lengths come from encoding a batch at once. A row that may be longer than `data.max_length`, or has images, goes through
the encoder itself, as in training.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import Finding, clipped, percent, rows
from weitiao.check.table import Positions, Table
from weitiao.data.rows import refuse_too_long, refuse_unsupervised
from weitiao.data.summary import lengths_told
from weitiao.errors import DataError, RenderError
from weitiao.tasks.base import Example
from weitiao.types import TextPart

MARGIN = 8
"""Tokens that a text may take more alone than behind its heading, at most."""
MOST_CLASSES = 5
OFTEN = 0.01
"""Share of the rows from which on shortening is a warning."""


class _Written(NamedTuple):
    """A row without images, as stretches of text and control ids."""

    pieces: list[int | str]
    target: str
    own: str
    """The stretch with the text that may be shortened."""
    heading: str
    """What stands before the text in it."""


class Tokens(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._lengths, self._texts, self._removed, self._answers = (array("I") for _ in range(4))
        self._partly: list[int] = []
        """Rows whose answer names something that is left out."""

    def look(self, batch: Batch) -> None:
        written = [None if example.images else self._written(example) for example in batch.examples]
        stretches = {text for told in written if told for text in (*told.pieces, *told[1:]) if isinstance(text, str)}
        known = dict(zip(stretches, self.setting.base.tokenizer.lengths(list(stretches)), strict=True))
        for at, (example, told) in enumerate(zip(batch.examples, written, strict=True), batch.start):
            try:
                found = self._quick(example, told, known, at) if told else self._exact(example, at)
            except (RenderError, DataError) as error:
                self.setting.trouble.add(error, at)
                found = (0, 0, 0, 0)
            columns = (self._lengths, self._texts, self._removed, self._answers)
            for column, value in zip(columns, found, strict=True):
                column.append(value)

    def _written(self, example: Example) -> _Written:
        task, messages = self.setting.task, self.setting.task.prompt(example)
        pieces = self.setting.encoder.chat.pieces(messages)
        parts = (part for message in messages for part in message.parts)
        text = next((part.text for part in parts if isinstance(part, TextPart) and part.shrinkable), "")
        own = next(piece for piece in reversed(pieces) if isinstance(piece, str) and text in piece)
        return _Written(pieces, task.target(example.answer), own, own[: own.rindex(text)])

    def _quick(self, example: Example, told: _Written, known: dict[str, int], at: int) -> tuple[int, int, int, int]:
        """Tokens of prompt and answer, of the text, of what is left out of it, and of the answer with its stop."""
        text = max(known[told.own] - known[told.heading], 0)
        if text + MARGIN > self.setting.encoder.max_length:
            return self._exact(example, at)
        chat = self.setting.encoder.chat
        refuse_unsupervised(known[told.target], told.target, example.row.place)
        prompt = sum(known[piece] if isinstance(piece, str) else 1 for piece in told.pieces)
        answer = known[told.target] + 1
        length = prompt + len(chat.lead) + answer
        refuse_too_long(length, self.setting.encoder.limit, example.row.place)
        return length, text, 0, answer

    def _exact(self, example: Example, at: int) -> tuple[int, int, int, int]:
        encoded = self.setting.encoder.training(example)
        if encoded.gap and self.setting.task.seen(example.answer, encoded.gap) != example.answer:
            self._partly.append(at)
        text = len(self.setting.base.tokenizer.encode(example.text)) + sum(image.tokens for image in encoded.images)
        return len(encoded.ids), text, encoded.removed, len(encoded.answer)

    def findings(self, table: Table) -> Iterator[Finding]:
        removed, train = _array(self._removed), table.of("train")
        cut = train[removed[train] > 0]
        if not len(cut):
            return
        often = len(cut) >= OFTEN * len(train)
        what = (
            f"{len(cut):,} of {rows(len(train), 'training')} ({percent(len(cut), len(train))}) longer than "
            f"data.max_length={self.setting.config.data.max_length}: their middle is left out, "
            f"median {int(np.median(removed[cut])):,}, at most {removed[cut].max():,} tokens"
        )
        partly = int(np.isin(cut, self._partly).sum())
        what += _by_class(table, cut, removed) + (f"; the answer of {partly:,} names something there" if partly else "")
        longest, limit = int(_array(self._texts)[train].max()), self.setting.encoder.limit
        do = f"data.max_length={longest} keeps all, at the cost of memory and time"
        if longest > limit // 2:
            do = f"raise data.max_length, or divide long texts: the model takes {limit} tokens in all"
        most = cut[np.argsort(-removed[cut].astype(np.int64), kind="stable")]
        finding = Finding("shortened", "warning" if often else "note", what, do, len(cut))
        finding.name_first(most, lambda at: (table.place(at), f"{removed[at]:,} tokens left out"))
        yield finding

    def facts(self, table: Table) -> dict[str, Any]:
        train = table.of("train")
        whole, texts = _array(self._lengths)[train], _array(self._texts)[train]
        if not whole.any():
            return {}
        most = self.setting.config.data.max_length
        told: dict[str, Any] = {"rows": lengths_told(whole), "texts": lengths_told(texts), "all": int(whole.sum())}
        # A few very long texts would press all others into one bar.
        usual = texts[texts <= np.quantile(texts, 0.99, method="higher")]
        told["texts"]["histogram"] = histogram = lengths_told(usual)["histogram"]
        longer = texts[texts > usual.max()]
        end = histogram["edges"][-1]  # lies beyond the longest that is usual
        histogram["counts"][-1] += int((longer < end).sum())
        told["rows"]["deviation"] = round(float(whole.std()), 3)
        told["answers"] = _summed(_array(self._answers)[train])
        told["texts"]["longer"] = int((longer >= end).sum())
        return {"tokens": {**told, "max_length": most, "above": int((texts > most).sum())}}


def _by_class(table: Table, cut: Positions, removed: Any) -> str:
    """Rows and, in brackets, the median of the tokens that each loses, of the classes with the most such rows."""
    if len(table.names) < 2:
        return ""
    strata = table.stratum[cut]
    counted = Counter(strata.tolist()).most_common()
    listed = []
    for stratum, count in counted[:MOST_CLASSES]:
        name = clipped(", ".join(table.names[stratum]) or "none", 24)
        listed.append(f"{name} {count:,} ({int(np.median(removed[cut[strata == stratum]])):,} tokens)")
    return f"; by class: {', '.join(listed)}{', …' if len(counted) > MOST_CLASSES else ''}"


def _summed(lengths: Any) -> dict[str, Any]:
    return {"all": int(lengths.sum()), "max": int(lengths.max()), "deviation": round(float(lengths.std()), 3)}


def _array(column: array[int]) -> Any:
    return np.frombuffer(column, column.typecode)


CHECK = Tokens
