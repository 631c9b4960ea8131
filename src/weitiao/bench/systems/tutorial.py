"""The tutorial's recipe: batches of 4 accumulated to a step, gradient checkpointing, dropout 0.1, the head at every
position of the padded rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from weitiao.bench.hf import UNSUPERVISED, HfSystem
from weitiao.bench.system import Settings
from weitiao.model.quiet import quiet
from weitiao.types import Encoded

BATCH = 4


class Tutorial(HfSystem):
    exact = False

    def dropout(self, settings: Settings) -> float:
        return 0.1

    def change(self, base: Any) -> None:
        with quiet():
            base.gradient_checkpointing_enable()
        base.enable_input_require_grads()

    def batches(self, members: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
        return (members[start : start + BATCH] for start in range(0, len(members), BATCH))

    def loss(self, members: Sequence[Encoded], wanted: int) -> torch.Tensor:
        labels = [[UNSUPERVISED] * sample.prompt_length + list(sample.answer) for sample in members]
        return self.model(
            input_ids=self.padded([sample.ids for sample in members], 0),
            attention_mask=self.padded([[1] * len(sample.ids) for sample in members], 0),
            labels=self.padded(labels, UNSUPERVISED),
            num_items_in_batch=wanted,
            use_cache=False,
        ).loss


SYSTEM = Tutorial
