"""What the bench asks of a way to predict. Each runs in a process of its own, so that memory and start are its own."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from weitiao.bench.equality import fill_adapters
from weitiao.bench.questions import Questions
from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Alternative, Settings
from weitiao.model.adapter import add_lora

ADAPTER = "adapter"
"""Folder of the adapter that all ways have, beside the weights."""


@dataclass(frozen=True)
class Block:
    seconds: float
    samples: int
    answer_tokens: int
    peak: int | None
    """Bytes: torch's on a card, else what the process held; None where the system does not say."""


class Answerer(Alternative, ABC):
    program = "weitiao.bench.predict_worker"
    most: int | None = None
    """Rows that it is measured on, where all of them would take too long."""
    sizes: Mapping[str, Sequence[int]] = {"cpu": (0,), "cuda": (0,)}
    """Rows of a batch that are tried on a device, the fastest is taken; 0 where it decides by itself."""
    size = 0

    @classmethod
    def absent(cls, device: str) -> str | None:
        """Why it cannot answer on a `device` here; None when it can."""
        return None

    @property
    def setting(self) -> str:
        """How it was set, in a few words."""
        return f"batch {self.size}" if self.size else ""

    @abstractmethod
    def prepare(self, make: ModelMaker, questions: Questions) -> None:
        """Get ready to answer, with a model of `make` and its adapter."""

    @abstractmethod
    def answer(self, members: Sequence[int]) -> None:
        """Answer the rows of these indices."""


def adapted(make: ModelMaker) -> Any:
    """PeftModel with the adapter that all ways have: not zero, so that it matters."""
    model = add_lora(make(), Settings(1, 1).lora(0.0), make.family, 0)
    with torch.no_grad():
        fill_adapters(model)
    return model.eval()


def answerer_class(name: str) -> type[Answerer]:
    return importlib.import_module(f"weitiao.bench.answerers.{name}").ANSWERER
