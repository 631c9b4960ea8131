"""What a run of answers in slots keeps: an answer, its slot, a step, prompts that are read, a group of slots."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from weitiao.prediction.grammar import Bits
from weitiao.prediction.guess import Guesser


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


@dataclass
class Slot:
    """An answer that is being written."""

    answer: int
    at: int
    """Which slot it is."""
    place: int
    """In the slot, of the next token that is computed."""
    shift: int
    """From a token's place to its position; not 0 behind images."""
    guesser: Guesser
    waiting: list[int] = field(default_factory=list)
    """The token that was chosen last, and a guess of what follows."""


class Chosen:
    """Tokens and log-probabilities on their way to the host."""

    def __init__(self, tokens: torch.Tensor, chances: torch.Tensor) -> None:
        self._parts, self._event = (tokens, chances), None
        if tokens.is_cuda:
            there = (torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in self._parts)
            self._parts = tuple(to.copy_(part, non_blocking=True) for to, part in zip(there, self._parts, strict=True))  # type: ignore[assignment]
            self._event = torch.cuda.Event()
            self._event.record()

    def told(self, width: int) -> tuple[list[list[int]], list[list[float]]]:
        """Rows of so many."""
        if self._event is not None:
            self._event.synchronize()
        tokens, chances = self._parts
        return tokens.view(-1, width).tolist(), chances.view(-1, width).tolist()


@dataclass
class Step:
    """One whose masks are being written; then it is started, and at last it chooses."""

    slots: list[Slot]
    rows: list[int]
    """Of the chosen tokens, each slot's."""
    width: int
    told: torch.Tensor
    where: torch.Tensor | None
    most: int
    """What `Steps.logits` is given."""
    masks: Future[Bits]
    logits: torch.Tensor | None = None
    chosen: Chosen | None = None


@dataclass
class Reading:
    """Prompts whose first tokens are being chosen."""

    placed: Sequence[tuple[int, int]]
    """(slot, answer)"""
    after: list[int]
    """Positions of what follows each."""
    chosen: Chosen
    bits: Bits
    """Masks, which the card may still be copying."""


class Group:
    """Answers that are written on together."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.started: Step | None = None
        self.bits = torch.empty(0, 0, dtype=torch.int32)
        """Masks of its last step, which a thread may still be writing, or the card copying."""
