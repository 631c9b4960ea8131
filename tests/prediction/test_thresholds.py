"""Thresholds of several labels: found where they are known, drawn together where rows are few."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weitiao.metrics.classification import f1, set_counts
from weitiao.prediction.thresholds import PRIOR_ROWS, decided, fit_thresholds, thresholds_note, with_thresholds
from weitiao.run_folder import Thresholds
from weitiao.tasks.base import Example
from weitiao.tasks.classification import Classification, ClassificationExample, ClassificationOptions
from weitiao.types import Prediction, Row

TASK = Classification(ClassificationOptions(options="fixed", labels=["a", "b"], language="en", multi_label=True))


def answered(scores: Mapping[str, float]) -> Prediction:
    answer, probability = decided(scores, Thresholds())
    return Prediction(answer, TASK.target(answer), probability, scores)


def labelled(*labels: str) -> Example:
    return ClassificationExample(Row({"text": "x"}, "f", 1), "x", labels, ("a", "b"))


def micro(answers: Sequence[Prediction], examples: Sequence[Example]) -> float:
    return float(f1(set_counts([a.answer for a in answers], [e.answer for e in examples]).sum(axis=0)))


def drawn(rows: int, seed: int, shift: Mapping[str, float]) -> tuple[list[Prediction], list[Example]]:
    """Rows of a model that knows the odds of each label, but tells them lower by `shift`."""
    rng = np.random.default_rng(seed)
    answers, examples = [], []
    for _ in range(rows):
        odds = {label: rng.normal(-1, 2) for label in shift}
        examples.append(labelled(*(label for label, o in odds.items() if rng.random() < 1 / (1 + np.exp(-o)))))
        answers.append(answered({label: float(1 / (1 + np.exp(shift[label] - o))) for label, o in odds.items()}))
    return answers, examples


def test_from_the_threshold_on() -> None:
    scores = {"a": 0.5, "b": 0.4999, "c": 0.3}
    assert decided(scores, Thresholds())[0] == ("a",)
    answer, probability = decided(scores, Thresholds(shared=0.3, labels={"b": 0.6}))
    assert answer == ("a", "c")
    assert probability == pytest.approx(0.5 * (1 - 0.4999) * 0.3)


def test_an_answer_is_decided_anew() -> None:
    prediction = answered({"a": 0.4, "b": 0.1})
    assert (prediction.answer, prediction.text) == ((), "none")
    changed = with_thresholds(TASK, prediction, Thresholds(shared=0.3))
    assert (changed.answer, changed.text) == (("a",), "a")
    assert changed.probability == pytest.approx(0.4 * 0.9)
    assert with_thresholds(TASK, changed, Thresholds()) == prediction
    for other in (Prediction("a", "a", 0.3, {"a": 0.3, "b": 0.7}), Prediction((), "", 0.5)):
        assert with_thresholds(TASK, other, Thresholds(shared=0.3)) is other


def test_labels_that_are_told_too_low_are_given_earlier() -> None:
    answers, examples = drawn(3000, 0, {"a": 3.0, "b": 0.0})
    found = fit_thresholds(answers, examples)
    assert found.of("a") < 0.1 < 0.3 < found.of("b") < 0.5
    fresh, truths = drawn(3000, 1, {"a": 3.0, "b": 0.0})
    chosen = [with_thresholds(TASK, answer, found) for answer in fresh]
    assert micro(chosen, truths) > micro(fresh, truths) + 0.1


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]), st.booleans()), min_size=1, max_size=8))
def test_the_best_threshold_by_brute_force(rows: list[tuple[float, bool]]) -> None:
    """With no weight of 0.5, one label's threshold reaches the F1 of the best of all thresholds."""
    answers = [answered({"a": chance}) for chance, _ in rows]
    examples = [labelled(*["a"] * has) for _, has in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weitiao.prediction.thresholds.PRIOR_ROWS", 0)
        found = fit_thresholds(answers, examples)

    def reached(threshold: float) -> float:
        return micro([with_thresholds(TASK, a, Thresholds(shared=threshold)) for a in answers], examples)

    best = max(reached(at) for at in (0.001, 0.05, 0.2, 0.4, 0.6, 0.9, 0.999))
    assert reached(found.shared) == pytest.approx(best)


def test_few_rows_move_it_little_and_many_a_lot() -> None:
    """All are told at 0.1 or below, and those at 0.1 have the label."""
    shared = []
    for rows in (1, PRIOR_ROWS, 50 * PRIOR_ROWS):
        answers = [answered({"a": 0.1, "b": 0.001})] * rows
        shared.append(fit_thresholds(answers, [labelled("a")] * rows).shared)
    assert 0.4 < shared[0] < 0.5
    assert shared[0] > 0.3 > shared[1] > 0.05 > shared[2] > 0.001
    # A label without rows is as the others.
    assert fit_thresholds(answers, [labelled("a")] * rows).of("b") == shared[-1]


def test_rows_that_any_threshold_parts_leave_it_at_a_half() -> None:
    answers, examples = [answered({"a": 0.9}), answered({"a": 0.1})], [labelled("a"), labelled()]
    assert fit_thresholds(answers, examples).of("a") == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("answers", "examples"),
    [
        ([], []),
        ([answered({"a": 0.7})], [labelled()]),
        ([Prediction("a", "a", 0.3, {"a": 0.3, "b": 0.7})], [labelled("a")]),
    ],
    ids=["no rows", "no labels", "one label"],
)
def test_nothing_to_fit(answers: list[Prediction], examples: list[Example]) -> None:
    assert fit_thresholds(answers, examples) == Thresholds()


def test_the_note_tells_what_they_change() -> None:
    answers, examples = drawn(400, 0, {"a": 3.0, "b": 0.0})
    found = fit_thresholds(answers, examples)
    note = thresholds_note(TASK, answers, examples, found)
    before, after = micro(answers, examples), micro([with_thresholds(TASK, a, found) for a in answers], examples)
    assert f"400 validation rows: micro_f1 {after:.3f} there, {before:.3f} from 0.5 on" in note
    assert after > before
    assert thresholds_note(TASK, [Prediction("a", "a", 0.3, {"a": 0.3})], [labelled("a")], Thresholds()) == ""


def test_they_stay_within_what_the_task_file_takes() -> None:
    for (first, second), has in itertools.product([(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0)], [True, False]):
        rows = [labelled("a"), labelled(*["a"] * has)] * 200
        found = fit_thresholds([answered({"a": first}), answered({"a": second})] * 200, rows)
        assert Thresholds.model_validate(found.model_dump()) == found
        assert all(0 < t < 1 for t in found.labels.values())
