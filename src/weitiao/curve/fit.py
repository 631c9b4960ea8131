"""Learning curves: error(n) = a + b · (n + d)^(−c) through a few points, and how sure one may be beyond the last.

With d = 0 this is the form of Cortes et al. 1993, "Learning Curves: Asymptotic Values and Rate of Convergence" (a: what
no number of rows removes), found again for deep networks by Hestness et al. 2017, "Deep Learning Scaling is
Predictable, Empirically". Hestness et al. also see a "small data region" where a model still guesses and the error
hardly falls; from points that reach into it the plain form expects too little of more rows, so late starts, d > 0, are
considered besides. a ≥ 0, b ≥ 0, 0 < c ≤ 2, d ≥ 0.

Given c and d it is a line in (n + d)^(−c), so a and b follow by least squares, weighted by the inverse of the points'
covariance; c and d are tried on a grid. Few points hardly say what they are, so no single shape is believed: a draw
takes a shape by its prior times the likelihood of its best line, moves the points by their own covariance, and fits the
line again (a parametric bootstrap). The intervals are quantiles of these draws, 90 %. What they hold on held-back rows
is in docs/curve.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

RATES = tuple(np.linspace(0.05, 2, 40).tolist())
"""Values of c, all as likely before the points are seen."""
DELAYS = {0.0: 0.4, 0.1: 0.15, 0.3: 0.15, 1.0: 0.15, 3.0: 0.15}
"""Values of d, as shares of the last point's rows, and how likely they are before the points are seen."""
SHAPES = tuple(product(RATES, DELAYS))
DRAWS = 4000
TAILS = (0.05, 0.95)
Z = 1.6449
"""Standard deviations on each side of a 90 % interval of a normal distribution; one-sided, of a test at 5 %."""
TINY = 1e-10
"""Variance of a point where nothing else makes it uncertain."""
OFF = 0.03
"""How far, relative to the error, points of real curves lie off the form; as if each had that much more noise."""
BEYOND = 0.04
"""The same for each doubling beyond the last point, as a standard deviation of the error's logarithm."""


@dataclass(frozen=True)
class Points:
    """Errors at several numbers of rows, the fewest first."""

    rows: Numbers
    errors: Numbers
    test: Numbers
    """Covariance [points, points] by the choice of the test rows, which all points share."""
    seeds: Numbers
    """Variance of each point by the choice of subset, order and initialisation."""
    run: float
    """Variance of one more run on the last point's rows by the same."""

    @property
    def covariance(self) -> Numbers:
        return np.asarray(self.test + np.diag(self.seeds + TINY))


@dataclass(frozen=True)
class Curve:
    """error(n) = a + b · (n + d)^(−c)."""

    a: float
    b: float
    c: float
    d: float

    def at(self, rows: Numbers) -> Numbers:
        return self.a + self.b * (rows + self.d) ** -self.c


def best(points: Points) -> Curve:
    """The likeliest curve."""
    whitened = _Whitened(points)
    c, d = SHAPES[int(np.argmax(whitened.chances()))]
    a, b = whitened.lines((c, d), points.errors[None])[0]
    last = float(points.rows[-1])
    return Curve(float(a), float(b) * last**c, c, d * last)


def falls(points: Points) -> bool:
    """Whether the error falls with more rows by more than chance: the slope of a weighted line over log n is negative
    at 5 %, one-sided; its variance is that of the points, with what the test rows have in common."""
    total = points.covariance
    weights = 1 / np.diag(total)
    x = np.log(points.rows)
    x = weights * (x - np.average(x, weights=weights))
    slope, deviation = float(x @ points.errors), float(np.sqrt(x @ total @ x))
    return slope < -Z * deviation


def errors_at(points: Points, rows: Sequence[float], seed: int) -> Numbers:
    """Draws [DRAWS, rows] of the error of one run on so many training rows and on other test rows of the same kind."""
    rng = np.random.default_rng(seed)
    whitened = _Whitened(points)
    chosen = rng.choice(len(SHAPES), DRAWS, p=whitened.chances())
    moved = points.errors + rng.standard_normal((DRAWS, len(points.rows))) @ whitened.root.T
    drawn = np.empty((DRAWS, len(rows)))
    x = np.asarray(rows, dtype=float) / points.rows[-1]
    for place in np.unique(chosen):
        (c, d), of_place = SHAPES[place], chosen == place
        lines = whitened.lines((c, d), moved[of_place])
        drawn[of_place] = lines[:, :1] + lines[:, 1:] * (x + d) ** -c
    drawn *= np.exp(rng.standard_normal((DRAWS, 1)) * BEYOND * np.maximum(np.log2(x), 0))
    return drawn + rng.standard_normal((DRAWS, 1)) * np.sqrt(points.run)


def interval(drawn: Numbers, points: Points) -> tuple[Numbers, Numbers, Numbers]:
    """(middle, low, high) of each column of draws; no narrower than what the choice of the test rows alone leaves open
    at the last point."""
    low, middle, high = np.quantile(drawn, (TAILS[0], 0.5, TAILS[1]), axis=0)
    least = Z * float(np.sqrt(points.test[-1, -1]))
    return middle, np.minimum(low, middle - least), np.maximum(high, middle + least)


class _Whitened:
    """Points over the root of their covariance, so that plain least squares are weighted ones. Rows are shares of the
    last point's, which keeps the numbers small.

    Points that lie further from every curve than their covariance explains are less certain than it says; it is then
    scaled up by the squares per degree of freedom (Birge 1932, "The Calculation of Errors by the Method of Least
    Squares").
    """

    def __init__(self, points: Points) -> None:
        own = np.diag(np.square(OFF * points.errors))
        self.root = np.asarray(np.linalg.cholesky(points.covariance + own))
        self.errors, self.x = points.errors, points.rows / points.rows[-1]
        least = min(map(self.loss, SHAPES))
        self.root *= np.sqrt(max(1.0, least / max(1, len(self.x) - 2)))

    def chances(self) -> Numbers:
        """How likely each of `SHAPES` is, given the points."""
        losses = np.array([self.loss(shape) for shape in SHAPES])
        found = np.array([DELAYS[d] for _, d in SHAPES]) * np.exp(-(losses - losses.min()) / 2)
        return found / found.sum()

    def loss(self, shape: tuple[float, float]) -> float:
        """Weighted squares of the best line of a shape (c, d)."""
        off = self.errors - self._columns(shape) @ self.lines(shape, self.errors[None])[0]
        return float(np.square(np.linalg.solve(self.root, off)).sum())

    def lines(self, shape: tuple[float, float], errors: Numbers) -> Numbers:
        """(a, b) of each of `errors` [draws, points], neither of them negative."""
        x, y = np.linalg.solve(self.root, self._columns(shape)), np.linalg.solve(self.root, errors.T).T
        products, sides = x.T @ x, y @ x
        both = np.linalg.solve(products, sides.T).T
        alone = np.maximum(sides / np.diag(products), 0)
        # What a line through one of the two alone takes off the squares.
        gains = alone * (2 * sides - alone * np.diag(products))
        one = np.where(gains[:, :1] >= gains[:, 1:], alone * [1, 0], alone * [0, 1])
        return np.where((both >= 0).all(axis=1, keepdims=True), both, one)

    def _columns(self, shape: tuple[float, float]) -> Numbers:
        c, d = shape
        return np.column_stack([np.ones(len(self.x)), (self.x + d) ** -c])
