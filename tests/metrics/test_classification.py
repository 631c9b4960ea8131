import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from weitiao.metrics.classification import measure_multi, measure_single

LABELS = ["体育", "经济", "政治", "教育"]
answers = st.one_of(st.none(), st.sampled_from([*LABELS, "天气"]))
single_rows = st.lists(st.tuples(st.sampled_from(LABELS[:3]), answers), min_size=1, max_size=30)
label_sets = st.lists(st.sampled_from(LABELS), max_size=4, unique=True)
multi_rows = st.lists(st.tuples(label_sets, st.one_of(st.none(), label_sets)), min_size=1, max_size=20)


def single(predicted, reference, labels=LABELS, probabilities=None):
    return measure_single(predicted, reference, labels, probabilities, bootstrap=100, seed=0)


def multi(predicted, reference, labels=LABELS):
    return measure_multi(predicted, reference, labels, None, bootstrap=100, seed=0)


def test_single_by_hand():
    #            right  wrong  wrong  invalid outside
    reference = ["体育", "体育", "经济", "经济", "政治"]
    predicted = ["体育", "经济", "体育", None, "天气"]
    found = single(predicted, reference)
    assert found["accuracy"] == 1 / 5
    assert found["invalid"] == 2 / 5
    assert found["rows"] == 5
    assert found["per_class"]["体育"] == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    assert found["per_class"]["经济"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}
    assert found["per_class"]["政治"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found["per_class"]["教育"]["support"] == 0
    # 教育 occurs nowhere and is left out: (1/2 + 0 + 0) / 3.
    assert found["macro_f1"] == pytest.approx(1 / 6)
    assert found["confusion"] == {"labels": LABELS, "counts": [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}
    assert "ece" not in found
    assert "nll" not in found


@settings(max_examples=60, deadline=None)
@given(single_rows)
def test_single_like_scikit_learn(rows):
    reference, predicted = map(list, zip(*rows, strict=True))
    found = single(predicted, reference)
    told = [p or "" for p in predicted]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(reference, told))
    macro = sk.f1_score(reference, told, labels=LABELS, average="macro", zero_division=np.nan)
    assert found["macro_f1"] == pytest.approx(macro)
    each = zip(*sk.precision_recall_fscore_support(reference, told, labels=LABELS, zero_division=0.0), strict=True)
    assert [tuple(found["per_class"][label].values()) for label in LABELS] == [pytest.approx(row) for row in each]
    assert found["confusion"]["counts"] == sk.confusion_matrix(reference, told, labels=LABELS).tolist()


@settings(max_examples=30, deadline=None)
@given(single_rows)
def test_single_is_plain_json_and_bounded(rows):
    reference, predicted = map(list, zip(*rows, strict=True))
    found = single(predicted, reference, probabilities=[0.5] * len(rows))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert 0 <= found["accuracy_low"] <= found["accuracy_high"] <= 1
    assert 0 <= found["macro_f1_low"] <= found["macro_f1_high"] <= 1


def test_single_intervals_are_those_of_rows_drawn_again():
    rng = np.random.default_rng(0)
    reference = rng.choice(LABELS[:3], size=80)
    predicted = np.where(rng.random(80) < 0.7, reference, rng.choice([*LABELS, "天气"], size=80))
    found = measure_single(list(predicted), list(reference), LABELS, None, bootstrap=3000, seed=0)

    draws = [rng.integers(80, size=80) for _ in range(400)]
    oracles = {
        "accuracy": lambda r, p: sk.accuracy_score(r, p),
        "macro_f1": lambda r, p: sk.f1_score(r, p, labels=LABELS, average="macro", zero_division=np.nan),
    }
    for name, oracle in oracles.items():
        low, high = np.quantile([oracle(reference[d], predicted[d]) for d in draws], [0.025, 0.975])
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((low, high), abs=0.03)


def test_without_a_label_set_the_labels_are_those_that_occur():
    found = single(["b", "c"], ["a", "b"], labels=None)
    assert list(found["per_class"]) == ["a", "b", "c"]
    assert found["invalid"] == 0


def test_confusion_only_of_few_labels():
    assert "confusion" in single(["0"], ["0"], labels=[str(i) for i in range(50)])
    assert "confusion" not in single(["0"], ["0"], labels=[str(i) for i in range(51)])


def test_calibration_by_hand():
    # Bins of 1/15, closed on the right: 0.95 and 1.0 share the last one, 0.92 is in the one below, 0.6 closes the
    # ninth and 0.61 is in the tenth.
    predicted, chances = ["a", "b", "b", "a", "a"], [0.95, 1.0, 0.6, 0.61, 0.92]
    found = single(predicted, ["a"] * 5, ["a", "b"], chances)
    assert found["ece"] == pytest.approx((abs(1 - 1.95) + 0.6 + (1 - 0.61) + (1 - 0.92)) / 5)
    logs = math.log(0.95) + math.log(1e-12) + math.log(0.4) + math.log(0.61) + math.log(0.92)
    assert found["nll"] == pytest.approx(-logs / 5, rel=1e-4)


def test_calibrated_answers_have_little_error_and_overconfident_ones_much():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.5, 1, size=20_000)
    predicted = np.where(rng.random(20_000) < chance, "a", "b").tolist()
    honest = single(predicted, ["a"] * 20_000, ["a", "b"], chance.tolist())
    boastful = single(predicted, ["a"] * 20_000, ["a", "b"], [0.999] * 20_000)
    assert honest["ece"] < 0.02
    assert boastful["ece"] == pytest.approx(0.999 - honest["accuracy"], abs=1e-9)
    assert honest["nll"] < boastful["nll"]


def test_rows_without_a_probability_are_left_out_of_the_calibration():
    found = single(["a", "b"], ["a", "a"], ["a", "b"], [0.8, None])
    assert found["ece"] == pytest.approx(0.2)
    assert "ece" not in single(["a"], ["a"], ["a"], [None])
    with pytest.raises(ValueError, match="NaN"):
        single(["a"], ["a"], ["a"], [math.nan])


@pytest.mark.parametrize("measure", [single, multi])
def test_what_is_refused(measure):
    with pytest.raises(ValueError, match="no rows"):
        measure([], [])
    with pytest.raises(ValueError, match="1 answers for 2 references"):
        measure([None], [["体育"]] * 2 if measure is multi else ["体育"] * 2)
    with pytest.raises(ValueError, match="'天气' is outside"):
        measure([None], [["天气"]] if measure is multi else ["天气"])


def test_multi_by_hand():
    #             one of two right     spurious  empty, right  empty, invalid  a label outside the set
    reference = [["体育", "经济"], ["政治"], [], [], ["经济"]]
    predicted = [["体育"], ["教育", "政治"], [], None, ["经济", "天气"]]
    found = multi(predicted, reference)
    # tp: 体育, 政治; fp: 教育; fn: 经济 twice.
    assert found["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert (found["precision"], found["recall"]) == (2 / 3, 2 / 4)
    assert found["macro_f1"] == pytest.approx((1 + 0 + 1 + 0) / 4)
    assert found["exact_match"] == 1 / 5
    assert found["hamming"] == pytest.approx(3 / 20)
    assert found["invalid"] == 2 / 5
    assert found["per_class"]["经济"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}


@settings(max_examples=60, deadline=None)
@given(multi_rows)
def test_multi_like_scikit_learn(rows):
    reference, predicted = map(list, zip(*rows, strict=True))
    found = multi(predicted, reference)
    matrix = lambda sets: np.array([[label in (s or ()) for label in LABELS] for s in sets])  # noqa: E731
    wanted, told = matrix(reference), matrix(predicted)
    assert found["micro_f1"] == pytest.approx(sk.f1_score(wanted, told, average="micro", zero_division=0.0))
    assert found["precision"] == pytest.approx(sk.precision_score(wanted, told, average="micro", zero_division=0.0))
    assert found["recall"] == pytest.approx(sk.recall_score(wanted, told, average="micro", zero_division=0.0))
    assert found["hamming"] == pytest.approx(sk.hamming_loss(wanted, told))
    macro = sk.f1_score(wanted, told, average="macro", zero_division=np.nan) if (wanted | told).any() else 0.0
    assert found["macro_f1"] == pytest.approx(macro)
    exact = [p is not None and set(p) == set(r) for r, p in rows]
    assert found["exact_match"] == pytest.approx(np.mean(exact))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_multi_without_any_label_is_zero_but_exact():
    for labels in (LABELS, None):
        found = multi([[], []], [[], []], labels)
        assert (found["micro_f1"], found["macro_f1"], found["precision"], found["recall"]) == (0, 0, 0, 0)
        assert (found["exact_match"], found["hamming"]) == (1, 0)


def test_multi_counts_a_repeated_label_once():
    assert multi([["体育", "体育"]], [["体育"]])["micro_f1"] == 1.0


def test_multi_intervals_hold_the_value_of_balanced_rows():
    found = multi([["体育"], ["经济"]] * 20, [["体育"], ["体育"]] * 20)
    for name in ("micro_f1", "exact_match"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
