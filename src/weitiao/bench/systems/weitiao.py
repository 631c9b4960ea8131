"""Weitiao's own step: `training.loop.Loop` with the engine as a config sets it by default."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings, System
from weitiao.config import RunConfig
from weitiao.data.prefix import common_prefix
from weitiao.engine.attention_plan import choose_way
from weitiao.engine.forward import Forward
from weitiao.model.adapter import add_lora
from weitiao.training.loop import Loop
from weitiao.types import Encoded

STEPS = 400
"""Of the run that is measured: what is prepared for it, in the warm-up, depends on its length."""


class Weitiao(System):
    def prepare(self, make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> None:
        config, frozen = _config(settings), make()
        self.model = add_lora(frozen, config.lora, make.family, settings.seed).train()
        way = choose_way(config.engine.attention, frozen.device, frozen.dtype)
        forward = Forward(frozen, way, fast=True, triton=config.engine.triton)
        assert forward.fast is not None, forward.slow_because
        # accelerate keeps the device of a process's first run.
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(cpu=frozen.device.type == "cpu", mixed_precision="no")
        self.loop = Loop(config, self.model, forward, samples, [], common_prefix(samples), accelerator)
        self.optimizer = self.loop.optimizer

    def step(self, number: int) -> torch.Tensor:
        return self.loop.step(number).loss

    def wake(self) -> None:
        if self.loop.graphs is not None:
            self.loop.graphs.wake()

    def rest(self) -> None:
        if self.loop.graphs is not None:
            self.loop.graphs.rest()


def _config(settings: Settings) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"seed": settings.seed_of_order},
            "task": {"name": "generation"},
            "model": {"name": "random"},
            "data": {"train": "random"},
            "lora": settings.lora(settings.dropout),
            "training": {
                "samples_per_step": settings.samples_per_step,
                "learning_rate": settings.learning_rate,
                "max_grad_norm": settings.max_grad_norm,
                "lr_scheduler_type": "constant",
                "max_steps": STEPS,
            },
        }
    )


SYSTEM = Weitiao
