"""Whether our answers are those of the plain path, and whether they depend on who else is in a batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

from weitiao.bench.answerers.weitiao import PLAIN, Weitiao, predictor
from weitiao.bench.questions import Questions
from weitiao.bench.shapes import ModelMaker
from weitiao.prediction.predictor import Predictor
from weitiao.types import Prediction

TOGETHER = 64
"""Rows that are answered in one call."""
LEAST = {"float32": 1.0, "bfloat16": 0.999}
"""Least share of answers that have to be equal; as many may flip between one row a call and `TOGETHER` of them."""
MORE = 1.5
"""In 16 bits, times as many written answers may differ from those in float32 as the plain path's own, and one row."""


def agreement(make: ModelMaker, questions: Questions, count: int, kind: type[Weitiao] = Weitiao) -> dict[str, Any]:
    """Of the first `count` rows, with the adapter as `kind` has it: `same`, the share of answers equal to the plain
    path's; `flipped`, the share that is another when a row is answered alone; `gap`, the largest difference between
    log-probabilities, in nats, of labels or of whole answers that are equal.

    Random weights decide some answers by less than 16 bits tell apart. So where ours in 16 bits are not the plain
    path's, both are compared with the plain path in float32, of the same weights: `off` and `plain_off`, the shares
    that differ. Labels have to be those in float32; of answers that are written no more may differ than of its own.
    """
    model = kind.model(make)
    examples = questions.examples()[:count]
    plain = answered(predictor(model, questions, **PLAIN), examples, 1)
    ours = predictor(model, questions)
    assert ours.forward.fast is not None, ours.forward.slow_because
    alone, together = answered(ours, examples, 1), answered(ours, examples, TOGETHER)
    same, flipped = share_equal(plain, together), 1 - share_equal(alone, together)
    most = 1 - LEAST[str(make.master.dtype).removeprefix("torch.")]
    told: dict[str, Any] = {
        "rows": len(examples),
        "together": min(TOGETHER, len(examples)),
        "same": same,
        "flipped": flipped,
    }
    told |= {"equal": max(1 - same, flipped) <= most, "gap": gap(plain, together), "off": None, "plain_off": None}
    if most and not told["equal"]:
        del ours
        exact = answered(predictor(copy.deepcopy(model).float(), questions, **PLAIN), examples, 1)
        off, plain_off = (1 - share_equal(exact, answers) for answers in (together, plain))
        told |= {"off": off, "plain_off": plain_off}
        may = most if questions.task.lists_labels else MORE * plain_off + 1 / len(examples)
        told["equal"] = max(off, flipped) <= may
    return told


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
