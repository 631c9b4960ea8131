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

`conversation.py` says where images go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from weitiao.config import suggestion
from weitiao.errors import DataError
from weitiao.images import IMAGE_NAMES
from weitiao.metrics.captions import words
from weitiao.metrics.generated_text import METRICS, measure_texts
from weitiao.metrics.intervals import Counts, Statistic
from weitiao.metrics.short_answers import exact_match
from weitiao.tasks.base import Example, Task, TaskOptions
from weitiao.tasks.conversation import joined, messages_of, role_of
from weitiao.types import Constraint, FreeText, ImagePart, Message, Prediction, Role, Row

SYSTEM = "You are a helpful assistant."
"""What the chat templates of Qwen2 and Qwen2-VL say where a conversation has no system message."""
CAPTIONS = ["cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"]
SHORT_ANSWERS = ["exact_match", "anls"]
TEXTS = ["rouge_l", "bleu_4", "exact_match"]
SHORT = 5
"""Words of a short answer; at most a tenth of them may be longer."""
SEVERAL = 3
"""Answers a row from which on questions are judged by how many people agree."""


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
                raise ValueError(f"no metric {name!r}; {suggestion(name, METRICS)}")
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
            references: tuple[str, ...] = (self._answer(joined(turns.pop()[1], row), row),)
        elif labelled or self.answered(row, "answer"):
            references = self._references(row)
        else:
            references = ()
        messages = messages_of(turns, images, row, self.answered(row, "image"))
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
                yield role_of(message, row), message.get("value", message.get("content"))
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
            raise DataError(f"{row.place}: no answer; {self._wanted(row, 'answer')}")
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


TASK = Generation
