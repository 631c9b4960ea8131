"""What a run of answers in slots keeps: what is written, a step, prompts that are read, a group of answers.

Answers are known by their numbers, and what is kept of many stands in arrays: on a card the host's own work on each
token of hundreds of answers is what a step waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from weitiao.prediction.grammar import Bits, News

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
LOOK = 32
"""Tokens between two looks at whether an answer repeats itself."""


@dataclass
class Decoded:
    ids: list[int]
    """Tokens of the answer, without the stop."""
    log_probability: float
    """Of the answer and its stop among the tokens that the grammar allowed, in nats."""
    complete: bool
    """Whether it ended by itself within the budget."""
    chances: list[float] = field(default_factory=list)
    """Log-probability of each of `ids`, in nats; of a complete answer, all but the stop's of `log_probability`."""


class Answers:
    """The answers of a run, as far as they are written."""

    def __init__(self, answers: int, stop: int, budget: int, spent: Callable[[int, list[int]], bool]) -> None:
        """stop, budget: what ends an answer, and its most tokens. spent: told now and then of an answer's tokens; one
        for which it is true gets no more."""
        self.stop, self.budget, self.spent = stop, budget, spent
        self.sizes = np.zeros(answers, np.int64)
        """Tokens of each answer, without the stop."""
        self.ended = np.zeros(answers, bool)
        self._complete = np.zeros(answers, bool)
        self._ids = np.zeros((answers, LOOK), np.int64)
        self._chances = np.zeros((answers, LOOK), np.float32)
        self._last = np.zeros(answers, np.float32)
        """Log-probability of the stop."""

    def take(self, answers: Ints, tokens: Ints, chances: Floats, given: Ints) -> News:
        """What was chosen for some answers, [n, w] tokens and their log-probabilities, of which `given` [n] belong to
        each; what lies behind an answer's end is left out. What a guide is told of it."""
        sizes, width = self.sizes[answers], tokens.shape[1]
        behind = np.arange(width)
        ends = (tokens == self.stop) | (sizes[:, None] + behind >= self.budget)
        end = np.where(ends.any(1), ends.argmax(1), width)
        ended, kept = end < given, np.minimum(end, given)
        at_end = np.arange(len(answers)), np.minimum(end, width - 1)
        complete = ended & (tokens[at_end] == self.stop)
        self._last[answers] = chances[at_end]
        self._make_room(int((sizes + kept).max()))
        row, column = np.nonzero(behind < kept[:, None])
        where = answers[row], sizes[row] + column
        self._ids[where], self._chances[where] = tokens[row, column], chances[row, column]
        for at in np.flatnonzero((sizes + kept) // LOOK > sizes // LOOK):
            first = (sizes[at] // LOOK + 1) * LOOK
            for size in range(first, sizes[at] + kept[at] + 1, LOOK):
                if self.spent(int(answers[at]), self.ids(int(answers[at]), 0, size)):
                    kept[at], ended[at], complete[at] = size - sizes[at], True, False
                    break
        self.sizes[answers] += kept
        self.ended[answers], self._complete[answers] = ended, complete
        on = ~ended
        rounds = [np.flatnonzero(on & (kept > at)) for at in range(int(kept[on].max(initial=0)))]
        return News(
            [[*zip(answers[who].tolist(), tokens[who, at].tolist(), strict=True)] for at, who in enumerate(rounds)],
            answers[ended].tolist(),
        )

    def ids(self, answer: int, start: int = 0, stop: int | None = None) -> list[int]:
        """Tokens of an answer."""
        return self._ids[answer, start : self.sizes[answer] if stop is None else stop].tolist()  # type: ignore[no-any-return]

    def last(self, answers: Ints) -> Ints:
        """The last token of each."""
        return self._ids[answers, self.sizes[answers] - 1]  # type: ignore[no-any-return]

    def decoded(self, answer: int) -> Decoded:
        size, complete = self.sizes[answer], bool(self._complete[answer])
        chances = self._chances[answer, :size].tolist()
        stop = float(self._last[answer]) if complete else 0.0
        return Decoded(self.ids(answer), sum(chances) + stop, complete, chances)

    def _make_room(self, tokens: int) -> None:
        if tokens > self._ids.shape[1]:
            more = (0, 0), (0, tokens)
            self._ids, self._chances = np.pad(self._ids, more), np.pad(self._chances, more)


class Chosen:
    """Tokens and log-probabilities on their way to the host."""

    def __init__(self, tokens: torch.Tensor, chances: torch.Tensor) -> None:
        self._parts, self._event = (tokens, chances), None
        if tokens.is_cuda:
            there = (torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in self._parts)
            self._parts = tuple(to.copy_(part, non_blocking=True) for to, part in zip(there, self._parts, strict=True))  # type: ignore[assignment]
            self._event = torch.cuda.Event()
            self._event.record()

    def told(self, width: int) -> tuple[Ints, Floats]:
        """[rows, width] of each."""
        if self._event is not None:
            self._event.synchronize()
        tokens, chances = self._parts
        return tokens.view(-1, width).numpy(), chances.view(-1, width).numpy()


@dataclass
class Step:
    """One whose masks are being written; then it is started, and at last it chooses."""

    answers: Ints
    rows: Ints
    """Of the chosen tokens, each answer's."""
    waiting: Ints
    """[n, width]: of each answer the token that was chosen last, and behind it a guess of what follows."""
    counts: Ints
    """[n]: how many of these there are."""
    told: torch.Tensor
    where: torch.Tensor | None
    most: int
    """What `Steps.logits` is given."""
    masks: Future[Bits]
    logits: torch.Tensor | None = None
    chosen: Chosen | None = None

    @property
    def width(self) -> int:
        return self.waiting.shape[1]

    def right(self, tokens: Ints) -> Ints:
        """[n]: how many of the chosen tokens [n, width] belong to each answer: the first, and those behind guesses that
        were right."""
        guessed = np.arange(1, self.width) < self.counts[:, None]
        right = guessed & (self.waiting[:, 1:] == tokens[:, :-1])
        return 1 + np.cumprod(right, axis=1).sum(1)  # type: ignore[no-any-return]


@dataclass
class Reading:
    """Prompts whose first tokens are being chosen."""

    answers: Ints
    after: Ints
    """Positions of what follows each."""
    chosen: Chosen
    bits: Bits
    """Masks, which the card may still be copying."""


class Group:
    """Answers that are written on together."""

    def __init__(self) -> None:
        self.answers: Ints = np.zeros(0, np.int64)
        self.started: Step | None = None
        self.bits = torch.empty(0, 0, dtype=torch.int32)
        """Masks of its last step, which a thread may still be writing, or the card copying."""
