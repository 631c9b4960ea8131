"""Example → Encoded, through the task's messages and the family's chat format. The only place where text becomes
token ids; what is too long is shortened here, and only the part that the task calls shrinkable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from weitiao.errors import RenderError
from weitiao.families.chat_format import ChatFormat
from weitiao.tasks.base import Example, Task
from weitiao.types import Encoded, Message, TextPart

CUT_MARK = "…"
"""Stands where the middle of a long text was left out."""


class Encoder:
    """Renders one task for one model.

    max_length: tokens that a shrinkable text may take. limit: tokens that the model can take in all.
    """

    def __init__(self, task: Task, chat: ChatFormat, max_length: int, limit: int) -> None:
        self.task, self.chat = task, chat
        self.max_length, self.limit = max_length, limit

    def prompt(self, example: Example) -> Encoded:
        """The prompt alone, for prediction."""
        messages, removed, gap = self._shortened(self.task.prompt(example))
        ids = tuple(self.chat.prompt_ids(messages))
        self._check_limit(len(ids), example)
        return Encoded(ids, len(ids), removed, gap)

    def training(self, example: Example) -> Encoded:
        """Prompt, answer and stop. The answer and the stop are supervised, and never cut; what an answer says of a
        stretch that was left out of the text is not asked for."""
        encoded = self.prompt(example)
        target = self.task.target(self.task.seen(example.answer, encoded.gap))
        answer = self.chat.answer_ids(target)
        if not answer:
            raise RenderError(f"{example.row.place}: the answer {target!r} has no tokens")
        self._check_limit(len(encoded.ids) + len(self.chat.lead) + len(answer) + 1, example)
        return replace(encoded, ids=(*encoded.ids, *self.chat.lead, *answer, self.chat.stop))

    def _check_limit(self, length: int, example: Example) -> None:
        if length > self.limit:
            raise RenderError(
                f"{example.row.place}: {length} tokens, but the model takes {self.limit}; "
                "lower data.max_length, or shorten the instruction, the labels or the answer"
            )

    def _shortened(self, messages: Sequence[Message]) -> tuple[list[Message], int, tuple[int, int] | None]:
        """Messages whose shrinkable part fits; tokens left out; where they stood. A task has one shrinkable part."""
        removed, gap = 0, None
        out = []
        for message in messages:
            parts = []
            for part in message.parts:
                if part.shrinkable:
                    text, removed, gap = self._shorten(part.text)
                    part = TextPart(text, shrinkable=True)
                parts.append(part)
            out.append(Message(message.role, tuple(parts)))
        return out, removed, gap

    def _shorten(self, text: str) -> tuple[str, int, tuple[int, int] | None]:
        """Head and tail of a text that is longer than `max_length`, how many tokens were left out, and where."""
        # A token is at least one byte, and a code point at most four, which a normal form can make twelve (UAX 15).
        if len(text) * 12 <= self.max_length:
            return text, 0, None
        spans = self.chat.tokenizer.spans(text)
        if len(spans) <= self.max_length:
            return text, 0, None
        keep = self.max_length - len(self.chat.tokenizer.encode(CUT_MARK))
        while keep > 1:
            end, start = spans[keep - keep // 2 - 1][1], spans[-(keep // 2)][0]
            short = text[:end] + CUT_MARK + text[start:]
            over = len(self.chat.tokenizer.encode(short)) - self.max_length
            if over <= 0:
                return short, sum(end <= first and last <= start for first, last in spans), (end, start)
            # Tokens merge differently at the seam, and a character of several tokens stays whole.
            keep -= over
        return CUT_MARK, len(spans), (0, len(text))


def shortening_note(examples: Sequence[Example], encoded: Sequence[Encoded], task: Task, split: str) -> str | None:
    """One line that says how many texts were shortened, by class; None when none was."""
    cut = [(e, c) for e, c in zip(examples, encoded, strict=True) if c.removed]
    if not cut:
        return None
    by_class = Counter(task.stratum(example) or "no entity" for example, _ in cut)
    listed = ", ".join(f"{name} {count}" for name, count in by_class.most_common(8))
    tokens = sum(c.removed for _, c in cut)
    partly = sum(task.seen(example.answer, c.gap) != example.answer for example, c in cut)
    return (
        f"{len(cut)} of {len(examples)} {split} texts are longer than data.max_length and keep head and tail "
        f"({tokens:,} tokens left out; by class: {listed}{', …' if len(by_class) > 8 else ''})"
        + (f"; {partly} of their answers name something there" if partly else "")
    )
