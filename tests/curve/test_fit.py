"""The fit: known curves are found within their interval, flat ones are called flat, and few points make it wide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.curve.fit import Curve, Points, Z, best, errors_at, falls, interval

ROWS = np.array([100.0, 250.0, 500.0, 1000.0])
CASES = 60


def noisy(curve: Curve, deviation: float, seed: int, rows: np.ndarray = ROWS) -> Points:
    """Points of a curve: half of their variance is of the test rows, which they share, half is their own."""
    rng = np.random.default_rng(seed)
    half = deviation**2 / 2
    errors = curve.at(rows) + rng.normal(0, half**0.5) + rng.normal(0, half**0.5, len(rows))
    return Points(rows, errors, np.full((len(rows), len(rows)), half), np.full(len(rows), half), 0.0)


def share_within(curve: Curve, times: int, deviation: float = 0.01) -> float:
    truth = curve.at(np.array([1000.0 * times]))[0]
    found = []
    for seed in range(CASES):
        points = noisy(curve, deviation, seed)
        _, (low,), (high,) = interval(errors_at(points, [1000 * times], seed), points)
        found.append(low <= truth <= high)
    return float(np.mean(found))


@pytest.mark.parametrize("times", [2, 4])
@pytest.mark.parametrize(
    "curve",
    [
        Curve(0.0, 2.0, 0.3, 0.0),
        Curve(0.1, 3.0, 0.5, 0.0),
        Curve(0.05, 20.0, 1.0, 0.0),
        Curve(0.0, 4.0, 0.35, 300.0),
        Curve(0.2, 0.0, 1.0, 0.0),
    ],
    ids=str,
)
def test_a_known_curve_lies_within_its_interval(curve: Curve, times: int) -> None:
    assert share_within(curve, times) >= 0.85


def test_exact_points_give_their_curve() -> None:
    curve = Curve(0.1, 3.0, 0.5, 0.0)
    points = Points(ROWS, curve.at(ROWS), np.zeros((4, 4)), np.full(4, 1e-8), 0.0)
    assert best(points).at(np.array([2000.0])) == pytest.approx(curve.at(np.array([2000.0])), abs=0.005)


def test_flat_points_do_not_fall() -> None:
    said = [falls(noisy(Curve(0.3, 0.0, 1.0, 0.0), 0.02, seed)) for seed in range(200)]
    assert np.mean(said) <= 0.09  # 5 %, and what 200 cases leave open


def test_steep_points_fall() -> None:
    assert all(falls(noisy(Curve(0.0, 2.0, 0.3, 0.0), 0.02, seed)) for seed in range(50))


def test_noise_that_all_points_share_hides_no_fall() -> None:
    errors = np.array([0.33, 0.32, 0.31, 0.30])
    shared = Points(ROWS, errors, np.full((4, 4), 0.03**2), np.full(4, 1e-6), 0.0)
    apart = Points(ROWS, errors, np.eye(4) * 0.03**2, np.full(4, 1e-6), 0.0)
    assert falls(shared)
    assert not falls(apart)


@settings(max_examples=30)
@given(
    errors=st.lists(st.floats(0, 1), min_size=2, max_size=6),
    deviation=st.floats(0, 0.2),
    seed=st.integers(0, 5),
)
def test_any_points_give_an_interval_no_narrower_than_that_of_the_test_rows(
    errors: list[float], deviation: float, seed: int
) -> None:
    m = len(errors)
    points = Points(np.geomspace(10, 1000, m), np.array(errors), np.full((m, m), deviation**2), np.zeros(m), 0.0)
    middle, low, high = interval(errors_at(points, [1000, 2000, 4000], seed), points)
    assert np.isfinite([middle, low, high]).all()
    assert (high - middle >= Z * deviation - 1e-9).all()
    assert (middle - low >= Z * deviation - 1e-9).all()


def test_more_points_narrow_the_interval() -> None:
    def width(rows: np.ndarray) -> float:
        points = noisy(Curve(0.1, 3.0, 0.5, 0.0), 0.005, 0, rows)
        _, low, high = interval(errors_at(points, [4000], 0), points)
        return float(high[0] - low[0])

    assert width(np.array([500.0, 1000.0])) > width(np.array([100.0, 250.0, 500.0, 1000.0]))


def test_the_same_seed_gives_the_same_draws() -> None:
    points = noisy(Curve(0.1, 3.0, 0.5, 0.0), 0.01, 0)
    assert (errors_at(points, [2000], 1) == errors_at(points, [2000], 1)).all()
    assert not (errors_at(points, [2000], 1) == errors_at(points, [2000], 2)).all()
