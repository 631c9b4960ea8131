"""Classification: one label, or several, from a fixed set or from options that come with each row.

A row is `{"text": …, "label": …}`; with `options: row` it brings its own candidates, as in Fudan news:
`{"text": …, "category": ["体育", "经济"], "output": "体育"}`. Several labels are a list, or a string joined by `;`
(`task.label_separator`).

    system   instruction · the fixed labels, with their descriptions
    user     the images, if any · the row's own options, if any · the text (shrinkable; none is needed beside images)
    answer   the label; several: in the set's order, one a line
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from weitiao.config import nearest_label, suggestion
from weitiao.errors import ConfigError, DataError, LabelError
from weitiao.images import IMAGE_NAMES
from weitiao.metrics.classification import f1, hits, measure_multi, measure_single, set_counts, share
from weitiao.metrics.intervals import Counts, Statistic
from weitiao.tasks.base import Example, Task, TaskOptions
from weitiao.types import Choice, Constraint, Message, Prediction, Row, TextPart

INSTRUCTIONS = {
    ("zh", False): "判断文本属于哪一个类别，只输出类别名称。",
    ("zh", True): "判断文本属于哪些类别，每行输出一个类别名称；都不属于时输出“无”。",
    ("en", False): "Decide which category the text belongs to. Answer with the category's name only.",
    ("en", True): "Decide which categories the text belongs to. Write one name a line; write “none” if there is none.",
}
OF_IMAGES = {
    ("zh", False): "判断图片属于哪一个类别，只输出类别名称。",
    ("zh", True): "判断图片属于哪些类别，每行输出一个类别名称；都不属于时输出“无”。",
    ("en", False): "Decide which category the image belongs to. Answer with the category's name only.",
    ("en", True): "Decide which categories the image belongs to. Write one name a line; write “none” if there is none.",
}
HEADINGS = {"zh": ("类别：", "候选类别：", "文本："), "en": ("Categories:", "Candidate categories: ", "Text: ")}
NOTHING = {"zh": "无", "en": "none"}
MOST_CLASSES = 2_000
"""Labels that an automatic set may have; more looks like a column of free text."""


class ClassificationOptions(TaskOptions):
    name: Literal["classification"] = "classification"
    options: Literal["fixed", "row"] | None = None
    """Where the labels come from: one fixed set, or each row's own options; by default what the rows have."""
    labels: list[str] | None = Field(None, min_length=1)
    """The fixed set, in the order of the prompt; by default the labels of the training rows, sorted."""
    label_descriptions: dict[str, str] = {}
    """Label → a few words that say what belongs there, added to the prompt."""
    multi_label: bool = False
    """Whether a row may have any number of labels."""
    label_separator: str = Field(";", min_length=1)
    """What joins several labels where they are one string."""

    @field_validator("labels")
    @classmethod
    def _clean(cls, labels: list[str] | None) -> list[str] | None:
        for label in labels or ():
            if label != label.strip() or not label or "\n" in label:
                raise ValueError(f"label {label!r} is empty, or has a line break or spaces around it")
        if labels and len(set(labels)) < len(labels):
            raise ValueError("a label is listed twice")
        return labels


@dataclass(frozen=True)
class ClassificationExample(Example):
    options: tuple[str, ...] = ()
    """Labels that are allowed for this row, in the order of the prompt."""


class Classification(Task):
    Options = ClassificationOptions
    fields = {
        "text": ("text", "sentence", "content"),
        "label": ("label", "labels", "output"),
        "options": ("options", "category", "categories"),
        "image": IMAGE_NAMES,
    }
    lists_labels = True
    options: ClassificationOptions

    @property
    def headline(self) -> str:  # type: ignore[override]
        return "micro_f1" if self.options.multi_label else "accuracy"

    @property
    def picks_one(self) -> bool:  # type: ignore[override]
        return not self.options.multi_label

    @classmethod
    def resolve(cls, options: ClassificationOptions, rows: Sequence[Row]) -> ClassificationOptions:
        options = super().resolve(options, rows)
        if options.instruction is None and rows and cls.answered(rows[0], "image"):
            instruction = OF_IMAGES[options.language or "zh", options.multi_label]
            options = options.model_copy(update={"instruction": instruction})
        if options.options is None:
            own = options.labels is None and bool(rows) and isinstance(cls.field(rows[0], "options"), list | tuple)
            options = options.model_copy(update={"options": "row" if own else "fixed"})
        if options.options == "row" and options.labels:
            raise ConfigError("key `task.labels` is set, but task.options=row takes each row's own; remove one of them")
        if options.options == "fixed" and options.labels is None:
            options = options.model_copy(update={"labels": cls._labels_in(rows, options)})
        if options.options == "row" and options.label_descriptions:
            raise ConfigError(
                "key `task.label_descriptions` is set, but task.options=row shows a row's own options bare; remove one"
            )
        nothing = NOTHING[options.language or "zh"]
        if options.multi_label and nothing in (options.labels or ()):
            raise ConfigError(
                f"label {nothing!r} is what an answer without any label says; rename it, "
                "or give its rows an empty list and leave it out of task.labels"
            )
        unknown = [label for label in options.label_descriptions if label not in (options.labels or [])]
        if unknown:
            labels = options.labels or []
            raise ConfigError(
                f"key `task.label_descriptions` describes {unknown[0]!r}, which is no label; "
                + suggestion(unknown[0], labels, f"labels: {', '.join(labels)}", nearest_label)
            )
        return options

    @classmethod
    def _labels_in(cls, rows: Sequence[Row], options: ClassificationOptions) -> list[str]:
        found: set[str] = set()
        for row in rows:
            found.update(cls._labels_of(row, options))
            if len(found) > MOST_CLASSES:
                raise DataError(
                    f"{row.place}: more than {MOST_CLASSES} different labels up to here; "
                    "is data.columns.label right? (task.labels accepts a longer list)"
                )
        if not found:
            raise DataError("no training row has a label; set data.columns.label to the column that holds it")
        return sorted(found)

    @classmethod
    def _labels_of(cls, row: Row, options: ClassificationOptions) -> tuple[str, ...]:
        many = options.multi_label
        value = cls.field(row, "label")
        if value is None:
            raise DataError(f"{row.place}: no label; wanted a field 'label' (or set data.columns.label)")
        values = (
            value
            if isinstance(value, list | tuple)
            else value.split(options.label_separator)
            if many and isinstance(value, str)
            else [value]
        )
        labels = tuple(_as_label(item, row) for item in values if not (many and item == ""))
        if not many and len(labels) != 1:
            raise DataError(f"{row.place}: {len(labels)} labels; wanted one (or set task.multi_label=true)")
        return labels

    def example(self, row: Row, labelled: bool = True) -> ClassificationExample:
        images = self.images_of(row)
        text = self.text_of(row, optional=bool(images))
        allowed = self._allowed(row)
        if not labelled and not self.answered(row, "label"):
            return ClassificationExample(row, text, None, allowed, images=images)
        labels = self._labels_of(row, self.options)
        for label in labels:
            if label not in allowed:
                hint = nearest_label(label, allowed)
                raise LabelError(
                    f"{row.place}: label {label!r} is outside the "
                    + ("row's options" if self.options.options == "row" else "label set")
                    + (f"; did you mean {hint!r}?" if hint else f" ({', '.join(allowed[:20])})")
                )
        ordered = tuple(label for label in allowed if label in labels)
        answer = ordered if self.options.multi_label else labels[0]
        return ClassificationExample(row, text, answer, allowed, images=images)

    def _allowed(self, row: Row) -> tuple[str, ...]:
        if self.options.options == "fixed":
            return tuple(self.options.labels or ())
        value = self.field(row, "options")
        if isinstance(value, str):
            value = [part for part in value.split(";") if part.strip()]
        if not isinstance(value, list | tuple) or not value:
            raise DataError(
                f"{row.place}: no options; wanted a list 'options' or 'category' (or set task.options=fixed)"
            )
        # Repeated options would split one label's probability over two.
        allowed = tuple(dict.fromkeys(_as_label(item, row) for item in value))
        if self.options.multi_label and self._nothing in allowed:
            raise DataError(
                f"{row.place}: option {self._nothing!r} is what an answer without any label says; remove it"
            )
        return allowed

    def prompt(self, example: Example) -> tuple[Message, ...]:
        assert isinstance(example, ClassificationExample)
        language = self.options.language or "zh"
        heading, own_heading, text_heading = HEADINGS[language]
        system = self.options.instruction or INSTRUCTIONS[language, self.options.multi_label]
        if self.options.options == "fixed":
            system += f"\n{heading}\n" + "\n".join(map(self._described, self.options.labels or ()))
            own = ""
        else:
            own = own_heading + ("、" if language == "zh" else ", ").join(example.options) + "\n"
        parts: tuple[TextPart, ...] = (TextPart(own + text_heading), TextPart(example.text, shrinkable=True))
        if not example.text:
            parts = (TextPart(own),) if own else ()
        return Message.of("system", system), Message("user", (*example.image_parts, *parts))

    def _described(self, label: str) -> str:
        description = self.options.label_descriptions.get(label)
        return f"{label}：{description}" if description else label

    def target(self, answer: Any) -> str:
        if not self.options.multi_label:
            return str(answer)
        return "\n".join(answer) or self._nothing

    @property
    def _nothing(self) -> str:
        return NOTHING[self.options.language or "zh"]

    def parse(self, text: str, example: Example) -> str | tuple[str, ...] | None:
        assert isinstance(example, ClassificationExample)
        if not self.options.multi_label:
            return text if text in example.options else None
        lines = [] if text == self._nothing else text.split("\n")
        if any(line not in example.options for line in lines):
            return None
        return tuple(label for label in example.options if label in lines)

    def constraint(self, example: Example, normalize: Callable[[str], str]) -> Constraint:
        assert isinstance(example, ClassificationExample)
        many = self.options.multi_label
        return Choice(example.options, many=many, nothing=self._nothing if many else "")

    def record(self, answer: Any) -> Any:
        return list(answer) if isinstance(answer, tuple) else answer

    def read_record(self, record: Any) -> Any:
        return tuple(record) if isinstance(record, list) else record

    def named(self, answer: Any) -> tuple[str, ...]:
        return answer if isinstance(answer, tuple) else (answer,)

    def counts(self, answers: Sequence[Any], examples: Sequence[Example]) -> tuple[Counts, Statistic]:
        if self.options.multi_label:
            return set_counts(answers, [e.answer for e in examples]), f1
        return hits([self.right(a, e) for a, e in zip(answers, examples, strict=True)]), share

    def stratum(self, example: Example) -> str:
        return ";".join(example.answer) if isinstance(example.answer, tuple) else str(example.answer)

    def measure(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        answers = [p.answer for p in predictions]
        references = [e.answer for e in examples]
        measure = measure_multi if self.options.multi_label else measure_single
        chances = [p.probability for p in predictions]
        return measure(answers, references, self.options.labels, chances, bootstrap=bootstrap, seed=seed)


def _as_label(value: Any, row: Row) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{row.place}: label {value!r:.60} is {type(value).__name__}; wanted a string")
    label = str(value).strip()
    if not label or "\n" in label:
        raise DataError(f"{row.place}: label {value!r:.60} is empty or has a line break; wanted one line of text")
    return label


TASK = Classification
