"""Entities marked in a text: the text stays what it was, and each entity is told once, as what it is."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from report.pages import checked
from weitiao.metrics.entities import Entity, document_counts
from weitiao.report.html import _environment
from weitiao.report.marks import KINDS, Mark, clipped, marks, segments
from weitiao.report.run import Answered
from weitiao.report.words import Words
from weitiao.tasks.ner import NerExample
from weitiao.types import Row

TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("<>&\"'南京🙂\n"), min_size=1, max_size=60
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, tuple[Entity, ...], tuple[Entity, ...]]:
    """A text, and two lists of entities that may nest, overlap, repeat, and stand nowhere."""
    text = draw(TEXTS)
    start = st.integers(0, len(text) - 1)

    def entity(first: int, size: int, kind: str, found: bool) -> Entity:
        end = min(first + size, len(text))
        return Entity(first, end, kind, text[first:end]) if found else Entity(-1, -1, kind, "?")

    found = st.sampled_from([True] * 7 + [False])
    entities = st.lists(st.builds(entity, start, st.integers(1, 9), st.sampled_from("ab"), found), max_size=6)
    return text, tuple(draw(entities)), tuple(draw(entities))


@given(documents())
def test_segments_are_the_text(document: tuple[str, tuple[Entity, ...], tuple[Entity, ...]]) -> None:
    text, reference, answer = document
    parts = segments(text, marks(reference, answer))
    assert "".join(part.text for part in parts) == text
    for kind in ("wanted", "answered"):
        place = 0
        for part in parts:
            entities = reference if kind == "wanted" else answer
            covered = any(e.found and e.start <= place and place + len(part.text) <= e.end for e in entities)
            assert getattr(part, kind) == covered, (kind, part)
            place += len(part.text)


@given(documents())
def test_marks_agree_with_the_metric(document: tuple[str, tuple[Entity, ...], tuple[Entity, ...]]) -> None:
    _, reference, answer = document
    found = marks(reference, answer)
    (tp, fp, fn), *_ = document_counts([answer], [reference])
    assert sum(mark.kind == "hit" for mark in found) == tp
    assert sum(mark.kind != "hit" and mark.answered is not None for mark in found) == fp
    assert sum(mark.kind != "hit" and mark.wanted is not None for mark in found) == fn
    assert {mark.kind for mark in found} <= set(KINDS)


@given(documents())
def test_html_is_the_text(document: tuple[str, tuple[Entity, ...], tuple[Entity, ...]]) -> None:
    text, reference, answer = document
    row = Answered(NerExample(Row({}, "f", 1), text, reference), answer, 0.5, False)
    w = Words("en")
    html = str(_environment().get_template("parts.html.j2").module.entities(row, w))
    checked(f"<div>{html}</div>")
    paragraph = re.search(r'<p class="text">(.*?)</p>', html, flags=re.DOTALL)
    assert paragraph is not None
    plain = re.sub(r'<span class="tag.*?</span>', "", paragraph[1], flags=re.DOTALL)
    assert unescape(re.sub(r"<[^>]*>", "", plain)) == text


@given(documents(), st.integers(0, 12), st.integers(0, 40))
def test_clipping_keeps_every_mistake(
    document: tuple[str, tuple[Entity, ...], tuple[Entity, ...]], context: int, whole: int
) -> None:
    text, reference, answer = document
    parts = segments(text, marks(reference, answer))
    kept = clipped(parts, context, whole)
    assert sum(len(part.text) + part.left_out for part in kept) == len(text)
    place = 0
    for part in kept:
        assert text[place : place + len(part.text)] == part.text
        place += len(part.text) + part.left_out
    wrong = [part for part in parts if part.kind not in ("", "hit")]
    assert [part for part in kept if part.kind not in ("", "hit")] == wrong


def test_each_kind() -> None:
    def entity(start: int, end: int, kind: str) -> Entity:
        return Entity(start, end, kind, "x" * (end - start))

    reference = [entity(0, 2, "a"), entity(3, 5, "a"), entity(6, 9, "a"), entity(10, 12, "a")]
    answer = [entity(0, 2, "a"), entity(3, 5, "b"), entity(6, 8, "a"), entity(20, 22, "b"), Entity(-1, -1, "a", "q")]
    assert [(m.start, m.end, m.kind, m.wanted, m.answered) for m in marks(reference, answer)] == [
        (-1, -1, "invented", None, "a"),
        (0, 2, "hit", "a", "a"),
        (3, 5, "type", "a", "b"),
        (6, 9, "boundary", "a", None),
        (6, 8, "boundary", None, "a"),
        (10, 12, "missed", "a", None),
        (20, 22, "invented", None, "b"),
    ]


def test_one_tag_for_one_entity_of_another_extent() -> None:
    found = [Mark(0, 4, "boundary", "a", None), Mark(0, 3, "boundary", None, "a")]
    assert [len(part.ends) for part in segments("南京市长", found)] == [0, 1]


def test_long_text_without_marks_keeps_head_and_tail() -> None:
    text = "ab" * 5000
    head, gap, tail = clipped(segments(text, []))
    assert text.startswith(head.text)
    assert text.endswith(tail.text)
    assert gap.left_out == len(text) - len(head.text) - len(tail.text) > 9000
