"""What is kept of many answers at once is what taking one token after another gives."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weitiao.prediction import slot_state
from weitiao.prediction.slot_state import Answers, Step

STOP = 0
LOOK = 4
CHANCES = np.float32([-0.25, -0.5, -0.75])


def spent(answer: int, ids: list[int]) -> bool:
    return ids.count(1) > 2 + answer % 3


class OneByOne:
    """The same in plain words."""

    def __init__(self, answer: int, budget: int) -> None:
        self.answer, self.budget = answer, budget
        self.ids: list[int] = []
        self.chances: list[float] = []
        self.stop = 0.0
        self.ended = self.complete = False

    def take(self, token: int, chance: float) -> None:
        if token == STOP:
            self.ended, self.complete, self.stop = True, True, chance
        elif len(self.ids) == self.budget:
            self.ended = True
        else:
            self.ids.append(token)
            self.chances.append(chance)
            self.ended = len(self.ids) % LOOK == 0 and spent(self.answer, self.ids)


@given(drawn=st.data(), count=st.integers(1, 5), budget=st.integers(1, 12))
def test_many_tokens_of_many_answers(drawn: Any, count: int, budget: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slot_state, "LOOK", LOOK)
        ours, plain = Answers(count, STOP, budget, spent), [OneByOne(at, budget) for at in range(count)]
        told: list[list[int]] = [[] for _ in range(count)]
        while open_ := [one.answer for one in plain if not one.ended]:
            some = drawn.draw(st.lists(st.sampled_from(open_), min_size=1, unique=True))
            width = drawn.draw(st.integers(1, 6))
            tokens = np.array([drawn.draw(st.lists(st.integers(0, 3), min_size=width, max_size=width)) for _ in some])
            chances = CHANCES[tokens % 3]
            given = np.array([drawn.draw(st.integers(1, width)) for _ in some])
            news = ours.take(np.array(some), tokens, chances, given)
            for answer, row, each, number in zip(some, tokens.tolist(), chances.tolist(), given.tolist(), strict=True):
                for token, chance in zip(row[:number], each[:number], strict=True):
                    if not plain[answer].ended:
                        plain[answer].take(token, chance)
            assert sorted(news.ended) == sorted(answer for answer in some if plain[answer].ended)
            for turn in news.rounds:
                assert turn, "llguidance wants some in each round"
                assert len(dict(turn)) == len(turn)
                for answer, token in turn:
                    told[answer].append(token)
            for one in plain:
                assert ours.ended[one.answer] == one.ended
                assert ours.ids(one.answer) == one.ids
                if not one.ended:
                    assert told[one.answer] == one.ids
                    assert not one.ids or ours.last(np.array([one.answer])).tolist() == one.ids[-1:]
        for one in plain:
            found = ours.decoded(one.answer)
            assert (found.ids, found.complete, found.chances) == (one.ids, one.complete, one.chances)
            if one.complete:
                assert found.log_probability == sum(one.chances) + one.stop


@given(drawn=st.data(), count=st.integers(1, 4), width=st.integers(1, 5))
def test_a_token_belongs_to_an_answer_behind_right_guesses(drawn: Any, count: int, width: int) -> None:
    def some() -> np.ndarray:
        row = st.lists(st.integers(0, 1), min_size=width, max_size=width)
        return np.array(drawn.draw(st.lists(row, min_size=count, max_size=count)))

    waiting, tokens = some(), some()
    counts = np.array(drawn.draw(st.lists(st.integers(1, width), min_size=count, max_size=count)))
    rows = np.arange(count)
    step = Step(rows, rows, waiting, counts, torch.empty(0), None, 0, Future())
    for row, found in enumerate(step.right(tokens).tolist()):
        wanted = 1
        while wanted < counts[row] and waiting[row, wanted] == tokens[row, wanted - 1]:
            wanted += 1
        assert found == wanted
