"""What every task answers. To add one, write `tasks/<name>.py` with a subclass of `Task` named `TASK`; the file's
name is the registry. Tasks never see a tensor or a tokenizer: rows in, messages and answers out.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from weitiao.config import Section, suggestion, validated
from weitiao.errors import ConfigError, DataError, ImageError
from weitiao.images import IMAGE_NAMES, allowed_path
from weitiao.metrics.intervals import Counts, Statistic
from weitiao.types import Constraint, ImagePart, Message, Prediction, Row, Span

Language = Literal["zh", "en"]
BOUNDS = ("_low", "_high")
"""Endings of the keys that hold a metric's interval."""


class TaskOptions(Section):
    """Options that every task has; a task adds its own."""

    name: str
    """Name of the task."""
    language: Language | None = None
    """Language of the default instruction; by default that of the training rows."""
    instruction: str | None = None
    """Own instruction, put first in the prompt in place of the task's default."""


@dataclass(frozen=True)
class Example:
    """One typed, checked row: the input, and the reference answer when the row has one."""

    row: Row
    text: str
    answer: Any = None
    images: tuple[str, ...] = field(default=(), kw_only=True)
    """Absolute paths."""

    @property
    def image_parts(self) -> tuple[ImagePart, ...]:
        return tuple(map(ImagePart, self.images))


class Task(ABC):
    """One kind of question and what a good answer is. Built from options that `resolve` has made complete."""

    Options: ClassVar[type[TaskOptions]]
    headline: ClassVar[str]
    """Metric by which the task is judged; higher is better."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"invalid", "hamming", "ece", "ece_uncalibrated", "nll"})
    """Metrics that count errors, and so cannot choose the best adapter."""
    fields: ClassVar[Mapping[str, tuple[str, ...]]]
    """Our field name → the names that a file may use for it, best first; `data.columns` adds the user's own. `text`
    and `image` are among them."""
    has_labels: ClassVar[bool] = True
    """Whether an answer names labels or types: these can be counted, and a probability of being right has a meaning."""
    lists_labels: ClassVar[bool] = False
    """Whether an answer is of a list of labels, of which each then has a probability."""
    picks_one: ClassVar[bool] = False
    """Whether an answer is exactly one label of that list."""
    in_windows: ClassVar[bool] = False
    """Whether a text that is too long is answered in overlapping windows, whose answers are `merged`; else it is
    shortened. Training shortens it in any case."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def resolve(cls, options: Any, rows: Sequence[Row]) -> Any:
        """Options made complete from the training rows: language, and whatever else the task can find there."""
        if options.language is not None:
            return options
        return options.model_copy(update={"language": language_of([cls._words(row) for row in rows[:200]])})

    @classmethod
    def _words(cls, row: Row) -> str:
        """What tells a row's language: its text, or what it says beside its images."""
        text = cls.field(row, "text")
        others = [value for name, value in row.fields.items() if name not in IMAGE_NAMES and isinstance(value, str)]
        return str(text) if text else " ".join(others)

    @classmethod
    def field(cls, row: Row, name: str) -> Any:
        """Value of one of our fields in a row, or None; a column that the user named must be there (`""` is none)."""
        if name in row.columns:
            column = row.columns[name]
            if not column:
                return None
            if column not in row.fields:
                raise DataError(
                    f"{row.place}: no column {column!r} (data.columns.{name}); it has {_listed(row.fields)}: "
                    f"rename the right one to {column!r}, or set data.columns.{name} to its name"
                )
            return row.fields[column]
        return next((row.fields[known] for known in cls.fields[name] if known in row.fields), None)

    @classmethod
    def answered(cls, row: Row, name: str) -> bool:
        """Whether a row fills in one of our fields; one that is to be predicted may lack it, or leave it empty."""
        names = (row.columns[name],) if name in row.columns else cls.fields[name]
        value = next((row.fields[known] for known in names if known in row.fields), None)
        return value is not None and value != ""

    @classmethod
    def images_of(cls, row: Row) -> tuple[str, ...]:
        """Absolute paths of the row's images; DataError when one is no file below `row.image_root`."""
        value = cls.field(row, "image")
        names = value if isinstance(value, list | tuple) else [] if value is None or value == "" else [value]
        if isinstance(value, str) and ";" in value:  # several, in a cell of a table
            names = [name.strip() for name in value.split(";") if name.strip()]
        return tuple(cls.image_at(name, row) for name in names)

    @staticmethod
    def image_at(name: Any, row: Row) -> str:
        if isinstance(name, Mapping) and isinstance(name.get("path"), str):  # as the library `datasets` writes it
            name = name["path"]
        if not isinstance(name, str):
            raise DataError(f"{row.place}: an image is {type(name).__name__} {name!r:.40}; wanted the path of a file")
        if row.image_root is None:
            return name
        try:
            return allowed_path(name, row.image_root)
        except DataError as error:
            raise ImageError(f"{row.place}: {error}") from None

    @classmethod
    def _wanted(cls, row: Row, name: str) -> str:
        """What an error says of one of our fields that a row lacks."""
        names = " or ".join(map(repr, cls.fields[name]))
        return f"wanted a field {names} (or set data.columns.{name}), found {_listed(row.fields)}"

    @classmethod
    def text_of(cls, row: Row, optional: bool = False) -> str:
        """The row's text; DataError when it is not text, or missing or empty unless it is `optional`."""
        value = cls.field(row, "text")
        if optional and (value is None or value == ""):
            return ""
        if value is None:
            raise DataError(f"{row.place}: no text; {cls._wanted(row, 'text')}")
        if not isinstance(value, str):
            raise DataError(f"{row.place}: the text must be a string, found {type(value).__name__} {value!r:.60}")
        if not value.strip():
            raise DataError(f"{row.place}: the text is empty; fill it in or remove the row")
        return value

    @abstractmethod
    def example(self, row: Row, labelled: bool = True) -> Example:
        """Check and type a row. With `labelled`, a row without an answer is a DataError."""

    @abstractmethod
    def prompt(self, example: Example) -> tuple[Message, ...]:
        """System message first (what all rows share), then the row's own; its text is shrinkable."""

    @abstractmethod
    def target(self, answer: Any) -> str:
        """The text that the model is trained to write."""

    def seen(self, answer: Any, gap: Span | None) -> Any:
        """What of a reference answer can be told when the code points `gap` of the text were left out."""
        return answer

    @abstractmethod
    def parse(self, text: str, example: Example) -> Any:
        """The answer that a text means for this example, or None when it means none."""

    def read(self, text: str, example: Example) -> tuple[Any, tuple[Span, ...]]:
        """What `parse` finds, and where in the answer's text each part of it is written; by default, none has parts."""
        return self.parse(text, example), ()

    def merged(self, windows: Sequence[tuple[Span, Prediction]], example: Example) -> Prediction:
        """One answer of those to overlapping windows of the text, in their order. Asked of tasks with `in_windows`."""
        raise NotImplementedError

    def complete_part(self, text: str) -> str:
        """The part of an answer that was cut off by its budget which can be read; by default all of it."""
        return text

    def spent(self, text: str, example: Example) -> bool:
        """Whether an unfinished answer repeats what it cannot say again, so that nothing can come of it."""
        return False

    @abstractmethod
    def constraint(self, example: Example, normalize: Callable[[str], str]) -> Constraint:
        """What an answer to this example may look like. `normalize`: the tokenizer's own normal form of a text."""

    @abstractmethod
    def record(self, answer: Any) -> Any:
        """The answer as JSON, for `predictions.jsonl`."""

    def told(self, prediction: Prediction) -> Any:
        """The `record` of a prediction's answer, with the probabilities of its parts."""
        return self.record(prediction.answer)

    @abstractmethod
    def read_record(self, record: Any) -> Any:
        """The answer that `record` or `told` wrote."""

    @abstractmethod
    def named(self, answer: Any) -> tuple[str, ...]:
        """Labels or types that an answer names, once for each time, for counts of the data."""

    @abstractmethod
    def counts(self, answers: Sequence[Any], examples: Sequence[Example]) -> tuple[Counts, Statistic]:
        """What each row adds to the headline metric [rows, k], and the metric of their sums."""

    def right(self, answer: Any, example: Example) -> bool:
        """Whether all of an answer is right."""
        return bool(answer == example.answer)

    def stratum(self, example: Example) -> str:
        """Class of an example, for stratified splits and for counts by class."""
        return ""

    @abstractmethod
    def measure(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        """Metrics as a flat mapping, `<name>_low` and `<name>_high` beside those with intervals; details nested."""

    def best_possible(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Metrics of an oracle that writes every reference answer: the ceiling that the output format sets."""
        told = [Prediction(self.parse(self.target(e.answer), e), self.target(e.answer)) for e in examples]
        return self.measure(told, examples, bootstrap=100, seed=0)

    def check_metric(self, name: str, example: Example) -> None:
        """ConfigError when no metric of that name can choose the best adapter. example: any with an answer."""
        told = Prediction(example.answer, self.target(example.answer), probability=1.0)
        figures = self.measure([told], [example], bootstrap=100, seed=0)
        numbers = {key for key, value in figures.items() if isinstance(value, float)}
        choices = [key for key in figures if key in numbers - self.lower_is_better and not key.endswith(BOUNDS)]
        if name not in choices:
            why = "lower is better there" if name in self.lower_is_better & numbers else "no such metric of this task"
            raise ConfigError(f"key `evaluation.metric` = {name!r}: {why}; {suggestion(name, choices)}")

    @cached_property
    def name(self) -> str:
        return str(self.options.name)


def task_names() -> list[str]:
    package = importlib.import_module("weitiao.tasks")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if _is_task(m.name))


def task_class(name: str) -> type[Task]:
    """The task of that name; ConfigError lists the choices otherwise."""
    names = task_names()
    if name not in names:
        raise ConfigError(f"key `task.name` = {name!r}: no such task; {suggestion(name, names)}")
    found: type[Task] = importlib.import_module(f"weitiao.tasks.{name}").TASK
    return found


def task_options(section: Mapping[str, Any], where: str = "task") -> TaskOptions:
    """The `task` section, checked by the task that it names."""
    return validated(task_class(str(section["name"])).Options, section, where)


def language_of(texts: Sequence[str]) -> Language:
    """`zh` when at least a fifth of the letters are CJK ideographs, else `en`."""
    letters = [c for text in texts for c in text if c.isalpha()]
    ideographs = sum("\u4e00" <= c <= "\u9fff" or "\u3400" <= c <= "\u4dbf" for c in letters)
    return "zh" if ideographs * 5 >= max(len(letters), 1) else "en"


def _is_task(name: str) -> bool:
    return name != "base" and hasattr(importlib.import_module(f"weitiao.tasks.{name}"), "TASK")


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(map(str, fields)) or "nothing"
