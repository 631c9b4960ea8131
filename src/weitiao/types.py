"""Plain values that rooms hand to each other. No behaviour beyond what a value can say of itself; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Span = tuple[int, int]
"""A stretch of a text: code points, end-exclusive."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file as it was read: named fields and the place that errors point to."""

    fields: Mapping[str, Any]
    file: str
    line: int
    """1-based line of a text file, 1-based record of a binary one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """`data.columns`: our field name → the file's."""
    image_root: str | None = "."
    """Folder that the row's image paths are relative to and must lie in; None where they are only spoken of."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class TextPart:
    """A stretch of a message. Only a shrinkable part may be shortened to `data.max_length`."""

    text: str
    shrinkable: bool = False


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image in a message."""

    path: str
    """Absolute, and checked to lie where images may be read from; as the row says it where its `image_root` is None."""
    tokens: int = 0
    """Tokens that it takes in the prompt; known once its size is fitted to a model."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[TextPart | ImagePart, ...]

    @classmethod
    def of(cls, role: Role, text: str) -> Message:
        return cls(role, (TextPart(text),))

    @property
    def text(self) -> str:
        """Without its images."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def empty(self) -> bool:
        return not self.text and not any(isinstance(part, ImagePart) for part in self.parts)


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image of a row as a model sees it, and where its tokens stand."""

    path: str
    digest: str
    """SHA-256 of the file."""
    height: int
    width: int
    """Pixels after resizing."""
    rows: int
    columns: int
    """Its tokens, row by row."""
    start: int
    """Index of the first of them in the ids that it belongs to."""
    place: str
    """Row that errors point to."""

    @property
    def tokens(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example: a prompt, then (for training) the answer and the stop id, all of them supervised."""

    ids: tuple[int, ...]
    prompt_length: int
    removed: int = 0
    """Tokens of the shrinkable text that were left out to keep it within `data.max_length`."""
    gap: Span | None = None
    """Where they stood in the text."""
    images: tuple[PlacedImage, ...] = ()
    """In the order of their tokens, all of which belong to the prompt."""

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


@dataclass(frozen=True, slots=True)
class FreeText:
    """The answer is any text."""


Constraint = Choice | Grammar | FreeText


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
    parts: tuple[float, ...] = ()
    """Probability of each part of the answer (of each entity), in their order, where a model wrote them one by one:
    that it is written, after all that is written before it."""
