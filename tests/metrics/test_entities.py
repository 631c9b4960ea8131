import json

import nervaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2

from weitiao.metrics.entities import Entity, measure_entities

TYPES = ["人名", "地点", "组织"]
LENGTH = 12
TEXT = "江泽民在北京会见北京大学"


def entity(start, end, type_):
    return Entity(start, end, type_, TEXT[start:end])


def measure(predicted, reference, types=TYPES):
    return measure_entities(predicted, reference, types, bootstrap=100, seed=0)


@st.composite
def disjoint(draw):
    """Entities of one document in order, none overlapping another."""
    cuts = sorted(draw(st.sets(st.integers(0, LENGTH), max_size=8)))
    types = draw(st.lists(st.sampled_from([*TYPES, None]), min_size=8, max_size=8))
    spans = zip(cuts, cuts[1:], types, strict=False)
    return [entity(start, end, type_) for start, end, type_ in spans if type_]


documents = st.lists(st.tuples(disjoint(), disjoint()), min_size=1, max_size=5)


def bio(entities):
    tags = ["O"] * LENGTH
    for e in entities:
        tags[e.start : e.end] = [f"B-{e.type}"] + [f"I-{e.type}"] * (e.end - e.start - 1)
    return tags


def test_by_hand():
    person, place, university = entity(0, 3, "人名"), entity(4, 6, "地点"), entity(8, 12, "组织")
    reference = [[person, place, university], [place]]
    predicted = [[person, entity(8, 10, "地点"), entity(8, 12, "地点")], None]
    found = measure(predicted, reference)
    assert (found["precision"], found["recall"]) == (1 / 3, 1 / 4)
    assert found["f1"] == pytest.approx(2 / (2 + 2 + 3))
    # 北京 stands at another place but is the same text; 北京大学 has the right place and another type.
    assert found["text_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert found["boundary_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert found["per_type"] == {
        "人名": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
        "地点": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2},
        "组织": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    }
    assert found["macro_f1"] == pytest.approx(1 / 3)
    assert found["invalid"] == 1 / 2
    assert (found["rows"], found["entities"], found["predicted_entities"]) == (2, 4, 3)


@settings(max_examples=80, deadline=None)
@given(documents)
def test_like_seqeval_strict(pairs):
    found = measure([told for told, _ in pairs], [wanted for _, wanted in pairs])
    tags = [bio(wanted) for _, wanted in pairs], [bio(told) for told, _ in pairs]
    for name, oracle in {"f1": f1_score, "precision": precision_score, "recall": recall_score}.items():
        assert found[name] == pytest.approx(oracle(*tags, mode="strict", scheme=IOB2, zero_division=0)), name


@settings(max_examples=40, deadline=None)
@given(documents)
def test_like_nervaluate_strict(pairs):
    def spans(entities):
        return [{"label": e.type, "start": e.start, "end": e.end - 1} for e in entities]

    evaluator = nervaluate.Evaluator([spans(w) for _, w in pairs], [spans(t) for t, _ in pairs], TYPES, loader="dict")
    oracle = evaluator.evaluate()["overall"]["strict"]
    found = measure([told for told, _ in pairs], [wanted for _, wanted in pairs])
    assert (found["precision"], found["recall"]) == pytest.approx((oracle.precision, oracle.recall))
    assert found["f1"] == pytest.approx(oracle.f1)


@settings(max_examples=40, deadline=None)
@given(documents)
def test_properties(pairs):
    predicted, reference = [told for told, _ in pairs], [wanted for _, wanted in pairs]
    found = measure(predicted, reference)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["f1"] <= found["boundary_f1"] + 1e-12
    # Texts are those of the places here.
    assert found["f1"] <= found["text_f1"] + 1e-12
    swapped = measure(reference, predicted)
    assert (swapped["f1"], swapped["precision"], swapped["recall"]) == (
        found["f1"],
        found["recall"],
        found["precision"],
    )
    perfect = measure(reference, reference)
    assert {perfect[k] for k in ("f1", "text_f1", "boundary_f1", "macro_f1")} == {float(any(reference))}


def test_a_tag_that_begins_inside_is_no_entity():
    """seqeval's default reads `I I O` as the entity of `B I O`; an entity here is only what was answered."""
    assert measure([[]], [[entity(0, 3, "人名")]])["f1"] == 0.0


def test_listed_twice_counts_once_but_not_as_text():
    person = entity(0, 3, "人名")
    found = measure([[person, person]], [[person]])
    assert (found["f1"], found["boundary_f1"]) == (1.0, 1.0)
    assert found["text_f1"] == pytest.approx(2 / 3)


def test_a_place_matches_whatever_text_was_noted_with_it():
    found = measure([[Entity(0, 3, "人名", "江 泽民")]], [[entity(0, 3, "人名")]])
    assert (found["f1"], found["text_f1"]) == (1.0, 0.0)


def test_same_place_in_another_document_is_no_match():
    person = entity(0, 3, "人名")
    found = measure([[person], []], [[], [person]])
    assert (found["f1"], found["text_f1"], found["boundary_f1"]) == (0.0, 0.0, 0.0)


def test_overlapping_and_nested_entities_are_all_counted():
    nested = [entity(8, 12, "组织"), entity(8, 10, "地点"), entity(8, 12, "地点")]
    found = measure([nested[:2]], [nested])
    assert (found["precision"], found["recall"]) == (1.0, 2 / 3)


def test_an_entity_that_is_not_in_the_text_never_matches():
    lost = [Entity(-1, -1, "人名", "李鹏"), Entity(-1, -1, "人名", "李鹏"), Entity(-1, -1, "人名", "朱镕基")]
    found = measure([lost], [lost])
    assert (found["f1"], found["boundary_f1"]) == (0.0, 0.0)
    assert (found["entities"], found["predicted_entities"]) == (2, 2)
    assert found["text_f1"] == 1.0


def test_a_type_that_is_unknown_is_a_false_positive():
    found = measure([[entity(0, 3, "人名"), entity(4, 6, "天气")]], [[entity(0, 3, "人名")]])
    assert (found["precision"], found["recall"], found["macro_f1"]) == (1 / 2, 1.0, 1.0)
    assert list(found["per_type"]) == TYPES
    assert list(measure([[entity(4, 6, "天气")]], [[]], types=None)["per_type"]) == ["天气"]


def test_no_entities_at_all_is_zero():
    for types in (TYPES, None):
        found = measure([[], None], [[], []], types)
        assert {found[k] for k in ("f1", "f1_low", "f1_high", "text_f1", "boundary_f1", "macro_f1")} == {0.0}
        assert found["invalid"] == 1 / 2


def test_interval_resamples_documents():
    person = entity(0, 3, "人名")
    rng = np.random.default_rng(0)
    right = rng.random(100) < 0.6
    found = measure_entities([[person] if r else [] for r in right], [[person]] * 100, TYPES, bootstrap=4000, seed=0)
    shares = rng.binomial(100, right.mean(), size=20_000) / 100
    expected = np.quantile(2 * shares / (1 + shares), [0.025, 0.975])
    assert (found["f1_low"], found["f1_high"]) == pytest.approx(tuple(expected), abs=0.015)


def test_what_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        measure([], [])
    with pytest.raises(ValueError, match="1 answers for 2 references"):
        measure([None], [[], []])
    with pytest.raises(ValueError, match="'天气' is outside"):
        measure([None], [[entity(0, 3, "天气")]])
