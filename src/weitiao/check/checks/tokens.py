"""Rows as tokens: whether something of each is trained, how many are shortened, and whether tokens read back.

Lengths come from encoding a batch at once. A row that might be longer than `data.max_length`, or has images, goes
through the encoder itself, as in training.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import Finding, clipped, rows
from weitiao.check.table import Table
from weitiao.data.rows import refuse_too_long, refuse_unsupervised
from weitiao.data.summary import lengths_told
from weitiao.errors import DataError, RenderError
from weitiao.tasks.base import Example

SAMPLE = 64
"""Training rows whose tokens are read back."""
MARGIN = 8
"""Tokens that a text may take more alone than behind its header, at most."""
MOST_CLASSES = 5


class Tokens(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.lengths, self.text_lengths, self.removed = array("I"), array("I"), array("I")
        self.partly = 0
        self._sample: list[Example] = []
        self._seen = 0
        self._random = random.Random(setting.config.run.seed)

    def look(self, batch: Batch) -> None:
        task, chat = self.setting.task, self.setting.encoder.chat
        written = [
            None if example.images else (chat.pieces(task.prompt(example)), task.target(example.answer))
            for example in batch.examples
        ]
        texts = {piece for told in written if told for piece in (*told[0], told[1]) if isinstance(piece, str)}
        known = dict(zip(texts, self.setting.base.tokenizer.lengths(list(texts)), strict=True))
        for example, told, split in zip(batch.examples, written, batch.splits, strict=True):
            try:
                found = self._quick(example, told, known) if told else self._exact(example)
            except (RenderError, DataError) as error:
                self.setting.trouble.add(error)
                found = (0, 0, 0)
            for column, value in zip((self.lengths, self.text_lengths, self.removed), found, strict=True):
                column.append(value)
            if split == "train" and found[0]:
                self._draw(example)

    def _quick(self, example: Example, told: Any, known: dict[str, int]) -> tuple[int, int, int]:
        """Tokens of all, of the longest stretch, and of what is left out."""
        pieces, target = told
        parts = [known[piece] if isinstance(piece, str) else 1 for piece in pieces]
        own = max(parts)
        if own + MARGIN > self.setting.encoder.max_length:
            return self._exact(example)
        refuse_unsupervised(known[target], target, example.row.place)
        chat = self.setting.encoder.chat
        length = sum(parts) + len(chat.lead) + known[target] + 1
        refuse_too_long(length, self.setting.encoder.limit, example.row.place)
        return length, own, 0

    def _exact(self, example: Example) -> tuple[int, int, int]:
        encoded = self.setting.encoder.training(example)
        if encoded.gap and self.setting.task.seen(example.answer, encoded.gap) != example.answer:
            self.partly += 1
        own = self.setting.encoder.max_length + encoded.removed if encoded.removed else encoded.prompt_length
        return len(encoded.ids), min(own, encoded.prompt_length + encoded.removed), encoded.removed

    def _draw(self, example: Example) -> None:
        """Keep a sample of all rows so far, each as likely as any other."""
        self._seen += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(example)
        elif (at := self._random.randrange(self._seen)) < SAMPLE:
            self._sample[at] = example

    def findings(self, table: Table) -> Iterator[Finding]:
        yield from self._shortened(table)
        yield from self._round_trip()

    def _shortened(self, table: Table) -> Iterator[Finding]:
        removed = np.frombuffer(self.removed, self.removed.typecode)
        train = table.of("train")
        cut = train[removed[train] > 0]
        if not len(cut):
            return
        share = len(cut) / len(train)
        lost = removed[cut]
        classes = Counter(", ".join(table.names[s]) or "none" for s in table.stratum[cut].tolist()).most_common()
        listed = "; ".join(f"{clipped(name, 24)} {count:,}" for name, count in classes[:MOST_CLASSES])
        what = (
            f"{rows(len(cut), 'training')} of {len(train):,} ({share:.1%}) are longer than "
            f"data.max_length={self.setting.config.data.max_length} and lose their middle: "
            f"median {int(np.median(lost)):,}, at most {lost.max():,} tokens"
        )
        if len(classes) > 1 or classes[0][0] != "none":
            what += f" (by class: {listed}{'; …' if len(classes) > MOST_CLASSES else ''})"
        if self.partly:
            what += f"; of {self.partly:,} rows the answer names something there"
        do = f"data.max_length={int(np.frombuffer(self.text_lengths, 'I')[train].max())} keeps all of them, at the cost of memory and time"
        finding = Finding("shortened", "warning" if share > 0.01 or self.partly else "note", what, do, len(cut))
        longest = cut[np.argsort(-lost.astype(np.int64), kind="stable")[:3]]
        finding.examples = [(table.place(at), f"{removed[at]:,} tokens left out") for at in longest]
        yield finding

    def _round_trip(self) -> Iterator[Finding]:
        finding = Finding(
            "round-trip", "error", do="report this: the model's chat format or tokenizer is not read right"
        )
        for example in self._sample:
            if (said := self._broken(example)) is not None:
                finding.add(example.row.place, said)
        if finding.count:
            finding.what = f"{finding.count} of {len(self._sample)} sampled rows do not read back from their tokens"
            yield finding

    def _broken(self, example: Example) -> str | None:
        """What of a row's tokens is not as it was written; None when all is."""
        encoder, task, tokenizer = self.setting.encoder, self.setting.task, self.setting.base.tokenizer
        prompt, encoded = encoder.prompt(example), encoder.training(example)
        target = task.target(task.seen(example.answer, encoded.gap))
        answer = [*encoder.chat.lead, *encoder.chat.answer_ids(target)]
        if list(encoded.ids) != [*prompt.ids, *answer, encoder.chat.stop]:
            return "its training tokens are not prompt, answer and stop"
        read = tokenizer.decode(answer[len(encoder.chat.lead) :])
        if read != tokenizer.normalize(target) and task.parse(read, example) != task.parse(target, example):
            return f"the answer {target!r:.40} reads back as {read!r:.40}"
        return None

    def facts(self, table: Table) -> dict[str, Any]:
        train = table.of("train")
        whole, own = (np.frombuffer(column, "I")[train] for column in (self.lengths, self.text_lengths))
        if not whole.any():
            return {}
        return {
            "tokens": {
                "rows": lengths_told(whole[whole > 0]),
                "texts": lengths_told(own[own > 0]),
                "max_length": self.setting.config.data.max_length,
                "all": int(whole.sum()),
                "read_back": len(self._sample),
            }
        }


CHECK = Tokens
