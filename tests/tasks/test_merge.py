"""Entities of overlapping windows: none twice, none lost, conflicts decided by the distance from a cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from weitiao.metrics.entities import Entity
from weitiao.tasks.merge import Chance, merged_entities
from weitiao.types import Span

TEXT = "甲乙丙丁戊己庚辛壬癸" * 3


def entity(start: int, end: int, kind: str = "A", base: int = 0) -> Entity:
    """At `start` of TEXT, as a window that begins at `base` counts it."""
    return Entity(start - base, end - base, kind, TEXT[start:end])


@st.composite
def found_in_windows(draw: st.DrawFn) -> list[tuple[Span, list[Chance]]]:
    cuts = sorted(draw(st.sets(st.integers(1, len(TEXT) - 1), max_size=3)))
    ends = [*cuts, len(TEXT)]
    starts = [0, *(draw(st.integers(max(0, cut - 8), cut)) for cut in cuts)]
    starts = list(itertools.accumulate(starts, max))
    windows = []
    for start, end in zip(starts, ends, strict=True):
        sized = st.tuples(st.integers(start, end - 1), st.integers(1, 6), st.sampled_from("AB"))
        told = {((a, min(a + size, end)), kind) for a, size, kind in draw(st.lists(sized, max_size=6))}
        chances = [draw(st.sampled_from([0.25, 0.5, 1.0])) for _ in told]
        lost = [(Entity(-1, -1, "A", "☃"), 0.5)] if draw(st.booleans()) else []
        entities = [entity(a, b, kind, start) for (a, b), kind in told]
        windows.append(((start, end), [*zip(entities, chances, strict=True), *lost]))
    return windows


def overlap(first: Entity, second: Entity) -> bool:
    return first.found and second.found and first.start < second.end and second.start < first.end


@given(found_in_windows())
def test_merging(windows: list[tuple[Span, list[Chance]]]) -> None:
    merged = merged_entities(windows)
    told = dict(merged)
    assert len(told) == len(merged), "none twice"
    by_window = []
    for (start, _), found in windows:
        by_window.append({_moved(e, start): chance for e, chance in found})
    everything = {e for entities in by_window for e in entities}
    assert set(told) <= everything
    places = [(e.start, -e.end) for e, _ in merged if e.found]
    assert places == sorted(places), "in reading order"
    assert all(not e.found for e, _ in merged[len(places) :])
    for e, chance in merged:
        assert chance in {entities[e] for entities in by_window if e in entities}
        assert not e.found or TEXT[e.start : e.end] == e.text
    together = [set(entities) for entities in by_window]
    for e, other in itertools.combinations(told, 2):
        assert not overlap(e, other) or any({e, other} <= entities for entities in together), "a conflict is left"
    for e in everything - set(told):
        rivals = [other for other in told if overlap(e, other) and not any({e, other} <= s for s in together)]
        assert rivals, "lost without a conflict"


@given(found_in_windows())
def test_merging_again_changes_nothing(windows: list[tuple[Span, list[Chance]]]) -> None:
    merged = merged_entities(windows)
    assert merged_entities([((0, len(TEXT)), merged)]) == merged
    inside = [
        ((a, b), [(_moved(e, -a), p) for e, p in merged if not e.found or (a <= e.start and e.end <= b)])
        for (a, b), _ in windows
    ]
    assert merged_entities(inside) == merged


def test_farther_from_a_cut_then_likelier() -> None:
    # Windows 0:12 and 6:30. An entity at 8:12 touches the first one's cut; seen by the second, it begins at 7.
    cut, whole = (entity(8, 12), 0.9), (entity(7, 13, base=6), 0.1)
    assert merge([cut], [whole]) == [(entity(7, 13), 0.1)]
    # At 8:10 it is two from either cut.
    first, second = (entity(8, 10), 0.4), (entity(8, 10, "B", base=6), 0.6)
    assert merge([first], [second]) == [(entity(8, 10, "B"), 0.6)]
    assert merge([(first[0], 0.7)], [second]) == [(entity(8, 10), 0.7)]
    # Found by both, it is one, with the probability of the better view: the first window's begins with the text.
    assert merge([(entity(6, 8), 0.3)], [(entity(6, 8, base=6), 0.9)]) == [(entity(6, 8), 0.3)]
    # Found by one alone, it stays.
    assert merge([cut], []) == [cut]


def test_nested_entities_of_a_window_stay() -> None:
    outer, inner = entity(6, 10), entity(6, 8, "B")
    assert merge([(outer, 0.5), (inner, 0.5)], [(entity(6, 10, base=6), 0.5)]) == [(outer, 0.5), (inner, 0.5)]


def merge(first: Sequence[Chance], second: Sequence[Chance]) -> list[Chance]:
    return merged_entities([((0, 12), first), ((6, len(TEXT)), second)])


def _moved(e: Entity, by: int) -> Entity:
    return Entity(e.start + by, e.end + by, e.type, e.text) if e.found else e
