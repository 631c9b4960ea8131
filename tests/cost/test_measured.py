"""Estimates against what was measured on one H100 or H200 (docs/speed.md): bfloat16, r = 8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost.described import held, model_of, work_of
from weitiao.cost.machine import GIB, Machine, named
from weitiao.cost.minutes import minutes
from weitiao.engine.room import DEFAULT, KINDS, chosen

PEAKS = [("h100", "ner", 16, 5.3), ("h100", "ner", 256, 25.4), ("h100", "ner", 1024, 43.3), ("h200", "ner", 1024, 81.2)]
PEAKS += [("h100", "classification", 16, 5.4), ("h100", "classification", 256, 28.7)]
PEAKS += [("h100", "classification", 1024, 50.2), ("h200", "documents", 16, 75.0)]
"""Those on an H100 in packs that it has room for."""
RATES = [("h100", "ner", 16, 755), ("h100", "ner", 256, 1445), ("h100", "ner", 1024, 1503)]
RATES += [("h100", "classification", 16, 737), ("h100", "classification", 256, 1301)]
RATES += [("h100", "classification", 1024, 1366)]
RATES += [("h200", "ner", 16, 810), ("h200", "ner", 256, 1510), ("h200", "ner", 1024, 1621)]
RATES += [("h200", "classification", 16, 797), ("h200", "classification", 256, 1379)]
RATES += [("h200", "classification", 1024, 1427), ("h200", "documents", 16, 28.6)]


@pytest.mark.parametrize(("card", "profile", "samples", "gib"), PEAKS)
def test_peaks_within_a_tenth(card: str, profile: str, samples: int, gib: float) -> None:
    found = held(work_of(profile, samples), named(card))
    assert found.fit.recompute == "nothing"
    assert found.fits
    assert found.peak / GIB == pytest.approx(gib, rel=0.1)


@pytest.mark.parametrize(("samples", "gib"), [(224, 70.3), (248, 74.8), (256, 76.8)])
def test_peaks_of_a_larger_model(samples: int, gib: float) -> None:
    found = held(work_of("ner", samples), made=model_of("glm4-9b"))
    assert found.fit.recompute == "nothing"
    assert found.without / GIB == pytest.approx(gib, rel=0.1)


def test_five_gib_are_enough_with_layers_computed_again() -> None:
    found = held(work_of("ner", 16), Machine("little", 5.0, None, ""), model={"name": "some", "placement": "one"})
    assert found.fits
    assert found.fit.recompute == "layer"
    assert found.peak / GIB == pytest.approx(3.9, rel=0.1)


@pytest.mark.parametrize(("card", "profile", "samples", "rate"), RATES)
def test_samples_a_second_within_the_factor_that_is_told(card: str, profile: str, samples: int, rate: int) -> None:
    work, machine, model = work_of(profile, samples), named(card), model_of()
    taken = minutes(model, work, machine, held(work, machine))
    assert taken is not None
    reckoned = work.steps * work.rows / work.per_epoch / (60 * taken.training)
    assert rate / taken.factor < reckoned < rate * taken.factor
    assert reckoned == pytest.approx(rate, rel=0.2)


def test_samples_a_second_on_two_slow_cores() -> None:
    cpu, work, model = Machine("CPU", 16.0, 0.21e12, "", cpu=True), work_of("ner", 16), model_of("smollm2-135m")
    taken = minutes(model, work, cpu, held(work, cpu, model))
    assert taken is not None
    assert work.steps * 16 / (60 * taken.training) == pytest.approx(4.96, rel=0.2)


@given(st.integers(1, 10**6), st.integers(1, 40_000), st.lists(st.floats(0, 8e10), min_size=3, max_size=3))
def test_what_is_chosen(each: int, longest: int, free: list[float]) -> None:
    """The first kind that has room for the longest row and a pack that is large enough; else the last."""
    asked = iter(zip([each] * 3, free, strict=True))
    fit = chosen(lambda kind: next(asked), None, DEFAULT["cuda"], longest)
    enough = [room // each >= max(longest, 1024) for room in free]
    assert fit.recompute == next((kind for kind, there in zip(KINDS, enough, strict=True) if there), "layer")
    assert 256 <= fit.tokens <= DEFAULT["cuda"]
