"""Rows of a kind of work for prediction, with the lengths of `profiles.py`, under the package's own tasks.

prefix (instruction; the same in all rows) · text, for classification with the row's own options before it · answer

A random model would end its answers at random. So a row of entities has a number of mentions that its grammar asks for,
of which the model writes what and how long they are; how many tokens that makes is counted (`Questions.answers`), and
systems without a grammar write as many.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from weitiao.bench.profiles import PROFILES, lengths
from weitiao.bench.shapes import LONGEST
from weitiao.bench.vocabulary import characters, draw_text, first_byte
from weitiao.data.encode import Encoder, answer_budget
from weitiao.data.prefix import common_prefix
from weitiao.families.base import families
from weitiao.families.chat_format import ChatFormat
from weitiao.families.tokenizer import TextTokenizer
from weitiao.tasks.base import Example, Task, task_class, task_options
from weitiao.tasks.ner import Ner
from weitiao.types import Constraint, Encoded, Grammar, Row

OPTIONS = 4
"""Labels that a row of classification may choose from."""
TYPES = 4
"""Of entities, as in the tutorial."""
NAME = 2
"""Most tokens of a label, and those of a type."""
MENTION_TOKENS = 5.6
"""Tokens of an entity's line as a random model writes it, measured: it ends a text at every second chance."""
STOP = 1
"""Token that ends an answer."""


@dataclass(frozen=True)
class Questions:
    """What every system answers; small enough to be sent to another process."""

    profile: str
    folder: Path
    """Of the tokenizer."""
    family: str
    options: Mapping[str, Any]
    """Of the task."""
    rows: tuple[Mapping[str, Any], ...]
    prompts: tuple[tuple[int, ...], ...] = ()
    """Token ids of the rows' prompts, with what leads to an answer."""
    answers: tuple[int, ...] = ()
    """Tokens of the rows' answers, the stop among them; of entities about as many, until they are counted."""

    @cached_property
    def chat(self) -> ChatFormat:
        return families()[self.family].chat_format(TextTokenizer(self.folder))

    @property
    def budget(self) -> int:
        """Most tokens of a decoded answer, as training sets it by its longest answer."""
        return answer_budget(max(self.answers))

    @property
    def task(self) -> Task:
        kind = CountedNer if self.options["name"] == "ner" else task_class(self.options["name"])
        return kind(task_options(self.options))

    def encoder(self) -> Encoder:
        return Encoder(self.task, self.chat, LONGEST, LONGEST)

    def examples(self) -> list[Example]:
        task = self.task
        return [task.example(Row(row, "rows", at), labelled=False) for at, row in enumerate(self.rows, 1)]

    def encoded(self) -> list[Encoded]:
        return list(map(self.encoder().prompt, self.examples()))

    def __getstate__(self) -> dict[str, Any]:
        """Without the tokenizer, which another process reads for itself."""
        return {name: value for name, value in vars(self).items() if name != "chat"}


class CountedNer(Ner):
    """Named-entity recognition with as many mentions as the row says."""

    def constraint(self, example: Example, normalize: Callable[[str], str]) -> Constraint:
        whole = super().constraint(example, normalize)
        assert isinstance(whole, Grammar)
        start, _, rules = whole.lark.partition("\n")
        assert start.startswith("start: "), "the grammar's first line says how many lines there are"
        wanted = ' "\\n" '.join(["line"] * example.row.fields["mentions"])
        return Grammar(f"start: {wanted or json.dumps(self._nothing, ensure_ascii=False)}\n{rules}")

    def spent(self, text: str, example: Example) -> bool:
        """A random model names the same thing again and again, which is no reason to end sooner."""
        return False


def questions(name: str, folder: Path, family: str, vocabulary: int, count: int, seed: int) -> Questions:
    """`count` rows, 2 at least, of the profile `name`; the same for the same seed. folder: of the tokenizer."""
    profile, letters, draw = PROFILES[name], characters(vocabulary), random.Random(seed)
    sizes, answers = (lengths(draw, quantile, count) for quantile in (profile.text, profile.answer))
    rows: list[dict[str, Any]]
    if name == "ner":
        options: dict[str, Any] = {"name": "ner", "types": _names(draw, letters, TYPES, NAME)}
        rows = [{"mentions": round((answer - STOP) / MENTION_TOKENS)} for answer in answers]
    else:
        options = {"name": "classification", "options": "row"}
        rows = [{"options": _labels(draw, letters)} for _ in answers]
    options |= {"language": "zh", "instruction": draw_text(draw, 1, letters)}
    # Texts of one token, of which no two neighbours share it, show what a prompt takes beside its text.
    rows = [{**row, "text": letters[at % 2]} for at, row in enumerate(rows)]
    least = Questions(name, folder, family, options, tuple(rows))
    whole = _filled(least, profile.prefix, sizes, lambda count: draw_text(draw, count, letters))
    prompts = tuple((*e.ids, *whole.chat.lead) for e in whole.encoded())
    return replace(whole, prompts=prompts, answers=tuple(answers))


def _filled(least: Questions, prefix: int, sizes: Sequence[int], text: Callable[[int], str]) -> Questions:
    """With an instruction that makes the shared prefix `prefix` tokens long, and texts that make what is behind it as
    long as `sizes` say, where a prompt is not longer already. text: draws one of so many tokens."""
    encoded, lead = least.encoded(), len(least.chat.lead)
    shared = len(common_prefix(encoded))
    instruction = text(max(1, 1 + prefix - shared))
    own = [e.prompt_length + lead - shared for e in encoded]
    texts = [text(max(1, 1 + size - taken)) for size, taken in zip(sizes, own, strict=True)]
    rows = tuple({**row, "text": text} for row, text in zip(least.rows, texts, strict=True))
    return replace(least, options={**least.options, "instruction": instruction}, rows=rows)


def _labels(draw: random.Random, letters: Sequence[str]) -> list[str]:
    """Options of a row, of one token and of more in turn."""
    return [label for size in range(1, NAME + 1) for label in _names(draw, letters, OPTIONS // NAME, size)]


def _names(draw: random.Random, letters: Sequence[str], count: int, size: int) -> list[str]:
    """`count` different names of `size` tokens, which begin with different bytes."""
    found: dict[int, str] = {}
    while len(found) < count:
        name = draw_text(draw, size, letters)
        found.setdefault(first_byte(name), name)
    return list(found.values())
