"""Whether a system's gradients are those of separate sequences under plain Hugging Face code, in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings, System
from weitiao.model.adapter import adapter_parameters, add_lora
from weitiao.types import Encoded

SAMPLES = 8
LAYERS = 2
TOLERANCE = {"cpu": 1e-5, "cuda": 5e-5}
"""Largest ‖Δ‖/‖g‖ of a tensor that counts as equal."""
B_SCALE = 0.05

Gradients = dict[str, torch.Tensor]


def worst_error(system: System, make: ModelMaker, samples: Sequence[Encoded]) -> float:
    """Error of a system's gradients for one step over `samples`. make: of float32 models."""
    return largest_error(gradients(system, make, samples), make, samples)


def largest_error(found: Gradients, make: ModelMaker, samples: Sequence[Encoded]) -> float:
    """Largest ‖Δ‖/‖g‖ of all adapter tensors; infinite where one has no gradient or one that is not finite."""
    wanted = separate_gradients(make, samples, _settings(samples))
    if found.keys() != wanted.keys():
        return math.inf
    errors = [float((found[name].to(g.device) - g).norm() / g.norm()) for name, g in wanted.items()]
    # `max` passes over a NaN that is not its first.
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def gradients(system: System, make: ModelMaker, samples: Sequence[Encoded]) -> Gradients:
    """A system's gradients for one step over `samples`."""
    system.prepare(make, samples, _settings(samples))
    return step_gradients(system)


def separate_gradients(make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> Gradients:
    """Gradients of the mean over all answer tokens: sample by sample, whole, unpadded."""
    model = add_lora(make(), settings.lora(0.0), make.family, settings.seed).train()
    fill_adapters(model)
    wanted = sum(len(sample.answer) for sample in samples)
    for sample in samples:
        ids = torch.tensor([sample.ids], device=model.device)
        count = len(sample.answer)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=count + 1).logits[0, :-1]
        (F.cross_entropy(logits.float(), ids[0, -count:], reduction="sum") / wanted).backward()
    return _gradients(model)


def step_gradients(system: System) -> Gradients:
    """Gradients as they reach the optimizer in a prepared system's first step."""
    fill_adapters(system.model)
    found: Gradients = {}
    hook = system.optimizer.register_step_pre_hook(lambda *_: found.update(_gradients(system.model)))
    system.step(0)
    hook.remove()
    return found


@torch.no_grad()
def fill_adapters(model: Any) -> None:
    """Make A and B random, the same every time, whatever a system starts with: while B is zero, so are the gradients
    of A."""
    draw = torch.Generator().manual_seed(1)
    for name, parameter in sorted(adapter_parameters(model)):
        scale = B_SCALE if "lora_B" in name else parameter.shape[1] ** -0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=draw))


def _settings(samples: Sequence[Encoded]) -> Settings:
    return Settings(len(samples), len(samples), max_grad_norm=math.inf)


def _gradients(model: Any) -> Gradients:
    return {name: p.grad.clone() for name, p in adapter_parameters(model) if p.grad is not None}
