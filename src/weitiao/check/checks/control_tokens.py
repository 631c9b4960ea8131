"""Names of control tokens in texts. They are encoded as text, so they do no harm; it is worth knowing that they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.finding import Finding, rows
from weitiao.check.table import Table


class ControlTokens(Check):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        names = [name for name in setting.base.tokenizer.controls if len(name) > 2]
        self._any = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")
        self._found = Finding("control-tokens", "note", do="nothing: they are encoded as text, and steer nothing")
        self._counts: Counter[str] = Counter()

    def look(self, batch: Batch) -> None:
        for example in batch.examples:
            if names := self._any.findall(example.text):
                self._counts.update(set(names))
                self._found.add(example.row.place, example.text)

    def findings(self, table: Table) -> Iterator[Finding]:
        if self._found.count:
            listed = ", ".join(f"{name} ({count})" for name, count in self._counts.most_common(5))
            self._found.what = f"{rows(self._found.count)} with the name of a control token of the model: {listed}"
            yield self._found


CHECK = ControlTokens
