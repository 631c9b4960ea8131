"""Rows that are too long for one prompt, as a row for each window of their text; their answers made one again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from weitiao.data.encode import Encoder
from weitiao.tasks.base import Example
from weitiao.types import Encoded, Prediction, Span

Advance = Callable[[int], None]


class Windows:
    """rows: what is asked instead of `examples`, in order; encoded: their prompts."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example]) -> None:
        self.task, self.examples = encoder.task, examples
        self.rows: list[Example] = []
        self.encoded: list[Encoded] = []
        self._spans: list[list[Span]] = []
        """Of each example; none where it is asked as it is."""
        for example, whole in zip(examples, encoder.prompts(examples), strict=True):
            spans = encoder.windows(example) if whole.removed and self.task.in_windows else []
            if len(spans) > 1:
                rows = [replace(example, text=example.text[start:end], answer=None) for start, end in spans]
                self.rows += rows
                self.encoded += encoder.prompts(rows)
            else:
                spans = []
                self.rows.append(example)
                self.encoded.append(whole)
            self._spans.append(spans)

    def merged(self, answers: Sequence[Prediction]) -> list[Prediction]:
        """An answer for each example. answers: to `rows`."""
        coming = iter(answers)
        return [
            self.task.merged(list(zip(spans, islice(coming, len(spans)), strict=True)), example)
            if spans
            else next(coming)
            for example, spans in zip(self.examples, self._spans, strict=True)
        ]

    def counted(self, advance: Advance) -> Advance:
        """Told of `rows` that are done, tells `advance` of as large a share of the examples."""
        done = 0

        def told(rows: int) -> None:
            nonlocal done
            before = done * len(self.examples) // len(self.rows)
            done += rows
            advance(done * len(self.examples) // len(self.rows) - before)

        return told
