"""`--decoding greedy`: bound to its first choice, by hand and by a property."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weitiao.errors import ConfigError
from weitiao.prediction.greedy import greedy, refuse_decoding
from weitiao.tasks.base import Task
from weitiao.tasks.classification import Classification, ClassificationOptions
from weitiao.tasks.ner import Ner, NerOptions

STOP = 9
Table = Mapping[tuple[int, ...], Mapping[int, float]]
"""Tokens written → probability of each token behind them."""


def steps_of(paths: list[tuple[int, ...]], table: Table) -> list[np.ndarray]:
    return [np.log([table[path[:at]][token] for at, token in enumerate(path)]) for path in paths]


def test_the_example_of_the_docstring() -> None:
    """Real, Real estate, Sport."""
    paths = [(1, STOP), (1, 2, STOP), (3, STOP)]
    table = {(): {1: 0.6, 3: 0.4}, (1,): {STOP: 0.3, 2: 0.4}, (1, 2): {STOP: 1.0}, (3,): {STOP: 1.0}}
    steps = steps_of(paths, table)
    assert greedy(paths, steps) == 1
    assert int(np.argmax([step.sum() for step in steps])) == 2


def test_the_stop_is_a_token_as_any() -> None:
    paths = [(1, 2, STOP), (1, STOP)]
    table = {(): {1: 1.0}, (1,): {STOP: 0.6, 2: 0.4}, (1, 2): {STOP: 1.0}}
    assert greedy(paths, steps_of(paths, table)) == 1
    table[1,] = {STOP: 0.4, 2: 0.6}
    assert greedy(paths, steps_of(paths, table)) == 0


def test_labels_of_the_same_tokens_are_the_first() -> None:
    assert greedy([(1, STOP), (1, STOP)], [np.zeros(2), np.zeros(2)]) == 0


@given(st.integers(0, 10_000), st.sets(st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple), min_size=1))
def test_as_written_token_by_token(seed: int, labels: set[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(seed)
    paths = [(*label, STOP) for label in sorted(labels)]
    table: dict[tuple[int, ...], dict[int, float]] = {}
    for path in paths:
        for at, token in enumerate(path):
            table.setdefault(path[:at], {}).setdefault(token, float(rng.random()))
    written: tuple[int, ...] = ()
    while written not in paths:
        written = (*written, max(table[written], key=lambda token: table[written][token]))
    assert paths[greedy(paths, steps_of(paths, table))] == written


@pytest.mark.parametrize(
    ("task", "decoding", "told"),
    [
        (Classification(ClassificationOptions()), "greddy", "decoding 'greddy': no such way; did you mean 'greedy'?"),
        (Classification(ClassificationOptions()), "5", "decoding '5': no such way; choices: exact, greedy"),
        (Classification(ClassificationOptions(multi_label=True)), "greedy", "several labels are chosen by"),
        (Ner(NerOptions(types=["a"])), "greedy", r"one label of a list \(ner: its answers always are\); leave it out"),
    ],
)
def test_what_a_task_does_not_have(task: Task, decoding: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")):
        refuse_decoding(task, decoding)


@pytest.mark.parametrize("decoding", ["exact", "greedy"])
def test_what_it_has(decoding: Any) -> None:
    refuse_decoding(Classification(ClassificationOptions()), decoding)
