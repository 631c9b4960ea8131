"""Metrics of named entities, each a stretch of one document's text with a type.

The headline is micro-F1 over exact (document, start, end, type). Conventions:

    sets                within a document, an entity that is listed twice counts once
    not found           an entity with start −1 is in no place of the text: it never matches, and each different text
                        of it counts as one false positive (in an answer) or one miss (in a reference)
    unknown types       an answered type outside `types` is a false positive
    invalid             a row whose answer is None predicts no entity
    0/0                 0.0: F1 of a file without any entity, in references and answers, is 0.0
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weitiao.metrics.classification import by_class, calibration, f1, macro_f1, precision_recall
from weitiao.metrics.intervals import Counts, with_interval


@dataclass(frozen=True, slots=True)
class Entity:
    """`text` at code points `start` (inclusive) to `end` (exclusive) of a document; start −1: not found in it."""

    start: int
    end: int
    type: str
    text: str

    @property
    def found(self) -> bool:
        return self.start >= 0


Document = Sequence[Entity]


def measure_entities(
    predicted: Sequence[Document | None],
    reference: Sequence[Document],
    types: Sequence[str] | None,
    probabilities: Sequence[float | None] | None = None,
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """f1 (with interval), precision and recall, and f1 by other standards of equality.

    types: the types that `per_type` and `macro_f1` speak of; None: what occurs in references and answers.
    probabilities: of each whole answer; adds `ece` and `nll`, see `calibration`: an answer is right when all of it is.
    `text_f1`: (text, type) as a multiset per document, offsets ignored. `boundary_f1`: offsets, types ignored.
    `macro_f1`: mean over those of `types` that occur in a reference or an answer.
    `entities`, `predicted_entities`: distinct ones in references and answers; `support`: in references, by type.
    Raises ValueError when there are no rows, lengths differ or a reference has a type outside `types`.
    """
    if len(predicted) != len(reference):
        raise ValueError(f"{len(predicted)} answers for {len(reference)} references")
    answers = [answer or () for answer in predicted]
    names = _type_set(types, reference, answers)
    documents = list(zip(answers, reference, strict=True))
    exact = [_compare(a, r, _place_and_type) for a, r in documents]
    per_document = _sizes(exact)
    interval = with_interval("f1", per_document, f1, resamples=bootstrap, seed=seed)
    tp, fp, fn = total = per_document.sum(axis=0)
    per_type = _counts_per_type(exact, names)
    valid = np.array([answer is not None for answer in predicted])
    boundaries = [[len(keys) for keys in _compare(a, r, _place)] for a, r in documents]
    return {
        **interval,
        **precision_recall(total),
        "text_f1": float(f1(np.sum([_compare_texts(a, r) for a, r in documents], axis=0))),
        "boundary_f1": float(f1(np.sum(boundaries, axis=0))),
        "macro_f1": float(macro_f1(per_type)),
        "invalid": float(np.mean(~valid)),
        "rows": len(reference),
        "entities": int(tp + fn),
        "predicted_entities": int(tp + fp),
        **calibration(probabilities, valid & ~per_document[:, 1:].any(axis=1)),
        "per_type": by_class(names, per_type),
    }


def document_counts(predicted: Sequence[Document | None], reference: Sequence[Document]) -> Counts:
    """True positives, false positives and misses of each document, exact as in `f1`: [documents, 3]."""
    return _sizes([_compare(a or (), r, _place_and_type) for a, r in zip(predicted, reference, strict=True)])


Key = Callable[[Entity], Hashable]
Outcome = tuple[set[Any], set[Any], set[Any]]
"""Keys of one document's hits, false positives and misses."""


def _sizes(outcomes: Sequence[Outcome]) -> Counts:
    return np.array([[len(keys) for keys in outcome] for outcome in outcomes])


def _place(entity: Entity) -> Hashable:
    return (entity.start, entity.end) if entity.found else entity.text


def _place_and_type(entity: Entity) -> Hashable:
    return _place(entity), entity.type


def _compare(answer: Document, reference: Document, key: Key) -> Outcome:
    told, wanted = {key(e) for e in answer}, {key(e) for e in reference}
    hits = wanted & {key(e) for e in answer if e.found}
    return hits, told - hits, wanted - hits


def _compare_texts(answer: Document, reference: Document) -> tuple[int, int, int]:
    told, wanted = (Counter((e.text, e.type) for e in document) for document in (answer, reference))
    hits = (told & wanted).total()
    return hits, told.total() - hits, wanted.total() - hits


def _counts_per_type(exact: Sequence[Outcome], names: Sequence[str]) -> Counts:
    """True positives, false positives and misses of each type, [types · 3]."""
    found = [Counter(type_ for outcome in exact for _, type_ in outcome[i]) for i in range(3)]
    return np.array([[counter[name] for counter in found] for name in names], dtype=np.int64).reshape(-1)


def _type_set(types: Sequence[str] | None, reference: Sequence[Document], answers: Sequence[Document]) -> list[str]:
    wanted = {e.type for document in reference for e in document}
    if types is None:
        return sorted(wanted.union(e.type for document in answers for e in document))
    outside = wanted.difference(types)
    if outside:
        raise ValueError(f"reference type {min(outside)!r} is outside the types")
    return list(dict.fromkeys(types))
