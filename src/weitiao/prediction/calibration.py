"""One temperature that makes probabilities mean what they say, and answers withheld below a probability.

A model that is fine-tuned is surer than it is right. Its scores, divided by a temperature T that is fitted on the
validation rows, rank as before but are believable (temperature scaling; Guo et al. 2017, On Calibration of Modern
Neural Networks). Where the labels of a row are known with their probabilities p, they become p^(1/T), made to sum to
1; an answer that has a probability alone (several labels, entities) is held against its complement in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from weitiao.tasks.base import Example, Task
from weitiao.types import Prediction

RANGE = (0.05, 20.0)
"""Where the temperature is sought."""
LEAST = 1e-300
"""A probability that is 0 in float64 is taken for this one."""


def fit_temperature(task: Task, answers: Sequence[Prediction], examples: Sequence[Example]) -> float:
    """The temperature that makes the references of `examples` likeliest; 1.0 when no answer has a probability.

    Minimises the summed negative log-likelihood in nats plus (ln T)² / 2, which weighs as much as one row: few rows,
    or rows that are all right, move T little.
    """
    from scipy.optimize import minimize_scalar

    pairs = [(a, e) for a, e in zip(answers, examples, strict=True) if a.probability is not None]
    if not pairs:
        return 1.0
    rows = [(_logs(answer), _place(task, answer, example)) for answer, example in pairs]

    def loss(log_t: float) -> float:
        return float(sum(-_log_shares(logs, np.exp(log_t))[at] for logs, at in rows) + log_t**2 / 2)

    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4)


def with_temperature(prediction: Prediction, temperature: float) -> Prediction:
    """The same answer with the probabilities of a temperature. One of 1 / T takes those of T back."""
    if prediction.probability is None or temperature == 1:
        return prediction
    shares = np.exp(_log_shares(_logs(prediction), temperature)).tolist()
    if not _one_label(prediction):
        return replace(prediction, probability=shares[0])
    scores = dict(zip(prediction.scores, shares, strict=True))
    return replace(prediction, probability=scores[prediction.answer], scores=scores)


def given(prediction: Prediction, abstain_below: float | None) -> Prediction:
    """The prediction, without its answer where that is too unsure."""
    return replace(prediction, answer=None) if withheld(prediction, abstain_below) else prediction


def withheld(prediction: Prediction, below: float | None) -> bool:
    """Whether an answer is too unsure to be given; one without a probability is."""
    return below is not None and (prediction.probability is None or prediction.probability < below)


def _one_label(prediction: Prediction) -> bool:
    return isinstance(prediction.answer, str) and prediction.answer in prediction.scores


def _logs(prediction: Prediction) -> NDArray[np.float64]:
    """ln p of each label; of the answer and of its complement where the labels are not known, [2]."""
    chance = prediction.probability or 0.0
    table = list(prediction.scores.values()) if _one_label(prediction) else [chance, 1 - chance]
    return np.log(np.maximum(table, LEAST))


def _place(task: Task, prediction: Prediction, example: Example) -> int:
    """Where the reference stands in `_logs`."""
    if _one_label(prediction):
        return list(prediction.scores).index(example.answer)
    return 0 if task.right(prediction.answer, example) else 1


def _log_shares(logs: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Logarithm of the softmax of logs / temperature."""
    scaled = logs / temperature - (logs / temperature).max()
    return scaled - np.log(np.exp(scaled).sum())
