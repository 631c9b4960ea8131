"""95 % intervals by the percentile bootstrap over rows.

A metric here is a statistic of sums over rows (such as hits, false alarms and misses), so a resample never touches
the rows again: it is a vector of weights times the matrix of the rows' counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[Any]
Statistic = Callable[[Counts], NDArray[np.float64]]
"""Summed counts [..., k] → values [...]; finite for every sum, those of rare resamples included."""

TAILS = (0.025, 0.975)
CELLS = 4_000_000
"""Most numbers in one chunk of weights or of sums (32 MB)."""


def bootstrap(
    per_row: Counts, statistic: Statistic, *, resamples: int, seed: int, times: Counts | None = None
) -> tuple[float, float, float]:
    """Value of a statistic on the rows, and the low and high end of its 95 % interval.

    per_row: [rows, k], what each row adds to the sums.
    times: [rows], how many data rows each row of `per_row` stands for. By default one, and equal rows are merged
        here: drawing n data rows with replacement is a multinomial draw over the distinct ones.

    The interval is the percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap (1993),
    chapter 13: the 2.5 % and 97.5 % quantiles of the statistic over resamples of as many rows. It is not centred:
    for a biased statistic (macro-F1 with rare labels) the value may lie near one end or even outside.
    Raises ValueError when there are no rows.
    """
    if len(per_row) == 0:
        raise ValueError("no rows to measure")
    if times is None:
        per_row, times = np.unique(per_row, axis=0, return_counts=True)
    counts = per_row.astype(np.float64)
    values = _resampled(counts, times, statistic, resamples, np.random.default_rng(seed))
    low, high = np.quantile(values, TAILS)
    return float(statistic(times @ counts)), float(low), float(high)


def with_interval(
    name: str, per_row: Counts, statistic: Statistic, *, resamples: int, seed: int, times: Counts | None = None
) -> dict[str, float]:
    """`bootstrap` as metrics: `{name: …, name_low: …, name_high: …}`."""
    found = bootstrap(per_row, statistic, resamples=resamples, seed=seed, times=times)
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def paired_difference(
    first: Counts, second: Counts, statistic: Statistic, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """`bootstrap` of statistic(first) − statistic(second), two systems' counts [rows, k] on the same rows.

    Both are resampled together, so what makes a row hard for both cancels. Raises ValueError when the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"two systems need counts of the same rows, found shapes {first.shape} and {second.shape}")
    k = first.shape[1]
    return bootstrap(
        np.hstack([first, second]),
        lambda c: statistic(c[..., :k]) - statistic(c[..., k:]),
        resamples=resamples,
        seed=seed,
    )


def _resampled(
    counts: Counts, times: Counts, statistic: Statistic, resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The statistic of each resample, [resamples]. The chunk size does not change the draws."""
    rows = int(times.sum())
    chunk = max(1, CELLS // max(counts.shape))
    sizes = [min(chunk, resamples - done) for done in range(0, resamples, chunk)]
    draws = (rng.multinomial(rows, times / rows, size=size) for size in sizes)
    return np.concatenate([statistic(weights @ counts) for weights in draws])
