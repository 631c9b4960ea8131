"""A text with the entities that were wanted and those that were answered, marked in place.

    wanted 南京市 地点, answered 南京 地点      two marks of the kind `boundary`, 0:3 wanted and 0:2 answered
    segments                                   南京 (wanted, answered) · 市 (wanted)

Marks may nest and overlap, HTML elements may not: the text is cut wherever a mark begins or ends, and each segment says
which marks lie on it. The segments' texts together are the text. Offsets are code points, the end exclusive.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from weitiao.metrics.entities import Entity

KINDS = ("type", "boundary", "missed", "invented", "hit")
"""What a mark says, the one that a segment shows first where several lie on it."""
CONTEXT = 60
"""Code points that are kept on each side of a mistake when a text is clipped."""
WHOLE = 400
"""Code points up to which a text is shown whole."""


@dataclass(frozen=True, slots=True)
class Mark:
    start: int
    end: int
    kind: str
    wanted: str | None
    """Type in the reference, where the mark is one there."""
    answered: str | None
    """Type in the answer, where the mark is one there."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    marks: tuple[Mark, ...] = ()
    ends: tuple[Mark, ...] = ()
    """Those whose tag stands behind this segment, the outermost last: they end with it."""
    left_out: int = 0
    """Code points of the text that were clipped here, in place of a text."""

    @property
    def kind(self) -> str:
        return min((mark.kind for mark in self.marks), key=KINDS.index, default="")

    @property
    def wanted(self) -> bool:
        return any(mark.wanted is not None for mark in self.marks)

    @property
    def answered(self) -> bool:
        return any(mark.answered is not None for mark in self.marks)


def marks(reference: Sequence[Entity], answer: Sequence[Entity]) -> list[Mark]:
    """What the answer found (`hit`), found with another type (`type`) or another extent (`boundary`), did not find
    (`missed`) and made up (`invented`). An entity that is in no place of the text has the start −1."""
    wanted, told = dict.fromkeys(reference), dict.fromkeys(answer)
    found = []
    for entity in [e for e in wanted if e in told and e.found]:
        found.append(Mark(entity.start, entity.end, "hit", entity.type, entity.type, entity.text))
        del wanted[entity], told[entity]
    for entity in list(wanted):
        other = next((e for e in told if e.found and (e.start, e.end) == (entity.start, entity.end)), None)
        if other is not None:
            found.append(Mark(entity.start, entity.end, "type", entity.type, other.type, entity.text))
            del wanted[entity], told[other]
    for entity in wanted:
        kind = "boundary" if any(_overlap(entity, other) for other in told) else "missed"
        found.append(Mark(entity.start, entity.end, kind, entity.type, None, entity.text))
    for entity in told:
        kind = "boundary" if any(_overlap(entity, other) for other in wanted) else "invented"
        found.append(Mark(entity.start, entity.end, kind, None, entity.type, entity.text))
    return sorted(found, key=lambda mark: (mark.start, -mark.end))


def segments(text: str, found: Sequence[Mark]) -> list[Segment]:
    """The text cut at all ends of the marks; marks outside of the text are left out."""
    inside = [mark for mark in found if 0 <= mark.start < mark.end <= len(text)]
    cuts = sorted({0, len(text), *(mark.start for mark in inside), *(mark.end for mark in inside)})
    return [
        Segment(
            text[start:end],
            tuple(mark for mark in inside if mark.start <= start and end <= mark.end),
            tuple(sorted((m for m in inside if m.end == end and not _told_later(m, inside)), key=lambda m: -m.start)),
        )
        for start, end in itertools.pairwise(cuts)
    ]


def clipped(parts: Sequence[Segment], context: int = CONTEXT, whole: int = WHOLE) -> list[Segment]:
    """The segments, without what is far from every mistake when the text is long; a segment with `left_out` says how
    much. Where nothing is marked, the text's head and tail stay."""
    if sum(len(part.text) for part in parts) <= whole:
        return list(parts)
    near = _near_mistakes(parts, context)
    found: list[Segment] = []
    for part, keep in zip(parts, near, strict=True):
        for piece in _pieces(part, keep):
            if piece.left_out and found and found[-1].left_out:
                found[-1] = replace(piece, left_out=piece.left_out + found[-1].left_out)
            else:
                found.append(piece)
    return found


def _near_mistakes(parts: Sequence[Segment], context: int) -> list[tuple[int, int]]:
    """How many code points of the head and of the tail of each segment are kept."""
    ends = list(itertools.accumulate(len(part.text) for part in parts))
    spans = list(itertools.pairwise([0, *ends]))
    wrong = [span for part, span in zip(parts, spans, strict=True) if part.kind not in ("", "hit")]
    if not wrong:
        # As if something stood before the text and behind it, which gives its head and its tail twice the context.
        wrong, context = [(0, 0), (ends[-1], ends[-1])], 2 * context
    keep = []
    for start, end in spans:
        if (start, end) in wrong:
            keep.append((end - start, 0))
            continue
        before = max((stop for _, stop in wrong if stop <= start), default=-context)
        after = min((first for first, _ in wrong if first >= end), default=ends[-1] + context)
        keep.append((max(before + context - start, 0), max(end - after + context, 0)))
    return keep


def _pieces(part: Segment, keep: tuple[int, int]) -> Iterator[Segment]:
    head, tail = keep
    size = len(part.text)
    # A cut that hides less than its sign takes is none; marked stretches are shown whole or not at all.
    if head + tail >= size - 4 or (part.marks and head + tail > 0):
        yield part
        return
    if head:
        yield Segment(part.text[:head])
    yield Segment("", left_out=size - head - tail)
    if tail:
        yield Segment(part.text[size - tail :])


def _told_later(mark: Mark, others: Sequence[Mark]) -> bool:
    """Whether a mark of another extent needs no tag of its own: one of the same type that it overlaps ends later."""
    if mark.kind != "boundary":
        return False
    return any(
        other.kind == "boundary"
        and (other.wanted is None) != (mark.wanted is None)
        and (other.wanted or other.answered) == (mark.wanted or mark.answered)
        and other.start < mark.end
        and mark.start < other.end
        and (other.end, other.wanted is not None) > (mark.end, mark.wanted is not None)
        for other in others
    )


def _overlap(first: Entity, second: Entity) -> bool:
    return first.found and second.found and first.start < second.end and second.start < first.end
