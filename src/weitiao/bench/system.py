"""What the bench asks of a way to train."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from weitiao.bench.shapes import ModelMaker
from weitiao.config import LoraSection
from weitiao.data.pack import samples_of_step
from weitiao.types import Encoded


@dataclass(frozen=True)
class Settings:
    """What is the same in all systems."""

    samples_per_step: int
    count: int
    """Samples that there are."""
    dropout: float = 0.0
    seed: int = 0
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    order: int | None = None
    """Seed of the samples' order, if it is another."""

    def lora(self, dropout: float) -> LoraSection:
        return LoraSection.model_validate({"r": 8, "lora_alpha": 32, "lora_dropout": dropout})

    def members(self, number: int) -> list[int]:
        """Indices of the samples of step `number`, counted from 0."""
        return samples_of_step(self.count, self.samples_per_step, self.seed_of_order, number)

    @property
    def seed_of_order(self) -> int:
        return self.seed if self.order is None else self.order


class Alternative:
    """One way to do the bench's work, as its own process is started for it (`remote.py`)."""

    program = "weitiao.bench.worker"
    """Module that the process runs."""
    first_import: str | None = None
    """What its process has to import before anything else."""

    @classmethod
    def environment(cls, folder: Path) -> Mapping[str, str]:
        """Variables that its own process is started with. folder: for what it writes."""
        return {}


class System(Alternative, ABC):
    exact = True
    """Whether it computes the gradient of the mean over all answer tokens, without dropout of its own."""
    own_process = False
    """Whether it patches more than its own model, so that no other system may share its process (see `worker.py`)."""
    loads_itself = False
    """Whether it reads the weights from `make.folder`, and calls no `make`."""
    model: Any
    """PeftModel that it trains."""
    optimizer: torch.optim.Optimizer

    @classmethod
    def absent(cls, model_type: str) -> str | None:
        """Why it cannot train a model of transformers' `model_type` here; None when it can."""
        return None

    @abstractmethod
    def prepare(self, make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> None:
        """Get ready to train a model of `make` on `samples`."""

    @abstractmethod
    def step(self, number: int) -> torch.Tensor:
        """One optimizer update on the samples `settings.members(number)`; its mean loss, still on the device."""

    def wake(self) -> None:
        """Take what the steps of a block need besides model and optimizer; most need nothing."""

    def rest(self) -> None:
        """Give it back, for other systems' blocks."""


def system_class(name: str) -> type[System]:
    return importlib.import_module(f"weitiao.bench.systems.{name}").SYSTEM
