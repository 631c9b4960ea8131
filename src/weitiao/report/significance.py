"""Whether two systems differ on the same rows by more than chance.

    right or wrong    McNemar's exact test on the rows that only one system has right: how often a fair coin would split
                      them at least as unevenly (McNemar 1947, Psychometrika 12; the exact form is a sign test)
    F1 of counts      approximate randomization: the two answers of each row change places at random, and p is the share
                      of such shuffles whose difference is at least as large as the one found, the found one counted
                      among them (Noreen 1989, Computer-Intensive Methods for Testing Hypotheses; Yeh 2000, More
                      accurate tests for the statistical significance of result differences)

Both are two-sided and ask whether the systems could change places; the interval of the difference comes from the
bootstrap beside it (`metrics/intervals.py`).
"""

from __future__ import annotations

import numpy as np

from weitiao.metrics.intervals import Counts, Statistic

SHUFFLES = 10_000
CHUNK = 1_000
"""Shuffles that are drawn at a time."""


def mcnemar(first_only: int, second_only: int) -> float:
    """p from the numbers of rows that only the first, and only the second system has right; 1.0 when there are none."""
    from scipy.stats import binomtest  # takes a second to import

    rows = first_only + second_only
    return float(binomtest(first_only, rows, 0.5).pvalue) if rows else 1.0


def randomization(first: Counts, second: Counts, statistic: Statistic, *, seed: int) -> float:
    """p from both systems' counts [rows, k], see `Task.counts`. Rows that change the sums alike are drawn together."""
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    moves, times = np.unique(difference[difference.any(axis=1)], axis=0, return_counts=True)
    sums = first.sum(axis=0).astype(np.float64), second.sum(axis=0).astype(np.float64)
    found = abs(float(statistic(sums[0]) - statistic(sums[1])))
    if not len(moves):
        return 1.0
    rng = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, SHUFFLES, CHUNK):
        moved = rng.binomial(times, 0.5, size=(min(CHUNK, SHUFFLES - start), len(times))) @ moves
        gaps = np.abs(statistic(sums[0] - moved) - statistic(sums[1] + moved))
        # The same sums in another order may differ by rounding.
        as_large += int((gaps >= found - 1e-12).sum())
    return (as_large + 1) / (SHUFFLES + 1)
