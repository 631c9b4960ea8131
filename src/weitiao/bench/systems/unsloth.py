"""Unsloth: named, so that its absence from the table is seen. It patches transformers for the whole process on import,
so it cannot be measured beside the others."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch

from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings, System
from weitiao.types import Encoded


class Unsloth(System):
    @classmethod
    def absent(cls, model_type: str) -> str | None:
        installed = importlib.util.find_spec("unsloth") is not None
        return "not measured (it patches transformers for the whole process)" if installed else "not installed"

    def prepare(self, make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> None:
        raise NotImplementedError

    def step(self, number: int) -> torch.Tensor:
        raise NotImplementedError


SYSTEM = Unsloth
