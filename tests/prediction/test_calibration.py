"""The temperature: found where it is known, and harmless."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from weitiao.metrics.classification import calibration
from weitiao.prediction.calibration import RANGE, fit_temperature, given, with_temperature, withheld
from weitiao.tasks.base import Example, Task
from weitiao.tasks.classification import Classification, ClassificationExample, ClassificationOptions
from weitiao.tasks.ner import Ner, NerOptions
from weitiao.types import Prediction, Row

LABELS = ("a", "b", "c")


def task_of(many: bool = False) -> Task:
    return Classification(ClassificationOptions(options="fixed", labels=list(LABELS), language="en", multi_label=many))


def one_label(shares: np.ndarray) -> Prediction:
    best = int(shares.argmax())
    scores = dict(zip(LABELS, shares.tolist(), strict=True))
    return Prediction(LABELS[best], LABELS[best], scores[LABELS[best]], scores)


def labelled(answer: object) -> Example:
    return ClassificationExample(Row({"text": "x"}, "f", 1), "x", answer, LABELS)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_of_known_logits_is_found(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6000, 3)) * 2
    references = [LABELS[rng.choice(3, p=row)] for row in softmax(logits / true)]
    answers, rows = [one_label(row) for row in softmax(logits)], [labelled(label) for label in references]
    found = fit_temperature(task_of(), answers, rows)
    assert found == pytest.approx(true, rel=0.08)
    right = np.array([a.answer == label for a, label in zip(answers, references, strict=True)])
    before = calibration([a.probability for a in answers], right)
    after = calibration([with_temperature(a, found).probability for a in answers], right)
    # The fit is by the likelihood of the references, which is not quite this nll of right and wrong.
    assert after["nll"] <= before["nll"] + 1e-3
    assert after["ece"] < 0.03
    if true != 1:
        assert after["ece"] < before["ece"] / 2


def test_an_answer_with_a_probability_alone_is_fitted_by_its_log_odds() -> None:
    rng = np.random.default_rng(1)
    odds = rng.normal(1, 3, size=4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-odds / 2.5))
    answers = [Prediction(("a", "b"), "a\nb", float(1 / (1 + np.exp(-o)))) for o in odds]
    rows = [labelled(("a", "b") if r else ("c",)) for r in right]
    assert fit_temperature(task_of(many=True), answers, rows) == pytest.approx(2.5, rel=0.1)


def test_entities_have_a_temperature_too() -> None:
    task = Ner(NerOptions(types=["人名"], language="zh"))
    texts = [("李华来了", [{"start": 0, "end": 2, "type": "人名"}]), ("下雨了", [])]
    rows = [task.example(Row({"text": text, "entities": entities}, "f", 1)) for text, entities in texts]
    sure = [Prediction(rows[0].answer, "", 0.999), Prediction(rows[0].answer, "", 0.999)]
    assert fit_temperature(task, sure, rows) > 1.5
    assert fit_temperature(task, [Prediction((), "", None)] * 2, rows) == 1.0


@drawn(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.floats(*RANGE))
def test_answers_and_ranks_stay_and_the_inverse_takes_it_back(logits: list[float], temperature: float) -> None:
    first = one_label(softmax(np.array([logits]))[0])
    changed = with_temperature(first, temperature)
    assert changed.answer == first.answer
    assert changed.probability == max(changed.scores.values())
    assert sum(changed.scores.values()) == pytest.approx(1)
    assert list(changed.scores) == list(LABELS)
    for one in LABELS:
        for other in LABELS:
            if first.scores[one] > first.scores[other]:
                assert changed.scores[one] >= changed.scores[other]
    if min(changed.scores.values()) > 1e-12:
        back = with_temperature(changed, 1 / temperature)
        assert dict(back.scores) == pytest.approx(dict(first.scores), rel=1e-6, abs=1e-9)


def test_rows_that_are_all_right_move_it_little() -> None:
    answers = [one_label(np.array([0.9, 0.05, 0.05]))] * 4
    assert 0.3 < fit_temperature(task_of(), answers, [labelled("a")] * 4) < 1
    assert fit_temperature(task_of(), [one_label(np.array([1.0, 0.0, 0.0]))], [labelled("a")]) == pytest.approx(
        1, abs=1e-3
    )


def test_a_probability_of_zero_for_the_truth_is_survived() -> None:
    answers = [one_label(np.array([1.0, 0.0, 0.0]))] * 3
    assert RANGE[0] <= fit_temperature(task_of(), answers, [labelled("b")] * 3) <= RANGE[1]


def test_withholding() -> None:
    sure, unsure, unknown = (Prediction("a", "a", p) for p in (0.9, 0.5, None))
    assert [withheld(p, 0.9) for p in (sure, unsure, unknown)] == [False, True, True]
    assert [withheld(p, None) for p in (sure, unsure, unknown)] == [False, False, False]
    assert given(sure, 0.9) is sure
    assert given(unsure, 0.9) == Prediction(None, "a", 0.5)
