"""A sample of training rows, rendered and read back: what is trained is what is asked, and what is answered is read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import Finding
from weitiao.check.table import Table
from weitiao.data.prefix import common_prefix
from weitiao.errors import WeitiaoError
from weitiao.tasks.base import Example
from weitiao.types import Encoded

SAMPLE = 64


class RoundTrip(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._sample: list[Example] = []
        self._encoded: list[Encoded] = []
        """What of it could be encoded, once it is read back."""
        self._seen = 0
        self._random = random.Random(setting.config.run.seed)

    def look(self, batch: Batch) -> None:
        """Keep a sample of the rows so far, each as likely as any other."""
        for example, split in zip(batch.examples, batch.splits, strict=True):
            if split != "train":
                continue
            self._seen += 1
            if len(self._sample) < SAMPLE:
                self._sample.append(example)
            elif (at := self._random.randrange(self._seen)) < SAMPLE:
                self._sample[at] = example

    def findings(self, table: Table) -> Iterator[Finding]:
        finding = Finding("round-trip", "error", do="report it: the model's chat format or tokenizer is not read right")
        for example in self._sample:
            if (said := self._broken(example)) is not None:
                finding.add(example.row.place, said)
        if finding.count:
            finding.what = f"{finding.count} of {len(self._sample)} sampled rows do not read back from their tokens"
            yield finding

    def _broken(self, example: Example) -> str | None:
        """What of a row's tokens is not as it was written; None when all is."""
        encoder, task, tokenizer = self.setting.encoder, self.setting.task, self.setting.base.tokenizer
        try:
            prompt, encoded = encoder.prompt(example), encoder.training(example)
        except WeitiaoError:  # counted where all rows are encoded
            return None
        self._encoded.append(encoded)
        target = task.target(task.seen(example.answer, encoded.gap))
        answer = encoder.chat.answer_ids(target)
        if list(encoded.ids) != [*prompt.ids, *encoder.chat.lead, *answer, encoder.chat.stop]:
            return "its training tokens are not its prompt, its answer and the stop"
        read = tokenizer.decode(answer)
        if read != tokenizer.normalize(target) and task.parse(read, example) != task.parse(target, example):
            return f"the answer {target!r:.40} reads back as {read!r:.40}"
        return None

    def facts(self, table: Table) -> dict[str, Any]:
        return {"read_back": len(self._sample), "shared": len(common_prefix(self._encoded))}


CHECK = RoundTrip
