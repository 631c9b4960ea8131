"""Weitiao's own way: `prediction.predictor.Predictor` as a run folder opens it, from rows to parsed answers."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

from weitiao.bench.answerer import ADAPTER, Answerer, adapted
from weitiao.bench.questions import STOP, Questions
from weitiao.bench.shapes import ModelMaker
from weitiao.engine.bare import open_bare
from weitiao.engine.outline import outline
from weitiao.model.load import choose_dtype
from weitiao.prediction.predictor import Predictor
from weitiao.types import Prediction

PLAIN: dict[str, Any] = {"batch_tokens": 1, "attention": "dense", "fast_layer": False, "triton": False}
"""Nothing of the engine: transformers' own layers, one row a batch, each label by itself."""


class Weitiao(Answerer):
    def prepare(self, make: ModelMaker, questions: Questions) -> None:
        self.questions, self.examples = questions, questions.examples()
        self.predictor = predictor(self.opened(make), questions)
        gc.freeze()  # as `predict` does

    @staticmethod
    def model(make: ModelMaker) -> Any:
        """With its adapter."""
        return adapted(make)

    @staticmethod
    def opened(make: ModelMaker) -> Any:
        """The same, as `Predictor.open` opens a run's, where it lies in a folder."""
        return _bare(make) or adapted(make)

    @property
    def setting(self) -> str:
        return f"{self.predictor.batch_tokens} tokens a batch"

    def answer(self, members: Sequence[int]) -> None:
        self.predictor.answer([self.examples[at] for at in members])

    def answer_tokens(self) -> tuple[int, ...]:
        """Tokens of the rows' answers, the stop among them. In the bench's vocabulary a text has one spelling."""
        return tuple(self._tokens(answer) for answer in self.predictor.answer(self.examples))

    def _tokens(self, answer: Prediction) -> int:
        return len(self.questions.chat.answer_ids(answer.text)) + STOP


def _bare(make: ModelMaker) -> Any:
    if make.folder is None or make.device is None:
        return None
    found = outline(make.folder, make.folder / ADAPTER)
    return open_bare(found, make.device, choose_dtype("auto", make.device)) if found else None


def predictor(model: Any, questions: Questions, **plain: Any) -> Predictor:
    """plain: `PLAIN`, or nothing."""
    found = Predictor(questions.task, questions.encoder(), model, budget=questions.budget, **plain)
    if not questions.task.lists_labels:
        found.near = 0.0  # random weights are sure of no token, and all would be written twice
    return found


ANSWERER = Weitiao
