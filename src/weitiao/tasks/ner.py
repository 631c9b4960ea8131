"""Named-entity recognition: the spans of a text that name something, each with its type.

A row is `{"text": …, "entities": [{"start": 0, "end": 2, "type": "地点", "text": "南京"}]}`; offsets are code points,
end-exclusive. The tutorial's `start_idx, end_idx, entity_text, entity_label, entity_names` are read too, and
entities without offsets are looked up from left to right. Mentions may repeat and nest.

    system   instruction · the types, with their descriptions
    user     the images, if any · the text (shrinkable)
    answer   the mentions in reading order, as `entity_formats` writes them

The model writes no offsets: a small model cannot count. They are found again by a search from left to right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Literal

from pydantic import Field, field_validator

from weitiao.config import nearest_label, suggestion
from weitiao.errors import ConfigError, DataError, LabelError, OffsetsError
from weitiao.images import IMAGE_NAMES
from weitiao.metrics.classification import f1
from weitiao.metrics.entities import Entity, document_counts, measure_entities
from weitiao.metrics.intervals import Counts, Statistic
from weitiao.tasks.base import Example, Task, TaskOptions
from weitiao.tasks.entity_formats import FORMATS, Pair
from weitiao.tasks.merge import merged_entities, reading_order
from weitiao.tasks.spans import Source, chunks, nfc, places
from weitiao.types import Constraint, Grammar, Message, Prediction, Row, Span, TextPart

INSTRUCTIONS = {
    ("zh", "lines"): "找出文本中的实体，按出现顺序输出，每行一个：实体原文，制表符，类型。没有实体时输出“无”。",
    (
        "zh",
        "json",
    ): '找出文本中的实体，按出现顺序输出 JSON 数组：[{"text":"实体原文","type":"类型"}]。没有实体时输出 []。',
    (
        "en",
        "lines",
    ): "Find the entities in the text. Write one a line in reading order: the exact text, a tab, the type. "
    "Write “none” if there is none.",
    ("en", "json"): "Find the entities in the text. Write them in reading order as a JSON array: "
    '[{"text":"exact text","type":"type"}]. Write [] if there is none.',
}
HEADINGS = {"zh": ("类型：", "文本："), "en": ("Types:", "Text: ")}
NOTHING = {"zh": "无", "en": "none"}
KEYS: Mapping[str, tuple[str, ...]] = {
    "start": ("start", "start_idx"),
    "end": ("end", "end_idx"),
    "type": ("type", "label", "entity_label"),
    "text": ("text", "entity_text"),
}


class NerOptions(TaskOptions):
    name: Literal["ner"] = "ner"
    types: list[str] | None = Field(None, min_length=1)
    """Entity types, in the order of the prompt; by default those of the training rows, sorted."""
    type_descriptions: dict[str, str] = {}
    """Type → a few words that say what belongs there, added to the prompt."""
    other_types: Literal["refuse", "ignore"] = "refuse"
    """What happens to an entity whose type is not in `types`."""
    output_format: Literal["lines", "json"] = "lines"
    """How the answer is written; `lines` takes half the tokens of `json`."""

    @field_validator("types")
    @classmethod
    def _clean(cls, types: list[str] | None) -> list[str] | None:
        for kind in types or ():
            if not is_type(kind):
                raise ValueError(f"type {kind!r} is empty or holds a tab or a line break")
        if types and len(set(types)) < len(types):
            raise ValueError("a type is listed twice")
        return types


@dataclass(frozen=True)
class NerExample(Example):
    answer: tuple[Entity, ...] | None = None


class Ner(Task):
    Options = NerOptions
    headline = "f1"
    in_windows = True
    fields = {"text": ("text", "sentence", "content"), "entities": ("entities", "spans"), "image": IMAGE_NAMES}
    options: NerOptions

    @classmethod
    def resolve(cls, options: NerOptions, rows: Sequence[Row]) -> NerOptions:
        options = super().resolve(options, rows)
        if options.types is None:
            options = options.model_copy(update={"types": cls._types_in(rows)})
        types = options.types or []
        for kind in options.type_descriptions:
            if kind not in types:
                raise ConfigError(
                    f"key `task.type_descriptions` describes {kind!r}, which is no type; "
                    + suggestion(kind, types, f"types: {', '.join(types)}", nearest_label)
                )
        return options

    @classmethod
    def _types_in(cls, rows: Sequence[Row]) -> list[str]:
        found = set()
        for row in rows:
            for item in cls._entities_in(row) or ():
                kind = _get(item, "type", row)
                if not is_type(kind):
                    raise DataError(f"{row.place}: type {kind!r} is empty or holds a tab or a line break; rename it")
                found.add(kind)
        if not found:
            raise DataError("no training row has an entity; set data.columns.entities, or list task.types")
        return sorted(found)

    @classmethod
    def _entities_in(cls, row: Row) -> list[Any] | None:
        value = cls.field(row, "entities")
        if value is None or value == "":
            return None
        if isinstance(value, str) and value.lstrip().startswith("["):  # a cell of a table
            value = _list_in_cell(value, row)
        if not isinstance(value, list | tuple):
            raise DataError(f"{row.place}: `entities` must be a list, found {type(value).__name__} {value!r:.60}")
        return list(value)

    def example(self, row: Row, labelled: bool = True) -> NerExample:
        read = NerExample(row, self.text_of(row), images=self.images_of(row))
        items = self._entities_in(row) if labelled or self.answered(row, "entities") else None
        if items is None:
            if labelled:
                raise DataError(f"{row.place}: no entities; wanted a list 'entities' (empty if there is none)")
            return read
        items = [self._with_listed_type(item) for item in items]
        kept = [item for item in items if self._accepted(_get(item, "type", row), row)]
        if any(_optional(item, "start") is None for item in kept):
            return replace(read, answer=self._looked_up(kept, read.text, row))
        entities = {_located(item, read.text, row) for item in kept}
        return replace(read, answer=tuple(sorted(entities, key=reading_order)))

    def _with_listed_type(self, item: Any) -> Any:
        """With `"entity_label": "LOC", "entity_names": ["地点", …]`, as in ccfbdci, the name that is in the set."""
        names = item.get("entity_names") if isinstance(item, Mapping) else None
        listed = [name for name in names or () if name in (self.options.types or ())]
        return {**item, "type": listed[0]} if listed and "type" not in item else item

    def _accepted(self, kind: str, row: Row) -> bool:
        types = self.options.types or []
        if kind in types:
            return True
        if self.options.other_types == "ignore":
            return False
        raise LabelError(
            f"{row.place}: entity type {kind!r} is outside the set ({', '.join(types)}); "
            + suggestion(kind, types, "add it to task.types, or set task.other_types=ignore", nearest_label)
        )

    def _looked_up(self, items: Sequence[Any], text: str, row: Row) -> tuple[Entity, ...]:
        pairs = [(_get(item, "text", row), _get(item, "type", row)) for item in items]
        entities = ground(pairs, text)
        if not all(entity.found for entity in entities):
            # A file may list entities by type, say; then each text is looked up for itself.
            entities = ground(pairs, text, in_order=False)
        for entity in entities:
            if not entity.found:
                raise OffsetsError(f"{row.place}: entity {entity.text!r} does not occur (again) in the text")
        return tuple(sorted(entities, key=reading_order))

    def prompt(self, example: Example) -> tuple[Message, ...]:
        language = self.options.language or "zh"
        types_heading, text_heading = HEADINGS[language]
        system = self.options.instruction or INSTRUCTIONS[language, self.options.output_format]
        system += f"\n{types_heading}\n" + "\n".join(map(self._described, self.options.types or ()))
        text = (TextPart(text_heading), TextPart(example.text, shrinkable=True))
        return Message.of("system", system), Message("user", (*example.image_parts, *text))

    def _described(self, kind: str) -> str:
        description = self.options.type_descriptions.get(kind)
        return f"{kind}：{description}" if description else kind

    @property
    def format(self) -> Any:
        return FORMATS[self.options.output_format]

    @property
    def _nothing(self) -> str:
        return NOTHING[self.options.language or "zh"]

    def target(self, answer: Sequence[Entity]) -> str:
        return str(self.format.write([(entity.text, entity.type) for entity in answer], self._nothing))

    def seen(self, answer: tuple[Entity, ...], gap: Span | None) -> tuple[Entity, ...]:
        if gap is None:
            return answer
        return tuple(entity for entity in answer if entity.end <= gap[0] or gap[1] <= entity.start)

    def parse(self, text: str, example: Example) -> tuple[Entity, ...] | None:
        return self.read(text, example)[0]

    def read(self, text: str, example: Example) -> tuple[tuple[Entity, ...] | None, tuple[Span, ...]]:
        pairs = self.format.read(text, self._nothing)
        types = {nfc(kind): kind for kind in self.options.types or ()}
        if pairs is None or any(nfc(kind) not in types for _, kind in pairs):
            return None, ()
        source = Source(example.text)
        found = ground([(wanted, types[nfc(kind)]) for wanted, kind in pairs], example.text)
        # What is named more often than it occurs is dropped; what does not occur at all stays, and counts as wrong.
        kept = [entity.found or source.find(entity.text) is None for entity in found]
        ends = self.format.ends(text, self._nothing)
        written = zip([0, *ends], ends, strict=False)
        return tuple(compress(found, kept)), tuple(compress(written, kept))

    def merged(self, windows: Sequence[tuple[Span, Prediction]], example: Example) -> Prediction:
        found = merged_entities(
            [(span, list(zip(told.answer or (), told.parts, strict=True))) for span, told in windows]
        )
        chances = [told.probability for _, told in windows]
        whole = None if None in chances else math.prod(chance for chance in chances if chance is not None)
        answer = tuple(entity for entity, _ in found)
        return Prediction(answer, self.target(answer), whole, parts=tuple(chance for _, chance in found))

    def spent(self, text: str, example: Example) -> bool:
        pairs = self.format.read(self.complete_part(text), self._nothing) or ()
        return any(not entity.found for entity in ground(pairs, example.text))

    def complete_part(self, text: str) -> str:
        return str(self.format.complete_part(text) or self.format.write((), self._nothing))

    def constraint(self, example: Example, normalize: Callable[[str], str]) -> Constraint:
        types = [normalize(kind) for kind in self.options.types or ()]
        return Grammar(self.format.lark(chunks(example.text, normalize), types, self._nothing))

    def record(self, answer: Sequence[Entity] | None) -> Any:
        if answer is None:
            return None
        return [{"start": e.start, "end": e.end, "type": e.type, "text": e.text} for e in answer]

    def told(self, prediction: Prediction) -> Any:
        record = self.record(prediction.answer)
        for told, chance in zip(record or (), prediction.parts, strict=False):  # baselines know none
            told["probability"] = chance
        return record

    def read_record(self, record: Any) -> tuple[Entity, ...] | None:
        return None if record is None else tuple(Entity(e["start"], e["end"], e["type"], e["text"]) for e in record)

    def named(self, answer: Sequence[Entity]) -> tuple[str, ...]:
        return tuple(entity.type for entity in answer)

    def counts(self, answers: Sequence[Any], examples: Sequence[Example]) -> tuple[Counts, Statistic]:
        return document_counts(answers, [e.answer or () for e in examples]), f1

    def right(self, answer: Sequence[Entity] | None, example: Example) -> bool:
        return answer is not None and not document_counts([answer], [example.answer or ()])[0, 1:].any()

    def stratum(self, example: Example) -> str:
        return "; ".join(sorted({entity.type for entity in example.answer or ()}))

    def measure(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        answers = [prediction.answer for prediction in predictions]
        references = [example.answer or () for example in examples]
        chances = [prediction.probability for prediction in predictions]
        return measure_entities(answers, references, self.options.types or (), chances, bootstrap=bootstrap, seed=seed)


def is_type(text: str) -> bool:
    return bool(text.strip()) and not any(c in text for c in "\t\n\r")


def ground(pairs: Sequence[Pair], text: str, in_order: bool = True) -> tuple[Entity, ...]:
    """The pairs as entities, where `spans.places` finds them in the text; what is not found has the offsets -1, -1."""
    found = zip(pairs, places(pairs, text, in_order), strict=True)
    return tuple(
        Entity(place[0], place[1], kind, text[place[0] : place[1]]) if place else Entity(-1, -1, kind, written)
        for (written, kind), place in found
    )


def _optional(item: Any, key: str) -> Any:
    return next((item[name] for name in KEYS[key] if name in item), None)


def _get(item: Any, key: str, row: Row) -> str:
    value = _optional(item, key) if isinstance(item, Mapping) else None
    if not isinstance(value, str) or not value:
        raise DataError(f"{row.place}: entity {item!r:.80} has no `{key}`; wanted start, end, type and text")
    return value


def _located(item: Any, text: str, row: Row) -> Entity:
    start, end, kind = _optional(item, "start"), _optional(item, "end"), _get(item, "type", row)
    if any(isinstance(n, bool) or not isinstance(n, int) for n in (start, end)) or not 0 <= start <= end <= len(text):
        raise OffsetsError(
            f"{row.place}: entity {item!r:.80} has offsets {start!r}, {end!r}; wanted 0 ≤ start < end ≤ {len(text)}"
        )
    told = _optional(item, "text")
    # Some corpora count the end inclusively; the entity's own text tells.
    for stop in (end, end + 1) if told is not None else (end,):
        span = text[start:stop]
        if span and (told is None or span == told):
            return Entity(start, stop, kind, span)
    raise OffsetsError(
        f"{row.place}: entity text {told!r} disagrees with offsets {start}:{end}, "
        f"where the text has {text[start:end]!r}; offsets are code points, end-exclusive"
    )


TASK = Ner


def _list_in_cell(cell: str, row: Row) -> Any:
    try:
        return json.loads(cell)
    except ValueError as error:
        raise DataError(
            f"{row.place}: `entities` is {cell!r:.60}, which is no valid JSON ({error}); correct the cell"
        ) from None
