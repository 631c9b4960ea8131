"""Metrics of texts that a model wrote freely, each row against one or more references.

    bleu_1 … bleu_4     0–1     n-grams found, over the corpus              `captions.bleu`
    rouge_l             0–1     longest common subsequence of words, F1     `captions.rouge_l`
    cider               0–10    CIDEr-D; idf of this test set               `captions.cider`
    exact_match         0–1     share of answers that equal a reference     `short_answers.exact_match`
    vqa_accuracy        0–1     agreement with several humans               `short_answers.vqa_accuracy`
    anls                0–1     answers forgiven a few wrong characters     `short_answers.anls`

All but BLEU are means over rows. A new metric is one more line of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.metrics.captions import ORDERS, Answers, References, bleu, bleu_counts, cider, rouge_l
from weitiao.metrics.classification import share
from weitiao.metrics.intervals import Counts, Statistic, with_interval
from weitiao.metrics.short_answers import anls, exact_match, vqa_accuracy

PerRow = Callable[[Answers, References], Counts]


def _mean(values: Callable[[Answers, References], NDArray[np.float64]]) -> tuple[PerRow, Statistic]:
    """The mean of a row's value, by its sum and the number of rows."""

    def per_row(predicted: Answers, references: References) -> Counts:
        found = values(predicted, references)
        return np.column_stack([found, np.ones_like(found)])

    return per_row, share


METRICS: dict[str, tuple[PerRow, Statistic]] = {
    **{f"bleu_{n}": (bleu_counts, partial(bleu, order=n)) for n in ORDERS},
    "rouge_l": _mean(rouge_l),
    "cider": _mean(cider),
    "exact_match": _mean(exact_match),
    "vqa_accuracy": _mean(vqa_accuracy),
    "anls": _mean(anls),
}


def measure_texts(
    predicted: Sequence[str | None],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str],
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Each of `metrics` (with interval), invalid, rows: `{"rouge_l": …, "rouge_l_low": …, "rouge_l_high": …, …}`.

    predicted: None is an answer that is none; it scores as badly as a metric allows. `invalid`: share of those rows.
    bootstrap: resamples of the rows. CIDEr's interval keeps the document frequencies of the whole test set, so it is
        that of the mean of the rows' scores.
    Raises ValueError when there are no rows, lengths differ, a row has no reference or a metric is unknown.
    """
    _check(predicted, references, metrics)
    chosen = {name: METRICS[name] for name in metrics}
    counts = {per_row: per_row(predicted, references) for per_row in dict.fromkeys(p for p, _ in chosen.values())}
    found: dict[str, Any] = {}
    for name, (per_row, statistic) in chosen.items():
        found.update(with_interval(name, counts[per_row], statistic, resamples=bootstrap, seed=seed))
    return {**found, "invalid": float(np.mean([p is None for p in predicted])), "rows": len(references)}


def _check(predicted: Answers, references: References, metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}; choose from {', '.join(METRICS)}")
    if len(predicted) != len(references):
        raise ValueError(f"{len(predicted)} answers for {len(references)} references")
    if not references:
        raise ValueError("no rows to measure")
    for i, row in enumerate(references):
        if isinstance(row, str) or not row:
            raise ValueError(f"row {i}: wanted a list of one or more references, found {row!r}")
