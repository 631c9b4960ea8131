"""Which tokens may come next: under a task's grammar, by llguidance, or in free text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from weitiao.errors import ModelError, first_line
from weitiao.families.tokenizer import TextTokenizer
from weitiao.types import Grammar

Bits = NDArray[np.int32]
"""[masks, words]: bit t % 32 of word t // 32 says whether token t is allowed."""
Asked = tuple[int, int, Sequence[int]]
"""(answer, first mask to fill, tokens that it may go on with): a mask for now, and one behind each of the tokens."""


@dataclass
class News:
    """What came next in answers, no stop among it."""

    rounds: Sequence[Sequence[tuple[int, int]]]
    """(answer, token) in order, of each answer once in a round."""
    ended: Sequence[int]
    """Answers of which nothing more is asked; what came last in them does not matter."""


class Guide(Protocol):
    """Which tokens may come next in each of many answers."""

    everywhere: Bits | None
    """The mask, where it is always the same."""

    def expect(self, answers: Iterable[int]) -> None:
        """These are asked for soon, the first ones first."""

    def fill(self, asked: Sequence[Asked], bits: Bits) -> None:
        """Write masks. Behind a token that is not allowed they are left as they are."""

    def take(self, news: News) -> None:
        """Go on in answers, and forget others."""

    def forced(self, answer: int) -> list[int]:
        """Tokens of the only text that can come next; the model may write it in other tokens."""


class GrammarCompiler:
    """Makes guides for one tokenizer. vocabulary: width of the model's logits; stop: id that ends an answer."""

    def __init__(self, tokenizer: TextTokenizer, vocabulary: int, stop: int) -> None:
        self._tokenizer, self.vocabulary, self.stop = tokenizer, vocabulary, stop
        self._reading = Lock()
        """Of the vocabulary, which takes a second and is done once, whichever thread comes first."""

    @cached_property
    def _vocabulary(self):  # type: ignore[no-untyped-def]
        from llguidance import LLTokenizer

        return LLTokenizer(self._tokenizer.spec(), n_vocab=self.vocabulary, eos_token=self.stop)

    @cached_property
    def _executor(self):  # type: ignore[no-untyped-def]
        """Threads that fill masks."""
        from llguidance import LLExecutor

        return LLExecutor()

    @cached_property
    def _makers(self) -> ThreadPoolExecutor:
        """Threads that compile grammars: each takes a millisecond or two, without Python's lock. Half of the cores are
        left to those that fill masks, and to the host's own work."""
        return ThreadPoolExecutor(max(2, (os.cpu_count() or 1) // 2))

    def guide(self, grammar: Callable[[int], Grammar]) -> Grammars:
        """grammar: of an answer; asked for by the threads that compile."""
        return Grammars(lambda answer: self._makers.submit(lambda: self._matcher(grammar(answer))), self._executor)

    def read_vocabulary(self) -> Any:
        """It is read, once; the first grammar would do it."""
        with self._reading:
            return self._vocabulary

    def _matcher(self, grammar: Grammar) -> Any:
        from llguidance import LLMatcher

        matcher = LLMatcher(self.read_vocabulary(), grammar.lark, log_level=0)
        if matcher.is_error():
            raise ModelError(f"the answer grammar cannot be compiled: {first_line(matcher.get_error())}")
        return matcher

    @cached_property
    def any_text(self) -> AnyText:
        text = np.zeros(-(-self.vocabulary // 32) * 32, dtype=np.uint8)
        text[: min(self.vocabulary, self._tokenizer.size)] = 1
        text[[id for id in self._tokenizer.controls.values() if id < self.vocabulary]] = 0
        text[self.stop] = 1
        return AnyText(np.packbits(text, bitorder="little").view(np.int32)[None])


class Grammars:
    everywhere: Bits | None = None

    def __init__(self, begin: Callable[[int], Future[Any]], executor: Any) -> None:
        """begin: starts to make the LLMatcher of an answer."""
        self._begin, self._executor = begin, executor
        self._coming: dict[int, Future[Any]] = {}
        self._matchers: dict[int, Any] = {}

    def expect(self, answers: Iterable[int]) -> None:
        for answer in answers:
            if answer not in self._coming and answer not in self._matchers:
                self._coming[answer] = self._begin(answer)

    def fill(self, asked: Sequence[Asked], bits: Bits) -> None:
        from llguidance.numpy import fill_next_token_bitmask_par, fill_next_token_bitmask_par_with_draft_tokens

        known = self._matchers
        if new := [answer for answer, _, _ in asked if answer not in known]:
            self.expect(new)
            for answer in new:
                known[answer] = self._coming.pop(answer).result()
        if short := [(known[answer], at) for answer, at, tokens in asked if not tokens]:
            fill_next_token_bitmask_par(self._executor, short, bits)
        if long := [(known[answer], at, list(tokens)) for answer, at, tokens in asked if tokens]:
            fill_next_token_bitmask_par_with_draft_tokens(self._executor, long, bits)

    def take(self, news: News) -> None:
        from llguidance.numpy import consume_token_par

        for told in news.rounds:
            # On all cores, without Python's lock.
            taken = consume_token_par(self._executor, [(self._matchers[answer], token) for answer, token in told])
            if not all(taken):
                answer, token = told[taken.index(False)]
                raise _refused(self._matchers[answer], token)
        for answer in news.ended:
            del self._matchers[answer]

    def forced(self, answer: int) -> list[int]:
        return list(self._matchers[answer].compute_ff_tokens())


class AnyText:
    """Every token but control tokens, and the stop."""

    def __init__(self, everywhere: Bits) -> None:
        self.everywhere: Bits | None = everywhere

    def expect(self, answers: Iterable[int]) -> None:
        """Nothing to do."""

    def fill(self, asked: Sequence[Asked], bits: Bits) -> None:
        """Nothing to do."""

    def take(self, news: News) -> None:
        """Nothing to do."""

    def forced(self, answer: int) -> list[int]:
        return []


def _refused(matcher: Any, token: int) -> Exception:
    """Why a matcher does not take what was chosen by its mask."""
    if matcher.is_error():
        # Its mask was empty; or, where it says so, nothing but the stop.
        why = first_line(matcher.get_error())
        return ModelError(f"an answer cannot go on: the tokenizer has no token for what its grammar asks next ({why})")
    return RuntimeError(f"token {token} is outside the grammar although its mask allowed it")


def words(vocabulary: int) -> int:
    """Of a mask."""
    return -(-vocabulary // 32)
