"""Points of measured runs: means, what test rows have in common, and the spread of seeds."""

from __future__ import annotations

import numpy as np
import pytest

from weitiao.curve.points import Measured, points
from weitiao.errors import ConfigError
from weitiao.metrics.classification import hits, share


def answers(right: float, seed: int, rows: int = 400) -> np.ndarray:
    return hits(np.random.default_rng(seed).random(rows) < right)


def test_one_number_of_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="two numbers of training rows or more, 1 was measured"):
        points([Measured(10, [answers(0.5, 0)])], share, 1.0, 0)


def test_errors_are_means_in_the_order_of_the_rows() -> None:
    more, few = [answers(0.9, 0)], [answers(0.5, 1), answers(0.6, 2)]
    found = points([Measured(100, more), Measured(10, few)], share, 1.0, 0)
    assert found.rows.tolist() == [10, 100]
    wanted = [1 - np.mean([c[:, 0].mean() for c in counts]) for counts in (few, more)]
    assert found.errors == pytest.approx(wanted)


def test_variance_of_a_share_is_that_of_a_proportion() -> None:
    found = points([Measured(10, [answers(0.5, 0)]), Measured(100, [answers(0.5, 1)])], share, 1.0, 0)
    assert np.sqrt(found.test[0, 0]) == pytest.approx(np.sqrt(0.25 / 400), rel=0.1)
    assert abs(found.test[0, 1]) < 0.3 * found.test[0, 0]


def test_runs_with_the_same_mistakes_share_their_uncertainty() -> None:
    same = answers(0.7, 0)
    found = points([Measured(10, [same]), Measured(100, [same])], share, 1.0, 0)
    assert found.test[0, 1] == pytest.approx(found.test[0, 0])


def test_seeds_that_differ_make_a_point_uncertain_and_more_of_them_less() -> None:
    few = [answers(p, seed) for seed, p in enumerate((0.4, 0.6, 0.5))]
    found = points([Measured(10, few), Measured(100, [answers(0.8, 9)])], share, 1.0, 0)
    assert found.seeds[0] > 0.1**2 / 6
    more = points([Measured(10, [*few, *few, *few]), Measured(100, [answers(0.8, 9)])], share, 1.0, 0)
    assert more.seeds[0] < found.seeds[0]


def test_one_run_each_borrows_the_test_rows_uncertainty() -> None:
    found = points([Measured(10, [answers(0.5, 0)]), Measured(100, [answers(0.6, 1)])], share, 1.0, 0)
    assert found.seeds == pytest.approx(np.diag(found.test))
