"""Probabilities of labels among several: those of all sets, as far as they are looked at."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weitiao.prediction import label_sets
from weitiao.prediction.label_sets import MOST, REST, LabelSets
from weitiao.types import Choice

Shares = Callable[[tuple[str, ...]], np.ndarray]
"""Labels taken → probability of ending there, then of each label that may follow."""
LABELS = tuple("abcdef")


def random_shares(seed: int, labels: tuple[str, ...], sharpness: float) -> Shares:
    def shares(taken: tuple[str, ...]) -> np.ndarray:
        left = labels[labels.index(taken[-1]) + 1 if taken else 0 :]
        rng = np.random.default_rng([seed, *map(labels.index, taken)])
        weights = np.exp(rng.normal(size=1 + len(left)) * sharpness)
        return np.asarray(weights / weights.sum())

    return shares


def walked(shares: Shares, labels: tuple[str, ...] = LABELS) -> LabelSets:
    sets = LabelSets(Choice(labels, many=True, nothing="none"))
    seen = []
    while not sets.done:
        seen.append(sets.taken)
        sets.look(shares(sets.taken))
    assert len(set(seen)) == len(seen) == sets.looks, "a beginning was looked at twice"
    return sets


def exact(shares: Shares, labels: tuple[str, ...] = LABELS) -> dict[str, float]:
    chances = dict.fromkeys(labels, 0.0)

    def go_on(taken: tuple[str, ...], mass: float) -> None:
        if taken and taken[-1] == labels[-1]:
            return
        left = labels[labels.index(taken[-1]) + 1 if taken else 0 :]
        for label, share in zip(left, shares(taken)[1:], strict=True):
            chances[label] += mass * float(share)
            go_on((*taken, label), mass * float(share))

    go_on((), 1.0)
    return chances


@given(st.integers(0, 10_000), st.floats(0, 8), st.integers(1, 6))
def test_never_too_high_and_too_low_by_what_was_not_looked_at(seed: int, sharpness: float, count: int) -> None:
    shares = random_shares(seed, LABELS[:count], sharpness)
    sets, wanted = walked(shares, LABELS[:count]), exact(shares, LABELS[:count])
    for label, chance in wanted.items():
        assert sets.chances[label] <= chance + 1e-12
        if sets.looks < MOST:
            assert sets.chances[label] >= chance - REST - 1e-12


@given(st.integers(0, 10_000))
def test_all_sets_are_looked_at_when_nothing_may_be_left(seed: int) -> None:
    shares = random_shares(seed, LABELS, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_sets, "REST", 0.0)
        patch.setattr(label_sets, "MOST", 1000)
        sets = walked(shares)
    assert sets.looks == 2 ** (len(LABELS) - 1), "behind the last label nothing is to be looked at"
    assert sets.chances == pytest.approx(exact(shares))


def test_a_sure_model_is_asked_once_for_each_label_and_to_end() -> None:
    def shares(taken: tuple[str, ...]) -> np.ndarray:
        left = LABELS[LABELS.index(taken[-1]) + 1 if taken else 0 :]
        coming = {"": "b", "b": "d"}.get(taken[-1] if taken else "")
        sure = np.array([coming is None, *(label == coming for label in left)])
        return np.where(sure, 0.99, 0.01 / len(left))

    sets = walked(shares)
    assert sets.looks == 3
    assert [label for label, chance in sets.chances.items() if chance > 0.5] == ["b", "d"]


def test_the_likeliest_way_is_walked_to_its_end_however_long() -> None:
    labels = tuple(f"{at:02}" for at in range(3 * MOST))

    def shares(taken: tuple[str, ...]) -> np.ndarray:
        left = len(labels) - (labels.index(taken[-1]) + 1 if taken else 0)
        return np.array([0.02, 0.97, *[0.01 / max(left - 1, 1)] * (left - 1)])[: 1 + left]

    sets = walked(shares, labels)
    assert sets.looks == len(labels) > MOST
    assert sets.chances[labels[-1]] > 0.97 ** len(labels)


def test_a_label_that_others_push_aside_at_each_step_is_found() -> None:
    """`b` is in half of the sets, though neither step makes it the likeliest way on."""
    table = {(): [0.3, 0.36, 0.34], ("a",): [0.55, 0.45]}
    sets = walked(lambda taken: np.array(table[taken]), ("a", "b"))
    assert sets.chances == pytest.approx({"a": 0.36, "b": 0.34 + 0.36 * 0.45})
    assert sets.chances["b"] > 0.5 > max(0.34, 0.45)


def test_chances_stay_chances() -> None:
    sets = walked(random_shares(3, LABELS, 0.0))
    assert all(0 <= chance <= 1 and math.isfinite(chance) for chance in sets.chances.values())
