"""Several labels: from which probability on a label is given.

0.5 is best for the share of decisions that are right, but not for F1, where the best threshold is half of the F1 that
is reached (Lipton et al. 2014, Optimal Thresholding of Classifiers to Maximize F1 Measure), and no model's
probabilities are exact. So thresholds are fitted on the validation rows, where they make F1 highest: one for all
labels, and each label's own, which is drawn to that one the more, the fewer rows have the label. Fitted to a handful of
rows, a threshold of a label's own does worse than a shared one (Yang 2001, A Study of Thresholding Strategies for Text
Categorization).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.metrics.classification import ratio
from weitiao.run_folder import Thresholds
from weitiao.tasks.base import Example, Task
from weitiao.types import Prediction

PRIOR_ROWS = 20
"""Rows with a label at which its own threshold weighs as much as the shared one, and that one as much as 0.5. Simulated
labels of 3 to 80 rows differ little from 10 to 40."""
EDGE = 1e-6
"""Probabilities are kept so far from 0 and 1 where their log-odds are needed."""


def decided(scores: Mapping[str, float], thresholds: Thresholds) -> tuple[tuple[str, ...], float]:
    """The labels that are given, in the order of `scores`, and the probability that these and no others are right, as
    if labels were independent. scores: probability of each label that the row may have."""
    given = {label: chance >= thresholds.of(label) for label, chance in scores.items()}
    answer = tuple(label for label, yes in given.items() if yes)
    return answer, math.prod(chance if given[label] else 1 - chance for label, chance in scores.items())


def with_thresholds(task: Task, prediction: Prediction, thresholds: Thresholds) -> Prediction:
    """The answer that thresholds give; the same prediction where there are not several labels, each with a probability.

    Its probability is without any temperature.
    """
    if not chooses_several(prediction):
        return prediction
    answer, probability = decided(prediction.scores, thresholds)
    return replace(prediction, answer=answer, text=task.target(answer), probability=probability)


def chooses_several(prediction: Prediction) -> bool:
    return isinstance(prediction.answer, tuple) and bool(prediction.scores)


def fit_thresholds(answers: Sequence[Prediction], examples: Sequence[Example]) -> Thresholds:
    """Thresholds that make F1 of `examples` highest: the shared one of all labels together (micro), a label's own that
    of the label. Between two probabilities the middle of their log-odds is taken. 0.5 where nothing can be fitted."""
    pairs = [(a, e) for a, e in zip(answers, examples, strict=True) if chooses_several(a)]
    decisions = [(label, p, label in e.answer) for a, e in pairs for label, p in a.scores.items()]
    if not any(has for _, _, has in decisions):
        return Thresholds()
    labels, chances, wanted = (np.array(column) for column in zip(*decisions, strict=True))
    odds = _log_odds(chances)
    shared = _drawn(odds, wanted, 0.0)
    own = {}
    for label in sorted({label for label, _, has in decisions if has}):
        rows = labels == label
        own[label] = _chance(_drawn(odds[rows], wanted[rows], shared))
    return Thresholds(shared=_chance(shared), labels=own)


def thresholds_note(
    task: Task, answers: Sequence[Prediction], examples: Sequence[Example], thresholds: Thresholds
) -> str:
    """What thresholds are, and what they change on the rows that they were fitted on; empty without several labels."""
    if not any(map(chooses_several, answers)):
        return ""
    own = thresholds.labels.values()
    by_label = f", {min(own):.2f} to {max(own):.2f} by label" if own else ""
    before, after = (headline_at(t, task, answers, examples) for t in (Thresholds(), thresholds))
    return (
        f"labels are given from a probability of {thresholds.shared:.2f} on{by_label}, fitted on {len(examples)} "
        f"validation rows: {task.headline} {after:.3f} there, {before:.3f} from 0.5 on"
    )


def headline_at(
    thresholds: Thresholds, task: Task, answers: Sequence[Prediction], examples: Sequence[Example]
) -> float:
    """The task's headline metric if thresholds were these."""
    counts, metric = task.counts([with_thresholds(task, a, thresholds).answer for a in answers], examples)
    return float(metric(counts.sum(axis=0)))


def _drawn(odds: NDArray[np.float64], wanted: NDArray[np.bool_], towards: float) -> float:
    """The best threshold in log-odds, drawn towards another one by as much as so many rows."""
    weight = int(wanted.sum()) / (int(wanted.sum()) + PRIOR_ROWS)
    return weight * _best(odds, wanted, towards) + (1 - weight) * towards


def _best(odds: NDArray[np.float64], wanted: NDArray[np.bool_], near: float) -> float:
    """Log-odds from which on to say yes, so that F1 is highest; of several that are equal, the one next to `near`."""
    order = np.argsort(-odds, kind="stable")
    sorted_odds, hits = odds[order], np.cumsum(wanted[order])
    f1 = ratio(2 * hits, np.arange(1, len(odds) + 1) + wanted.sum())
    below = np.append(sorted_odds[1:], _log_odds(np.array([0.0])))
    # Equal probabilities cannot be parted, nor those of 0 be asked for.
    parts = sorted_odds > below
    if not parts.any():
        return near
    best = parts & np.isclose(f1, f1[parts].max(), rtol=0, atol=1e-12)
    # Anywhere between the two probabilities is as good; the middle leaves most room to both.
    middles = ((sorted_odds + below) / 2)[best]
    return float(middles[np.abs(middles - near).argmin()])


def _log_odds(chances: Any) -> NDArray[np.float64]:
    p = np.clip(np.asarray(chances, dtype=np.float64), EDGE, 1 - EDGE)
    return np.log(p / (1 - p))


def _chance(odds: float) -> float:
    return round(1 / (1 + math.exp(-odds)), 6)
