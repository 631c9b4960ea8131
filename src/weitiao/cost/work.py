"""Steps and tokens of a training, from the figures of `weitiao check`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from weitiao.config import RunConfig
from weitiao.data.encode import answer_budget
from weitiao.data.pack import steps_per_epoch

LOOKED_AHEAD = 200
"""Steps whose largest pack is reckoned; of more, it hardly grows."""
WRITTEN = 10
"""Tokens of a prompt that are read in the time that one of an answer is written in: 650 rows/s with 20.5 tokens each,
of 33 tokens of text, against 2,000 rows/s of labels that are scored (docs/speed.md, predictions on a card)."""
WRITTEN_ON_CPU = 3
"""The same on a CPU, which has no kernels to start: 32 rows by SmolLM2-135M behind 70 tokens of their own took 24 s
with 22 tokens each, and 81 s with 117; with two threads 15 s and 41 s."""
UNENDED = 0.6
"""Share of the budget of an answer that an untuned model writes: 117 of 198 tokens, where the references had 13, of 32
rows of entities by SmolLM2-135M."""


@dataclass(frozen=True)
class Spread:
    """Tokens of a row."""

    mean: float
    deviation: float
    most: int

    def of_step(self, rows: int, drawn: int, steps: int) -> tuple[int, int]:
        """Fewest and most tokens that so many drawn of the rows have together, in a number of steps: as of a normal
        distribution, less what comes of drawing without putting back."""
        left = (rows - drawn) / max(rows - 1, 1)
        off = NormalDist().inv_cdf(1 - 1 / (2 * max(min(steps, LOOKED_AHEAD), 1)))
        mean, around = drawn * self.mean, off * self.deviation * math.sqrt(drawn * left)
        return max(math.floor(mean - around), 0), math.ceil(min(mean + around, drawn * self.most))


@dataclass(frozen=True)
class Work:
    rows: int
    samples: int
    """Rows of a step."""
    steps: int
    per_epoch: int
    prefix: int
    """Tokens that all rows begin with."""
    own: Spread
    """Behind the prefix, without the last token, which is a label."""
    answers: Spread
    answered: int
    """Rows that the fine-tuned model answers: in evaluations, for calibration, and for the metrics."""
    written: bool
    """Whether answers are written token by token, or labels scored."""
    untuned: int = 0
    """Rows that the model answers without its adapter, to be compared."""

    @property
    def longest(self) -> int:
        return self.prefix + self.own.most

    def largest_pack(self, tokens: int) -> tuple[int, int]:
        """Own tokens of the largest pack where one may have so many with the prefix, and those of them that are read.

        A step's packs are about equally full; where some steps need one more than others, packs come full.
        """
        asked = (self.rows, self.samples, self.steps)
        least, most = self.own.of_step(*asked)
        room = max(tokens - self.prefix, self.own.most)
        packs = math.ceil(most / room)
        own = max(math.ceil(most / packs), self.own.most) if packs == math.ceil(least / room) else min(most, room)
        read = self.answers.of_step(*asked)[1]
        return own, min(own, read, math.ceil(read * own / max(most, 1)))

    @property
    def reads(self) -> int:
        """Most answer tokens of a step."""
        return min(self.samples * self.answers.most, math.ceil(self.rows * self.answers.mean))

    def packs(self, tokens: int) -> int:
        """Of a step, where one may have so many tokens."""
        room = max(tokens - self.prefix, self.own.most, 1)
        return math.ceil(self.samples * self.own.mean / room)

    def distinct(self, tokens: int) -> float:
        """Tokens that all steps compute: the prefix once a pack."""
        return self.steps * (self.rows / self.per_epoch * self.own.mean + self.packs(tokens) * self.prefix)

    def predicted(self, cpu: bool) -> float:
        """Tokens of all prompts that are answered, and those of the answers, by what they take."""
        return self.answered * self._answer(self.answers.mean, cpu)

    def predicted_untuned(self, cpu: bool) -> float:
        """The same of the untuned model, which seldom ends an answer before it has to."""
        budget = answer_budget(self.answers.most)
        return self.untuned * self._answer(UNENDED * budget if self.written else self.answers.mean, cpu)

    def _answer(self, tokens: float, cpu: bool) -> float:
        """Of one row, with an answer of so many tokens."""
        prompt = max(self.own.mean - self.answers.mean, 0) + 1
        return prompt + ((WRITTEN_ON_CPU if cpu else WRITTEN) if self.written else 1) * tokens


def work_of(config: RunConfig, result: Mapping[str, Any], labels: bool) -> Work | None:
    """result: of a check. labels: whether the task has any. None where no training row could be encoded."""
    tokens, rows = result["tokens"], result["rows"]["train"]
    if not tokens or not rows:
        return None
    section, shared = config.training, result["shared"]
    samples = min(section.samples_per_step, rows)
    per_epoch = steps_per_epoch(rows, section.samples_per_step)
    steps = section.max_steps or max(1, round(section.num_train_epochs * per_epoch))
    whole, answers = tokens["rows"], tokens["answers"]
    own = Spread(max(tokens["all"] / rows - shared - 1, 1), whole["deviation"], max(whole["max"] - shared - 1, 1))
    answer = Spread(answers["all"] / rows, answers["deviation"], answers["max"])
    answered = _answered(config, result["rows"], steps, per_epoch, labels)
    untuned = _measured(result["rows"]) if config.evaluation.untuned else 0
    written = config.task["name"] != "classification"
    return Work(rows, samples, steps, per_epoch, shared, own, answer, answered, written, untuned)


def _answered(config: RunConfig, rows: Mapping[str, int], steps: int, per_epoch: int, labels: bool) -> int:
    section = config.evaluation
    validation = min(rows["validation"], section.max_rows or rows["validation"])
    times = -(-steps // (section.steps or per_epoch)) + labels
    return times * validation + _measured(rows)


def _measured(rows: Mapping[str, int]) -> int:
    return rows["test"] or rows["validation"]
