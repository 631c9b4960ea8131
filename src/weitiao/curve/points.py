"""Measured runs as points of a learning curve, each with what is uncertain about it.

Two things make a point uncertain. The test rows are few: they are drawn again with replacement, the same draw for all
runs, so that what a hard draw does to all points is known as common (`Points.test`). And another subset, order or
initialisation would have given another model: that is the spread of a share's seeds (`Points.seeds`). A spread of two
or three runs says little, so the shares' variances lean on their pool, which counts as so many runs more (`LEAN`;
Smyth 2004, "Linear models and empirical Bayes methods", section 3). With more rows runs differ less: a variance is
taken to fall with them (`FALL`). The two uncertainties are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weitiao.curve.fit import Numbers, Points
from weitiao.errors import ConfigError
from weitiao.metrics.intervals import Counts, Statistic

LEAN = 3
FALL = 1.0
"""The exponent. Subsets that a dictionary or TF-IDF learns from make its score vary so (`bench/curve_held_back.py`)."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Measured:
    """Runs on one number of training rows, one for each seed."""

    rows: int
    counts: Sequence[Counts]
    """Of each run: what each test row adds to the metric, see `Task.counts`."""


def points(measured: Sequence[Measured], statistic: Statistic, top: float, seed: int) -> Points:
    """top: the best that the metric can be; the error is what is missing to it.

    Raises ConfigError where there are fewer than two numbers of rows: one point is no curve.
    """
    found = sorted(measured, key=lambda m: m.rows)
    if len(found) < 2:
        raise ConfigError(f"a curve needs two numbers of training rows or more, {len(found)} was measured")
    runs = [np.array([float(statistic(counts.sum(axis=0))) for counts in m.counts]) for m in found]
    rows = np.array([m.rows for m in found], dtype=float)
    test = _test_covariance(found, statistic, seed)
    spread = _spread(runs, rows)
    if spread is None:  # one run each says nothing of it; such as the test rows' own is not rare
        spread = np.diag(test)
    return Points(
        rows=rows,
        errors=top - np.array([r.mean() for r in runs]),
        test=test,
        seeds=spread / [len(r) for r in runs],
        run=float(spread[-1]),
    )


def _spread(runs: Sequence[Numbers], rows: Numbers) -> Numbers | None:
    """Variance of a run at each number of rows; None where there is one run each."""
    scale = (rows / rows[-1]) ** -FALL
    squares = np.array([np.square(r - r.mean()).sum() for r in runs])
    free = np.array([len(r) - 1 for r in runs])
    if not free.sum():
        return None
    pool = float((squares / scale).sum() / free.sum())
    return np.asarray((LEAN * pool * scale + squares) / (LEAN + free))


def _test_covariance(measured: Sequence[Measured], statistic: Statistic, seed: int) -> Numbers:
    """Covariance of the points' mean scores over draws of the test rows."""
    rng = np.random.default_rng(seed)
    rows = len(measured[0].counts[0])
    weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    scores = [np.mean([statistic(weights @ counts) for counts in m.counts], axis=0) for m in measured]
    return np.atleast_2d(np.cov(scores))
