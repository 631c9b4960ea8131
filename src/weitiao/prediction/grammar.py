"""Which tokens may come next: under a task's grammar, by llguidance, or in free text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from weitiao.errors import ModelError, first_line
from weitiao.families.tokenizer import TextTokenizer
from weitiao.types import Grammar


class Allowed(Protocol):
    """Which tokens may come next in each row of a batch."""

    def allowed(self) -> torch.Tensor:
        """bool [rows, vocabulary], or [1, vocabulary] for all of them alike."""

    def take(self, tokens: Sequence[int]) -> None:
        """What came next in each row."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""


class GrammarCompiler:
    """Makes matchers for one tokenizer. vocabulary: width of the model's logits; stop: id that ends an answer."""

    def __init__(self, tokenizer: TextTokenizer, vocabulary: int, stop: int) -> None:
        self._tokenizer, self.vocabulary, self.stop = tokenizer, vocabulary, stop

    @cached_property
    def _vocabulary(self):  # type: ignore[no-untyped-def]
        from llguidance import LLTokenizer

        return LLTokenizer(self._tokenizer.spec(), n_vocab=self.vocabulary, eos_token=self.stop)

    def matchers(self, grammars: Sequence[Grammar]) -> Matchers:
        return Matchers([Matcher(self._vocabulary, g, self.stop) for g in grammars], self.vocabulary)

    @cached_property
    def any_text(self) -> AnyText:
        text = torch.zeros(1, self.vocabulary, dtype=torch.bool)
        text[0, : min(self.vocabulary, self._tokenizer.size)] = True
        text[0, [id for id in self._tokenizer.controls.values() if id < self.vocabulary]] = False
        text[0, self.stop] = True
        return AnyText(text)


class Matcher:
    """Progress of one answer through its grammar."""

    def __init__(self, vocabulary, grammar: Grammar, stop: int) -> None:  # type: ignore[no-untyped-def]
        from llguidance import LLMatcher

        self._inner = LLMatcher(vocabulary, grammar.lark, log_level=0)
        self._stop = stop
        if self._inner.is_error():
            raise ModelError(f"the answer grammar cannot be compiled: {first_line(self._inner.get_error())}")

    @property
    def inner(self):  # type: ignore[no-untyped-def]
        return self._inner

    def take(self, token: int) -> None:
        if token != self._stop and not self._inner.consume_token(token):
            raise RuntimeError(f"token {token} is outside the grammar although its mask allowed it")


class Matchers:
    """The matchers of a batch, and its mask of allowed tokens."""

    def __init__(self, matchers: Sequence[Matcher], vocabulary: int) -> None:
        import llguidance.numpy

        self._rows = list(matchers)
        self._bits = llguidance.numpy.allocate_token_bitmask(len(matchers), vocabulary)
        self._vocabulary = vocabulary

    def allowed(self) -> torch.Tensor:
        """bool [rows, vocabulary] on the CPU."""
        import llguidance.numpy

        for at, matcher in enumerate(self._rows):
            llguidance.numpy.fill_next_token_bitmask(matcher.inner, self._bits, at)
        bits = np.unpackbits(self._bits[: len(self._rows)].view(np.uint8), axis=1, bitorder="little")
        return torch.from_numpy(bits[:, : self._vocabulary].astype(bool))

    def take(self, tokens: Sequence[int]) -> None:
        for matcher, token in zip(self._rows, tokens, strict=True):
            matcher.take(token)

    def keep(self, rows: Sequence[int]) -> None:
        self._rows = [self._rows[row] for row in rows]


class AnyText:
    """Every token but control tokens, and the stop."""

    def __init__(self, text: torch.Tensor) -> None:
        self._text = text

    def allowed(self) -> torch.Tensor:
        return self._text

    def take(self, tokens: Sequence[int]) -> None:
        pass

    def keep(self, rows: Sequence[int]) -> None:
        pass
