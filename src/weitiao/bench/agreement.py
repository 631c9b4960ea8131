"""Whether our answers are those of the plain path, and whether they depend on who else is in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from weitiao.bench.answerer import adapted
from weitiao.bench.answerers.weitiao import PLAIN, predictor
from weitiao.bench.questions import Questions
from weitiao.bench.shapes import ModelMaker
from weitiao.prediction.predictor import Predictor
from weitiao.types import Prediction

TOGETHER = 64
"""Rows that are answered in one call."""
LEAST = {"float32": 1.0, "bfloat16": 0.999}
"""Least share of answers that have to be equal; as many may flip between one row a call and `TOGETHER` of them."""


def agreement(make: ModelMaker, questions: Questions, count: int) -> dict[str, Any]:
    """Of the first `count` rows: `same`, the share of answers equal to the plain path's; `flipped`, the share that is
    another when a row is answered alone; `gap`, the largest difference between log-probabilities, in nats, of labels
    or of whole answers that are equal."""
    model = adapted(make)
    examples = questions.examples()[:count]
    plain = answered(predictor(model, questions, **PLAIN), examples, 1)
    ours = predictor(model, questions)
    assert ours.forward.fast is not None, ours.forward.slow_because
    alone, together = answered(ours, examples, 1), answered(ours, examples, TOGETHER)
    least = LEAST[str(make.master.dtype).removeprefix("torch.")]
    same, flipped = share_equal(plain, together), 1 - share_equal(alone, together)
    equal = same >= least and flipped <= 1 - least
    told = {"rows": len(examples), "together": min(TOGETHER, len(examples)), "equal": equal}
    return told | {"same": same, "flipped": flipped, "gap": gap(plain, together)}


def share_equal(first: Sequence[Prediction], second: Sequence[Prediction]) -> float:
    return sum(a.text == b.text for a, b in zip(first, second, strict=True)) / len(first)


def gap(first: Sequence[Prediction], second: Sequence[Prediction]) -> float:
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in _probabilities(a, b)]
    # One that is 0 has no logarithm; then only its answer is compared.
    return max((abs(math.log(a) - math.log(b)) for a, b in pairs if a and b), default=0.0)


def _probabilities(first: Prediction, second: Prediction) -> Iterable[tuple[float, float]]:
    if first.scores:
        return [(chance, second.scores[label]) for label, chance in first.scores.items()]
    if first.text != second.text or first.probability is None or second.probability is None:
        return []
    return [(first.probability, second.probability)]


def answered(ours: Predictor, examples: Sequence[Any], together: int) -> list[Prediction]:
    """together: rows of a call."""
    starts = range(0, len(examples), together)
    return [answer for start in starts for answer in ours.answer(examples[start : start + together])]
