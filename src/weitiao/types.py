"""Plain values that rooms hand to each other. No behaviour beyond what a value can say of itself; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file as it was read: named fields and the place that errors point to."""

    fields: Mapping[str, Any]
    file: str
    line: int
    """1-based line of a text file, 1-based record of a binary one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """`data.columns`: our field name → the file's."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class TextPart:
    """A stretch of a message. Only a shrinkable part may be shortened to `data.max_length`."""

    text: str
    shrinkable: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[TextPart, ...]

    @classmethod
    def of(cls, role: Role, text: str) -> Message:
        return cls(role, (TextPart(text),))

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example: a prompt, then (for training) the answer and the stop id, all of them supervised."""

    ids: tuple[int, ...]
    prompt_length: int
    removed: int = 0
    """Tokens of the shrinkable text that were left out to keep it within `data.max_length`."""
    gap: tuple[int, int] | None = None
    """Where they stood: code points of the text, end-exclusive."""

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.ids[: self.prompt_length]

    @property
    def answer(self) -> tuple[int, ...]:
        return self.ids[self.prompt_length :]


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer is one of `labels`; with `many`, any of them in this order, one a line, or `nothing` for none."""

    labels: tuple[str, ...]
    many: bool = False
    nothing: str = ""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The answer is any string of a Lark grammar (llguidance's dialect)."""

    lark: str


Constraint = Choice | Grammar


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a system answered for one row.

    `answer` is of the task's own type, or None when the text was not a valid answer.
    """

    answer: Any
    text: str = ""
    probability: float | None = None
    """Of the whole answer, among all valid ones where the task can list them."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of each label, where the task has labels for the row."""
