"""Whether a system's loss goes where that of separate Hugging Face code in float32 goes, step by step.

Rounding and kernels differ, so losses do. How much may they? Another order of the same samples changes a run, too, and
nobody would call it another method: the measure is what that changes. The reference is float32 because in 16 bits PEFT
rounds most of an adapter's first updates away (decision 0013).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from weitiao.bench.measure import free
from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings, system_class
from weitiao.tracking.screen import Screen
from weitiao.types import Encoded

REFERENCE = "hf_batched"
WINDOW = 20
"""Steps that a loss is averaged over, so that curves of two orders can be compared at all."""
ALLOWED = 1.5
"""Times the difference that another order makes."""


def curves(
    systems: Sequence[str],
    make: ModelMaker,
    drawn: Mapping[str, Sequence[Encoded]],
    settings: Settings,
    steps: int,
    screen: Screen,
) -> list[dict[str, Any]]:
    """For each profile and each of the systems that claim the exact gradient and share this process."""
    found = []
    exact = ModelMaker(make.family, lambda: copy.deepcopy(make.master).float())
    names = [name for name in systems if system_class(name).exact and not system_class(name).own_process]
    for profile, samples in drawn.items():
        reference = losses(REFERENCE, exact, samples, settings, steps)
        for name in names:
            ours, other = (losses(name, make, samples, one, steps) for one in (settings, reordered(settings)))
            gap, noise = distance(reference, ours), distance(ours, other)
            screen.note(
                f"{profile}: over {steps} steps {name} is at most {gap:.4f} off {REFERENCE} in float32, "
                f"and {noise:.4f} off itself in another order"
            )
            told = {"profile": profile, "system": name, "steps": steps, "gap": gap, "other_order": noise}
            found.append(told | {"within": gap <= ALLOWED * noise})
    return found


def reordered(settings: Settings) -> Settings:
    return replace(settings, order=settings.seed + 1)


def losses(name: str, make: ModelMaker, samples: Sequence[Encoded], settings: Settings, steps: int) -> list[float]:
    system = system_class(name)()
    system.prepare(make, samples, settings)
    seen = torch.stack([system.step(number).detach().float() for number in range(steps)]).tolist()
    system.rest()
    del system
    free()
    return seen


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Largest difference between the curves' running means, in nats."""
    width = min(WINDOW, len(first))
    spans = range(len(first) - width + 1)
    return max(abs(sum(first[at : at + width]) - sum(second[at : at + width])) / width for at in spans)
