"""What the probabilities of a run's answers are worth: reliability by bins, and accuracy against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weitiao.metrics.classification import BINS
from weitiao.prediction.calibration import with_temperature
from weitiao.report.run import Answered, Run
from weitiao.types import Prediction

LEAST = 1e-12
"""As in `metrics.classification.calibration`, probabilities keep this distance from 0 and 1."""
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Bin:
    """Answers whose probability lies in (low, high]."""

    low: float
    high: float
    count: int
    probability: float
    """Their mean."""
    accuracy: float


@dataclass(frozen=True)
class Point:
    """What is left when answers of a lower probability than `threshold` are withheld."""

    threshold: float
    given: int
    """Rows that are answered."""
    coverage: float
    """Their share of all rows."""
    accuracy: float
    """The share of them that is right."""


def calibrated(run: Run) -> list[tuple[float, bool]]:
    """(probability, right) of the answers that have a probability."""
    return [(row.probability, row.right) for row in run.rows if row.probability is not None]


def uncalibrated(run: Run) -> list[tuple[float, bool]] | None:
    """The same without the temperature; None where `predictions.jsonl` does not tell.

    It keeps the probability of the answer alone. That is enough where the rest belongs to one other label, or to the
    complement of a whole answer, but not where it is shared by several labels.
    """
    if not all(_told_by_one(row) for row in run.rows):
        return None
    raw = [
        with_temperature(Prediction(("",), probability=row.probability), 1 / run.temperature)
        for row in run.rows
        if row.probability is not None
    ]
    return [(p.probability or 0.0, right) for p, (_, right) in zip(raw, calibrated(run), strict=True)]


def bins(pairs: Sequence[tuple[float, bool]]) -> list[Bin]:
    """The bins of the expected calibration error that hold an answer (`metrics.classification.calibration`)."""
    p, hit = _arrays(pairs)
    place = np.ceil(p * BINS).astype(int)
    return [
        Bin((i - 1) / BINS, i / BINS, int(inside.sum()), float(p[inside].mean()), float(hit[inside].mean()))
        for i in sorted(set(place.tolist()))
        for inside in [place == i]
    ]


def coverage(pairs: Sequence[tuple[float, bool]], rows: int) -> list[Point]:
    """One point for each probability that occurs, the highest first. rows: all, those without probability too."""
    p, hit = _arrays(sorted(pairs, key=lambda pair: -pair[0]), keep=0.0)
    last_of_its_kind = np.append(p[1:] != p[:-1], True) if len(p) else np.array([], dtype=bool)
    given = np.flatnonzero(last_of_its_kind) + 1
    right = np.cumsum(hit)
    return [Point(float(p[n - 1]), n, n / rows, float(right[n - 1] / n)) for n in given.tolist()]


def at_thresholds(pairs: Sequence[tuple[float, bool]], rows: int) -> list[Point]:
    """What is answered, and how much of it is right, at round thresholds; the first withholds nothing."""
    points: list[Point] = []
    for threshold in (0.0, *THRESHOLDS):
        given = [right for p, right in pairs if p >= threshold]
        if given and (not points or len(given) != points[-1].given):
            points.append(Point(threshold, len(given), len(given) / rows, sum(given) / len(given)))
    return points


def _arrays(
    pairs: Sequence[tuple[float, bool]], keep: float = LEAST
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return np.clip(table[:, 0], keep, 1 - keep), table[:, 1]


def _told_by_one(row: Answered) -> bool:
    options = getattr(row.example, "options", ())
    return not isinstance(row.answer, str) or len(options) == 2
