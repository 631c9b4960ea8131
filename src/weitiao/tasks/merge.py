"""Entities that were found in overlapping windows of one text, as one answer.

    found by several windows     one entity, as the window saw it in which it lies farthest from a cut
    found by one of them         kept, unless it is in conflict with a better one
    in conflict                  two that overlap, with other borders or another type, and that no window found both
    better                       farther from the nearest cut of its window; then the likelier one

A cut is a window's end that is not the text's: beside it a window sees no context, and an entity may be cut itself.
Entities that one window found both, such as nested ones, are never in conflict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from weitiao.metrics.entities import Entity
from weitiao.types import Span

Chance = tuple[Entity, float]
"""An entity and its probability."""
View = tuple[float, float, int]
"""Of an entity in a window: code points to the nearest cut, its probability there, and which window that is."""


def merged_entities(windows: Sequence[tuple[Span, Sequence[Chance]]]) -> list[Chance]:
    """Entities of the whole text in reading order; those that are in no place of it (start −1) stand last, once each.

    windows: where each stands in the text, in order, and its entities, whose offsets are the window's own.
    """
    views: dict[Entity, list[View]] = {}
    for at, (span, found) in enumerate(windows):
        for entity, chance in found:
            placed = _moved(entity, span[0])
            views.setdefault(placed, []).append((_to_a_cut(placed, span, at, len(windows)), chance, at))
    best = {entity: max(seen) for entity, seen in views.items()}
    kept: list[list[Entity]] = [[] for _ in windows]
    for entity in sorted(best, key=lambda e: (-best[e][0], -best[e][1], reading_order(e))):
        own = {at for _, _, at in views[entity]}
        beside = [at for at, (span, _) in enumerate(windows) if at not in own and _overlap(entity, span)]
        rivals = [rival for at in beside for rival in kept[at] if _overlap(entity, (rival.start, rival.end))]
        if all(own & {at for _, _, at in views[rival]} for rival in rivals):
            for at in own:
                kept[at].append(entity)
    all_kept = {entity for entities in kept for entity in entities}
    return [(entity, best[entity][1]) for entity in sorted(all_kept, key=lambda e: (not e.found, *reading_order(e)))]


def reading_order(entity: Entity) -> tuple[int, int, str, str]:
    return entity.start, -entity.end, entity.type, entity.text


def _moved(entity: Entity, by: int) -> Entity:
    return replace(entity, start=entity.start + by, end=entity.end + by) if entity.found else entity


def _to_a_cut(entity: Entity, span: Span, at: int, windows: int) -> float:
    before = entity.start - span[0] if at else math.inf
    behind = span[1] - entity.end if at < windows - 1 else math.inf
    return min(before, behind) if entity.found else 0


def _overlap(entity: Entity, span: Span) -> bool:
    return entity.found and entity.start < span[1] and span[0] < entity.end
