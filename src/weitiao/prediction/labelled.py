"""Answers by the scores of labels; those that 16 bits leave open are decided in float32."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import nlargest

from weitiao.engine.exact import WIDER
from weitiao.engine.forward import Forward
from weitiao.prediction.label_scores import Asked, LabelScorer
from weitiao.prediction.prompts import Prompts
from weitiao.prediction.windows import Advance, Windows
from weitiao.tasks.base import Example
from weitiao.types import Choice, Prediction

FIRST, AHEAD = 128, 1024
"""Rows that are encoded at once, where a card may compute others meanwhile: few at first, for it waits for them, then
twice as many each time, up to the second number."""

_Block = tuple[Windows, dict[int, Prediction]]
"""Rows that were encoded at once, and the answers to them."""


class Labelled:
    def __init__(self, prompts: Prompts, forward: Forward) -> None:
        chat, tokens = prompts.encoder.chat, prompts.batch_tokens
        self.prompts, self.forward = prompts, forward
        self.scorer = LabelScorer(forward, chat, tokens)
        self._exact = LabelScorer(forward, chat, tokens // WIDER)

    def answers(self, examples: Sequence[Example], advance: Advance, decoding: str, near: float) -> list[Prediction]:
        """While a card computes some rows, the next ones are encoded.

        decoding: see `LabelScorer.answers`. near: of one label, in nats; where the two likeliest are nearer to each
        other, float32 decides.
        """
        blocks: list[_Block] = []
        coming: deque[tuple[dict[int, Prediction], Sequence[int]]] = deque()

        def asks() -> Iterator[Asked]:
            for block in _blocks(examples):
                asked = Windows(self.prompts.encoder, block)
                found: dict[int, Prediction] = {}
                blocks.append((asked, found))
                constraints, counted = [*map(self.prompts.constraint, asked.rows)], asked.counted(advance)
                for prefix, members, prompts in self.prompts.behind_prefixes(asked.encoded):
                    coming.append((found, members))
                    choices = [constraint for i in members if isinstance(constraint := constraints[i], Choice)]
                    yield Asked(prefix, prompts, choices, counted)

        for answers in self.scorer.answers(asks(), decoding):
            found, members = coming.popleft()
            found.update(zip(members, answers, strict=True))
        if self.forward.rounds:
            self._decide(blocks, decoding, near)
        return [
            answer for asked, found in blocks for answer in asked.merged([found[i] for i in range(len(asked.rows))])
        ]

    def _decide(self, blocks: Sequence[_Block], decoding: str, near: float) -> None:
        """Again, in float32, which label it is where 16 bits leave that open."""
        tied = [(asked, found, i) for asked, found in blocks for i in found if near_tie(found[i], near)]
        limits = [self.prompts.constraint(asked.rows[i]) for asked, _, i in tied]
        rows = [
            (*row, limit)
            for row, limit in zip(tied, limits, strict=True)
            if isinstance(limit, Choice) and not limit.many
        ]
        if not rows:
            return
        with self.forward.exactly():
            for prefix, members, prompts in self.prompts.behind_prefixes([asked.encoded[i] for asked, _, i, _ in rows]):
                answers = self._exact.choose(Asked(prefix, prompts, [rows[at][3] for at in members]), decoding)
                for at, answer in zip(members, answers, strict=True):
                    _, found, i, _ = rows[at]
                    found[i] = answer


def near_tie(answer: Prediction, near: float) -> bool:
    """Whether the two likeliest labels are nearer to each other than this, in nats."""
    best = nlargest(2, answer.scores.values())
    return len(best) == 2 and best[0] < best[1] * math.exp(near)


def _blocks(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    start, size = 0, FIRST
    while start < len(examples):
        yield examples[start : start + size]
        start, size = start + size, min(2 * size, AHEAD)
