"""Free text from text, images or both: captions, answers to questions, instructions. One task; the metrics differ.

    {"image": "a.jpg", "caption": "A dog in the grass."}                          with task.question, or none
    {"image": "a.jpg", "question": "What is it?", "answers": ["dog", "a dog"]}    trained: the most frequent answer
    {"instruction": "Translate.", "input": "狗", "output": "dog"}
    {"conversations": [{"from": "user", "value": "Where? <|vision_start|>a.jpg<|vision_end|>"},
                       {"from": "assistant", "value": "In the grass."}]}
    {"messages": [{"role": "user", "content": "<image>Where?"}, …], "images": ["a.jpg"]}

    system   `system` of the conversation, else the instruction of the task
    user     images · question · text (shrinkable); in conversations, what the turns say: the last answer is trained
    answer   the text

An image is where the text names it, by its path as above or by `<image>`, and before the text otherwise. Images that
close a text are put before it: models are trained to look first and read then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, field_validator

from weitiao.config import nearest
from weitiao.errors import DataError
from weitiao.images import IMAGE_NAMES, PLACEHOLDER
from weitiao.metrics.captions import words
from weitiao.metrics.generated_text import METRICS, measure_texts
from weitiao.metrics.intervals import Counts, Statistic
from weitiao.metrics.short_answers import exact_match
from weitiao.tasks.base import Example, Task, TaskOptions
from weitiao.types import Constraint, FreeText, ImagePart, Message, Prediction, Role, Row, TextPart

SYSTEM = "You are a helpful assistant."
"""What the chat templates of Qwen2 and Qwen2-VL say where a conversation has no system message."""
CAPTIONS = ["cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"]
SHORT_ANSWERS = ["exact_match", "anls"]
TEXTS = ["rouge_l", "bleu_4", "exact_match"]
SHORT = 5
"""Words of a short answer; at most a tenth of them may be longer."""
SEVERAL = 3
"""Answers a row from which on questions are judged by how many people agree."""
ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
}
IMAGE = re.compile(r"<\|vision_start\|>(?P<path>.*?)<\|vision_end\|>|<image>", re.DOTALL)


class GenerationOptions(TaskOptions):
    name: Literal["generation"] = "generation"
    metrics: list[str] | None = Field(None, min_length=1)
    """What answers are judged by, the first of them above all; by default what the training answers look like: short
    ones `exact_match` and `anls`, and `vqa_accuracy` before them where rows have three or more; captions of images
    `cider`, `bleu_1` to `bleu_4` and `rouge_l`; other texts `rouge_l`, `bleu_4` and `exact_match`."""
    question: str | None = None
    """What is asked about a row that has no question or text of its own."""

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: list[str] | None) -> list[str] | None:
        for name in metrics or ():
            if name not in METRICS:
                hint = nearest(name, METRICS)
                raise ValueError(f"no metric {name!r}; " + (f"did you mean {hint!r}?" if hint else ", ".join(METRICS)))
        return metrics


@dataclass(frozen=True)
class GenerationExample(Example):
    messages: tuple[Message, ...] = ()
    """The conversation up to the answer, without the system message that the task has."""
    references: tuple[str, ...] = ()
    """Every right answer; `answer` is the one that is trained."""


class Generation(Task):
    Options = GenerationOptions
    has_labels = False
    fields = {
        "question": ("question", "instruction", "prompt", "query"),
        "text": ("input", "text", "context"),
        "conversation": ("conversations", "messages"),
        "answer": ("output", "answer", "answers", "caption", "captions", "response", "completion", "label"),
        "system": ("system",),
        "image": IMAGE_NAMES,
    }
    options: GenerationOptions

    @property
    def headline(self) -> str:  # type: ignore[override]
        return (self.options.metrics or TEXTS)[0]

    @classmethod
    def resolve(cls, options: GenerationOptions, rows: Sequence[Row]) -> GenerationOptions:
        options = super().resolve(options, rows)
        if options.metrics is None:
            task = cls(options)
            examples = [task.example(row) for row in rows]
            options = options.model_copy(update={"metrics": _metrics_for(examples)})
        return options

    def example(self, row: Row, labelled: bool = True) -> GenerationExample:
        images = self.images_of(row)
        turns = list(self._turns(row))
        if turns and turns[-1][0] == "assistant" and self.field(row, "conversation") is not None:
            references: tuple[str, ...] = (self._answer(_joined(turns.pop()[1], row), row),)
        elif labelled or self.answered(row, "answer"):
            references = self._references(row)
        else:
            references = ()
        messages = self._placed(turns, images, row)
        _refuse_roles(messages, row)
        _refuse_empty(messages, row)
        return GenerationExample(
            row,
            "\n".join(message.text for message in messages if message.role != "system"),
            Counter(references).most_common(1)[0][0] if references else None,
            messages=messages,
            references=references,
            images=tuple(part.path for m in messages for part in m.parts if isinstance(part, ImagePart)),
        )

    def _turns(self, row: Row) -> Iterator[tuple[Role, Any]]:
        """Role and content of each message of a row, as the row has them."""
        told = self.field(row, "conversation")
        if told is not None:
            if not isinstance(told, list | tuple) or not told:
                raise DataError(f"{row.place}: the conversation is {told!r:.40}; wanted a list of messages")
            if self.field(row, "system"):
                yield "system", self.field(row, "system")
            for message in told:
                yield _role(message, row), message.get("value", message.get("content"))
            return
        question, text = self.field(row, "question"), self.field(row, "text")
        for name, value in (("question", question), ("text", text)):
            if value is not None and not isinstance(value, str):
                raise DataError(f"{row.place}: the {name} is {type(value).__name__} {value!r:.40}; wanted a string")
        if self.field(row, "system"):
            yield "system", self.field(row, "system")
        parts = [part for part in (question, text) if part] or [self.options.question or ""]
        if not any(part.strip() for part in parts) and not self.answered(row, "image"):
            raise DataError(
                f"{row.place}: nothing is asked; wanted an image, a conversation, or a field "
                f"{' or '.join(map(repr, (*self.fields['question'], *self.fields['text'])))} "
                f"(or set data.columns), found {', '.join(map(str, row.fields)) or 'nothing'}"
            )
        yield "user", [f"{part}\n" for part in parts[:-1]] + parts[-1:]

    def _references(self, row: Row) -> tuple[str, ...]:
        value = self.field(row, "answer")
        if value is None:
            raise DataError(
                f"{row.place}: no answer; wanted a field {' or '.join(map(repr, self.fields['answer']))} "
                f"(or set data.columns.answer), found {', '.join(map(str, row.fields)) or 'nothing'}"
            )
        found = value if isinstance(value, list | tuple) else [value]
        # The questions of VQA have {"answer": "dog", "answer_confidence": "yes"}.
        found = [item.get("answer") if isinstance(item, Mapping) else item for item in found]
        if not found:
            raise DataError(f"{row.place}: the list of answers is empty; wanted one or more")
        return tuple(self._answer(item, row) for item in found)

    def _answer(self, value: Any, row: Row) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise DataError(f"{row.place}: the answer is {type(value).__name__} {value!r:.40}; wanted a string")
        text = str(value).strip()
        if not text:
            raise DataError(f"{row.place}: the answer is empty; fill it in or remove the row")
        return text

    def _placed(self, turns: Sequence[tuple[Role, Any]], images: Sequence[str], row: Row) -> tuple[Message, ...]:
        """The messages, with images where their texts name them; those that none names go before the first text."""
        left = list(images)
        messages = []
        for role, content in turns:
            parts = [part for piece in _pieces(content, row) for part in self._parts(piece, left, role, row)]
            messages.append(Message(role, _images_first(parts)))
        if len(left) not in (0, len(images)):
            raise DataError(
                f"{row.place}: {len(images)} images, but {len(images) - len(left)} places for them in the text"
            )
        for at, message in enumerate(messages):
            if left and message.role == "user":
                messages[at] = Message("user", (*map(ImagePart, left), *message.parts))
                left = []
        return _with_shrinkable(messages)

    def _parts(self, piece: Any, left: list[str], role: Role, row: Row) -> Iterator[TextPart | ImagePart]:
        """A piece of content as parts; takes the images that it uses from `left`."""
        if isinstance(piece, Mapping):
            path = piece.get("image", piece.get("path"))
            yield ImagePart(self.image_at(path, row)) if path else self._next(left, row)
            return
        start = 0
        for found in IMAGE.finditer(piece) if role == "user" else ():
            inside = (found["path"] or "").strip()
            named = inside not in ("", PLACEHOLDER)
            if not named and not self.answered(row, "image"):
                continue  # a text about markup
            if found.start() > start:
                yield TextPart(piece[start : found.start()])
            yield ImagePart(self.image_at(inside, row)) if named else self._next(left, row)
            start = found.end()
        if start < len(piece):
            yield TextPart(piece[start:])

    @staticmethod
    def _next(left: list[str], row: Row) -> ImagePart:
        if not left:
            raise DataError(f"{row.place}: the text has more places for images than the row has images")
        return ImagePart(left.pop(0))

    def prompt(self, example: Example) -> tuple[Message, ...]:
        assert isinstance(example, GenerationExample)
        if example.messages[0].role == "system":
            return example.messages
        return Message.of("system", self.options.instruction or SYSTEM), *example.messages

    def target(self, answer: Any) -> str:
        return str(answer)

    def parse(self, text: str, example: Example) -> str | None:
        return text.strip() or None

    def constraint(self, example: Example, normalize: Callable[[str], str]) -> Constraint:
        return FreeText()

    def record(self, answer: Any) -> Any:
        return answer

    def read_record(self, record: Any) -> Any:
        return record

    def named(self, answer: Any) -> tuple[str, ...]:
        return ()

    def counts(self, answers: Sequence[Any], examples: Sequence[Example]) -> tuple[Counts, Statistic]:
        per_row, statistic = METRICS[self.headline]
        return per_row(list(answers), [_references_of(e) for e in examples]), statistic

    def right(self, answer: Any, example: Example) -> bool:
        """Whether it equals a reference."""
        return bool(exact_match([answer], [_references_of(example)])[0])

    def measure(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        answers, references = [p.answer for p in predictions], [_references_of(e) for e in examples]
        return measure_texts(answers, references, self.options.metrics or TEXTS, bootstrap=bootstrap, seed=seed)


def _references_of(example: Example) -> tuple[str, ...]:
    assert isinstance(example, GenerationExample)
    return example.references


def _metrics_for(examples: Sequence[GenerationExample]) -> list[str]:
    long = sum(len(words(example.answer or "")) > SHORT for example in examples)
    if long * 10 <= len(examples):
        several = any(len(example.references) >= SEVERAL for example in examples)
        return ["vqa_accuracy", *SHORT_ANSWERS] if several else SHORT_ANSWERS
    return CAPTIONS if any(example.images for example in examples) else TEXTS


def _role(message: Any, row: Row) -> Role:
    name = message.get("from", message.get("role")) if isinstance(message, Mapping) else None
    if name not in ROLES:
        raise DataError(
            f"{row.place}: a message is {message!r:.60}; wanted {{'role': …, 'content': …}} or "
            f"{{'from': …, 'value': …}} by {', '.join(ROLES)}"
        )
    return ROLES[str(name)]


def _pieces(content: Any, row: Row) -> Iterator[Any]:
    """Texts, and mappings that stand for images, of a message's content."""
    for piece in content if isinstance(content, list | tuple) else [content]:
        if isinstance(piece, Mapping) and isinstance(piece.get("text"), str):
            yield piece["text"]
        elif isinstance(piece, str) or (isinstance(piece, Mapping) and piece.get("type") == "image"):
            yield piece
        else:
            raise DataError(f"{row.place}: a message says {piece!r:.60}; wanted text, or parts of type text and image")


def _joined(content: Any, row: Row) -> Any:
    """The text of a message's content where it is in parts of text alone; other content as it is."""
    if not isinstance(content, list | tuple):
        return content
    pieces = list(_pieces(content, row))
    return "".join(pieces) if all(isinstance(piece, str) for piece in pieces) else content


def _images_first(parts: Sequence[TextPart | ImagePart]) -> tuple[TextPart | ImagePart, ...]:
    """The same parts, or with the images before the text where all of them close it."""
    texts = [part for part in parts if isinstance(part, TextPart)]
    images = [part for part in parts if isinstance(part, ImagePart)]
    if not images or list(parts) != [*texts, *images]:
        return tuple(parts)
    # What parted the text from its image closes nothing now.
    return (*images, *texts[:-1], replace(texts[-1], text=texts[-1].text.rstrip())) if texts else tuple(images)


def _with_shrinkable(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The longest text of the user is the one that may be shortened."""
    texts = [
        (len(part.text), at, inside)
        for at, message in enumerate(messages)
        for inside, part in enumerate(message.parts)
        if message.role == "user" and isinstance(part, TextPart)
    ]
    if not texts:
        return tuple(messages)
    _, at, inside = max(texts)
    parts = [
        TextPart(part.text, shrinkable=place == inside) if isinstance(part, TextPart) else part
        for place, part in enumerate(messages[at].parts)
    ]
    return (*messages[:at], Message(messages[at].role, tuple(parts)), *messages[at + 1 :])


def _refuse_roles(messages: Sequence[Message], row: Row) -> None:
    """DataError unless user and assistant take turns, the user first and last, behind at most one system message."""
    roles = [message.role for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise DataError(
            f"{row.place}: the conversation goes {', '.join(roles) or 'nowhere'}; "
            "wanted user and assistant in turn, a user's message first, an answer last"
        )


def _refuse_empty(messages: Sequence[Message], row: Row) -> None:
    for message in messages:
        if message.role != "system" and message.empty:
            raise DataError(f"{row.place}: a message of the {message.role} is empty; fill it in or remove the row")


TASK = Generation
