"""What Hugging Face's and PEFT's ways to train have in common: micro-batches of padded rows, AdamW."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings, System
from weitiao.model.adapter import adapter_parameters, add_lora
from weitiao.types import Encoded

UNSUPERVISED = -100
"""Label that Hugging Face's loss passes over."""


class HfSystem(System):
    def prepare(self, make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> None:
        self.samples, self.settings = samples, settings
        base = make()
        self.change(base)
        self.model = add_lora(base, settings.lora(self.dropout(settings)), make.family, settings.seed).train()
        self.device = base.device
        self.parameters = [parameter for _, parameter in adapter_parameters(self.model)]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)

    def dropout(self, settings: Settings) -> float:
        """On the adapters' input."""
        return settings.dropout

    def change(self, base: Any) -> None:
        """Set up the frozen model before it gets adapters."""

    def step(self, number: int) -> torch.Tensor:
        loss = self.backward([self.samples[at] for at in self.settings.members(number)])
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def backward(self, members: Sequence[Encoded]) -> torch.Tensor:
        """Gradients of the mean over the members' answer tokens, in micro-batches; the loss."""
        wanted = sum(len(sample.answer) for sample in members)
        total = torch.zeros((), device=self.device)
        for batch in self.batches(members):
            loss = self.loss(batch, wanted)
            loss.backward()
            total += loss.detach()
        return total

    @abstractmethod
    def batches(self, members: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
        """The micro-batches of a step."""

    @abstractmethod
    def loss(self, members: Sequence[Encoded], wanted: int) -> torch.Tensor:
        """Sum of the members' cross-entropies over `wanted`, as Trainer's `num_items_in_batch` has it."""

    def padded(self, rows: Sequence[Sequence[int]], filler: int, left: bool = False) -> torch.Tensor:
        """int64 [B, T] on the device."""
        width = max(map(len, rows))
        fill = [[filler] * (width - len(row)) for row in rows]
        whole = [[*f, *row] if left else [*row, *f] for f, row in zip(fill, rows, strict=True)]
        return torch.tensor(whole).to(self.device)
