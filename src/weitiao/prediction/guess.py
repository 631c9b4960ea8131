"""What an answer may go on with, guessed before the model says it: entities are copied from the text, and what stands
between them repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

TRY_AGAIN = 32
"""Steps without guesses before they are tried once more."""


class Guesser:
    """Looks up what followed the last two tokens, or else the last one, when they were there before."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._ids, self._prompt = list(prompt), len(prompt)
        self._behind: dict[tuple[int, ...], int] = {}
        """Token, or two → the place behind where they stood last, but for the end."""
        self._known = 0
        """Places that are in it: it is made when a guess is wanted."""

    @property
    def heard(self) -> int:
        """Tokens of the answer that it has been told of."""
        return len(self._ids) - self._prompt

    def add(self, tokens: Sequence[int]) -> None:
        """What the answer goes on with."""
        self._ids += tokens

    def _look(self) -> None:
        ids = self._ids
        for end in range(self._known, len(ids)):
            for size in (1, 2):
                if end >= size:
                    self._behind[tuple(ids[end - size : end])] = end
        self._known = len(ids)

    def guess(self, forced: Sequence[int], most: int) -> list[int]:
        """At most so many tokens. forced: the only ones that can come next, if there are any."""
        if forced:
            return list(forced[:most])
        self._look()
        end = len(self._ids)
        for size in (2, 1):
            at = self._behind.get(tuple(self._ids[end - size :])) if end >= size else None
            if at is not None:
                return self._ids[at : at + most]
        return []


class Worth:
    """Whether a step with guesses is worth what it takes: longer than one without, and it gives more tokens."""

    def __init__(self, width: int, busy: int) -> None:
        """width: tokens of an answer in such a step. busy: tokens that are computed in the time in which all weights
        are read, as in every step."""
        self.width, self.busy = width, busy
        self._given = 2.0
        """Tokens that such steps gave an answer of late; at first, half of the guesses may be right."""
        self._waited = 0

    def wide(self, answers: int) -> bool:
        longer = (self.busy + answers * self.width) / (self.busy + answers)
        if self._given >= longer or (self._waited >= TRY_AGAIN and longer < self.width):
            self._waited = 0
            return True
        self._waited += 1
        return False

    def saw(self, width: int, given: float) -> None:
        """A step of this width gave each answer so many tokens."""
        if width == self.width:
            self._given = 0.75 * self._given + 0.25 * given
