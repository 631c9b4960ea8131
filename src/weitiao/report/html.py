"""The page templates: filled in, and what they may call. Whatever comes from a run is escaped by jinja itself."""

from __future__ import annotations

import functools
import json
from typing import Any

from weitiao.report.marks import KINDS, clipped, marks, segments
from weitiao.report.mistakes import references, shortened
from weitiao.report.run import Answered
from weitiao.report.verdict import split_name
from weitiao.report.words import Words, interval, number, percent, signed

SIGNS = {"hit": "✓", "missed": "−", "invented": "+", "type": "≠", "boundary": "↔"}
"""Beside its colour, so that a mark can be read without it."""


def render(template: str, w: Words, **values: Any) -> str:
    return str(_environment().get_template(template).render(w=w, **values))


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("weitiao.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, shown=shown, signed=signed, plain=plain)
    environment.globals.update(
        interval=interval, marked=marked, strays=strays, shortened=shortened, references=references
    )
    environment.globals.update(split_name=split_name, KINDS=KINDS, SIGNS=SIGNS)
    return environment


def marked(row: Answered) -> Any:
    """Segments of a row's text with the entities of its reference and of its answer, clipped to the mistakes."""
    return clipped(segments(row.example.text, marks(row.example.answer or (), row.answer or ())))


def strays(row: Answered) -> list[Any]:
    """Answered entities that stand nowhere in the text."""
    return [entity for entity in row.answer or () if not entity.found]


def plain(value: Any) -> str:
    """A value of a config as JSON, in which a text and a number look different only where they must."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(answer: Any, w: Words) -> str:
    """A label, or several, as text."""
    if answer is None:
        return w["invalid_answer"]
    if isinstance(answer, tuple | list):
        return ", ".join(map(str, answer)) or w["no_label"]
    return str(answer)
