"""Metrics of classification with one label or several, and the F1 scores that named entities share.

Counts are true positives, false positives and false negatives, last axis in this order. Conventions:

    0/0                 0.0, for precision, recall and F1 alike; no metric is ever NaN
    macro-F1            mean over those labels of the set that occur in a reference or an answer; equal to
                        scikit-learn's f1_score(labels=labels, average="macro", zero_division=nan)
    an invalid answer   None, or a label outside the set: wrong, a miss of its reference and no false positive
    intervals           `<name>_low` and `<name>_high`, see `intervals.bootstrap`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.metrics.intervals import Counts, with_interval

BINS = 15
"""Equal-width bins of the calibration error, as in Guo et al. 2017."""
MOST_IN_CONFUSION = 50
"""Labels that a confusion matrix may have; a larger one is no longer read."""


def measure_single(
    predicted: Sequence[str | None],
    reference: Sequence[str],
    labels: Sequence[str] | None,
    probabilities: Sequence[float | None] | None,
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """One label a row: accuracy (with interval), macro_f1 (with interval), invalid, rows, per_class, confusion.

    labels: the label set; None: what occurs in references and answers (rows with options of their own).
    probabilities: of each answer; adds `ece` and `nll`, see `calibration`.
    bootstrap: resamples of the rows.
    `confusion.counts[i][j]`: rows of label i that were answered j; invalid answers are in no column. At most 50 labels.
    Raises ValueError when there are no rows, lengths differ or a reference is outside the label set.
    """
    _check_lengths(predicted, reference)
    names = _label_set(labels, reference, (p for p in predicted if p is not None))
    place = {name: i for i, name in enumerate(names)}
    told = np.array([place.get(p, -1) if p is not None else -1 for p in predicted])
    wanted = np.array([place[r] for r in reference])
    right = told == wanted
    pairs, times = np.unique(np.column_stack([wanted, told]), axis=0, return_counts=True)
    counts = _counts_of_pairs(pairs, len(names))
    return {
        **with_interval("accuracy", hits(right), share, resamples=bootstrap, seed=seed),
        **with_interval("macro_f1", counts, macro_f1, resamples=bootstrap, seed=seed, times=times),
        "invalid": float(np.mean(told < 0)),
        "rows": len(reference),
        **calibration(probabilities, right),
        "per_class": by_class(names, times @ counts),
        **_confusion(names, pairs, times),
    }


def measure_multi(
    predicted: Sequence[Sequence[str] | None],
    reference: Sequence[Sequence[str]],
    labels: Sequence[str] | None,
    probabilities: Sequence[float | None] | None,
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Any number of labels a row, as sets: micro_f1, macro_f1, exact_match (each with interval), precision and recall
    (micro), hamming, invalid, rows, per_class.

    labels: the label set; None: what occurs in references and answers.
    probabilities: of each whole answer; adds `ece` and `nll` of the exact matches, see `calibration`.
    `hamming`: Hamming loss, the share of (row, label) decisions that are wrong; lower is better.
    `exact_match`: share of rows whose whole set is right. An invalid answer is never right, not even where the
    reference is empty; in all other metrics it counts as the empty set.
    Raises ValueError when there are no rows, lengths differ or a reference is outside the label set.
    """
    _check_lengths(predicted, reference)
    flat = [label for answer in reference for label in answer]
    names = _label_set(labels, flat, (label for answer in predicted for label in answer or ()))
    known = set(names)
    valid = np.array([p is not None and known.issuperset(p) for p in predicted])
    told = _indicators([p if p and ok else () for p, ok in zip(predicted, valid, strict=True)], names)
    wanted = _indicators(reference, names)
    counts = np.stack([told & wanted, told & ~wanted, ~told & wanted], axis=-1).astype(np.int8)
    by_label, together = counts.reshape(len(reference), -1), counts.sum(axis=1)
    exact = valid & (told == wanted).all(axis=1)
    return {
        **with_interval("micro_f1", together, f1, resamples=bootstrap, seed=seed),
        **with_interval("macro_f1", by_label, macro_f1, resamples=bootstrap, seed=seed),
        **with_interval("exact_match", hits(exact), share, resamples=bootstrap, seed=seed),
        **precision_recall(together.sum(axis=0)),
        "hamming": float(np.mean(told != wanted)) if names else 0.0,
        "invalid": float(np.mean(~valid)),
        "rows": len(reference),
        **calibration(probabilities, exact),
        "per_class": by_class(names, by_label.sum(axis=0)),
    }


def hits(right: Sequence[bool] | NDArray[np.bool_]) -> Counts:
    """What each row adds to the hits and to the rows, for `share`: [rows, 2]."""
    return np.column_stack([right, np.ones(len(right), dtype=bool)])


def share(counts: Counts) -> NDArray[np.float64]:
    """Hits / rows of counts [..., 2] → [...]; 0.0 for 0/0."""
    return ratio(counts[..., 0], counts[..., 1])


def set_counts(predicted: Sequence[Sequence[str] | None], reference: Sequence[Sequence[str]]) -> Counts:
    """True positives, false positives and misses of each row's labels as sets, [rows, 3]."""
    rows = [(set(told or ()), set(wanted)) for told, wanted in zip(predicted, reference, strict=True)]
    return np.array([[len(told & wanted), len(told - wanted), len(wanted - told)] for told, wanted in rows])


def f1(counts: Counts) -> NDArray[np.float64]:
    """2·tp / (2·tp + fp + fn) of counts [..., 3] → [...]; 0.0 for 0/0."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return ratio(2 * tp, 2 * tp + fp + fn)


def macro_f1(counts: Counts) -> NDArray[np.float64]:
    """Mean F1 of the labels whose counts are not all zero, [..., labels · 3] → [...]; 0.0 when there are none."""
    each = counts.reshape(*counts.shape[:-1], -1, 3)
    return ratio(f1(each).sum(axis=-1), each.any(axis=-1).sum(axis=-1))


def precision_recall(counts: Counts) -> dict[str, float]:
    """tp / (tp + fp) and tp / (tp + fn) of counts [3]."""
    tp, fp, fn = counts
    return {"precision": float(ratio(tp, tp + fp)), "recall": float(ratio(tp, tp + fn))}


def by_class(names: Sequence[str], counts: Counts) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support (occurrences in the references) of each label; counts [labels · 3]."""
    return {
        name: {**precision_recall(row), "f1": float(f1(row)), "support": int(row[0] + row[2])}
        for name, row in zip(names, counts.reshape(-1, 3), strict=True)
    }


def calibration(probabilities: Sequence[float | None] | None, right: NDArray[np.bool_]) -> dict[str, float]:
    """How far the probabilities of the answers can be believed; empty when there are none.

    `ece`: expected calibration error, Σ |B|/n · |accuracy(B) − mean probability(B)| over 15 bins B of equal width,
    closed on the right (Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3).
    `nll`: mean of −ln p of right answers and −ln(1 − p) of wrong ones, in nats; p is kept 1e-12 away from 0 and 1.
    Rows whose probability is None are left out. Raises ValueError when a probability is NaN.
    """
    given = np.array([p is not None for p in probabilities or ()], dtype=bool)
    if not given.any():
        return {}
    p = np.clip([p for p in probabilities or () if p is not None], 1e-12, 1 - 1e-12)
    if np.isnan(p).any():
        raise ValueError("a probability is NaN")
    hit = right[given].astype(np.float64)
    bins = np.ceil(p * BINS).astype(int)
    gaps = np.abs(np.bincount(bins, hit - p))
    likelihood = np.log(np.where(hit == 1, p, 1 - p))
    return {"ece": float(gaps.sum() / len(p)), "nll": float(-likelihood.mean())}


def ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """part / whole elementwise, 0.0 for 0/0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole != 0))


def _check_lengths(predicted: Sequence[Any], reference: Sequence[Any]) -> None:
    if len(predicted) != len(reference):
        raise ValueError(f"{len(predicted)} answers for {len(reference)} references")
    if not reference:
        raise ValueError("no rows to measure")


def _label_set(labels: Sequence[str] | None, reference: Iterable[str], predicted: Iterable[str]) -> list[str]:
    if labels is None:
        return sorted({*reference, *predicted})
    outside = set(reference).difference(labels)
    if outside:
        raise ValueError(f"reference {min(outside)!r} is outside the label set")
    return list(dict.fromkeys(labels))


def _counts_of_pairs(pairs: NDArray[np.int64], size: int) -> Counts:
    """What each (reference, answer) pair, an answer of −1 being invalid, adds to each label: [pairs, size · 3]."""
    counts = np.zeros((len(pairs), size, 3))
    rows = np.arange(len(pairs))
    wanted, told = pairs.T
    right = wanted == told
    counts[rows, wanted, np.where(right, 0, 2)] = 1
    false = ~right & (told >= 0)
    counts[rows[false], told[false], 1] = 1
    return counts.reshape(len(pairs), -1)


def _confusion(names: Sequence[str], pairs: NDArray[np.int64], times: Counts) -> dict[str, Any]:
    if len(names) > MOST_IN_CONFUSION:
        return {}
    # An invalid answer is −1, the last column, which is then left out.
    counts = np.zeros((len(names), len(names) + 1), dtype=int)
    counts[pairs[:, 0], pairs[:, 1]] = times
    return {"confusion": {"labels": list(names), "counts": counts[:, :-1].tolist()}}


def _indicators(answers: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which labels each answer has, [rows, labels]."""
    place = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(answers), len(names)), dtype=bool)
    for row, answer in zip(found, answers, strict=True):
        row[[place[label] for label in answer]] = True
    return found
