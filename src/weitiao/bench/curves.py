"""Whether a system's loss goes where that of separate Hugging Face code goes, step by step, in the bench's own type.

Rounding and kernels differ, so losses do. How much may they? Another order of the same samples changes a run, too, and
nobody would call it another method: the measure is what that changes.
"""

from __future__ import annotations

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
    """For each profile and each of the systems that claims the reference's loss and shares this process."""
    found = []
    names = [name for name in systems if name != REFERENCE and system_class(name).exact]
    for profile, samples in drawn.items():
        reference = losses(REFERENCE, make, samples, settings, steps)
        noise = distance(reference, losses(REFERENCE, make, samples, replace(settings, order=settings.seed + 1), steps))
        for name in names:
            if system_class(name).own_process:
                continue
            gap = distance(reference, losses(name, make, samples, settings, steps))
            screen.note(f"{profile}: over {steps} steps {name} is {gap:.4f} off {REFERENCE}, another order {noise:.4f}")
            told = {"profile": profile, "system": name, "steps": steps, "gap": gap, "other_order": noise}
            found.append(told | {"within": gap <= ALLOWED * noise})
    return found


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
