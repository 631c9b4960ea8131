"""How long a training takes: operations that are of use, over the rate at which they were seen to be done.

Shares are what docs/speed.md has. Where a line says "reckoned", nobody has measured it.
"""

from __future__ import annotations

from dataclasses import dataclass

from weitiao.cost.machine import Machine
from weitiao.cost.memory import Memory
from weitiao.cost.model import Model
from weitiao.cost.work import Work
from weitiao.model.placement import sizes_of
from weitiao.training.on_cpu import PASSES, in_products

OURS = 0.42
"""Of the data sheet's rate: 413 of 989 TFLOP/s on an H100, NER-like rows, 1,024 a step (448 with labels); on an H200
433, 467, and 522 with GLM-4-9B's shape."""
PLAIN = 0.2
"""The same where kernels are not the engine's own (reckoned)."""
ON_CPU = 0.5
"""Of the rate of a product: 53 % on two AVX2 cores."""
PACK = 0.009
"""Seconds that a pack takes on a card beside its operations: 21 ms for 16 rows on an H100, of which 12 are these."""
AGAIN = {"nothing": 1.0, "gate_up": 1.2, "layer": 1.33}
"""What a step takes where something is computed again (engine/memory.py)."""
READ = 2
"""Operations for a weight and a token that is read, not trained on."""
START = 25.0
"""Seconds until the weights are read: libraries, rows, kernels that are built the first time."""
LOADED = 1.2e9
"""Bytes of weights in a second: 18.8 GB in 12 to 18 seconds."""
FACTOR = {True: 1.5, False: 2.0}
"""How far off the whole may be, both ways, on a card that was measured (reckoned) and on any other."""


@dataclass(frozen=True)
class Minutes:
    start: float
    training: float
    answers: float
    """Evaluations, calibration, metrics; of both models."""
    untuned: float
    """Of that, the answers of the untuned model."""
    factor: float

    @property
    def total(self) -> float:
        return self.start + self.training + self.answers


def minutes(model: Model, work: Work, machine: Machine, memory: Memory) -> Minutes | None:
    """None where nothing is known of the machine's rate."""
    if machine.flops is None:
        return None
    rate = machine.flops * (ON_CPU if machine.cpu else OURS if machine.kernels and memory.ours else PLAIN)
    weights, tokens = in_products(model.shapes), memory.fit.tokens
    training = PASSES * weights * work.distinct(tokens) / rate * AGAIN[memory.fit.recompute]
    if not machine.cpu:
        training += PACK * work.steps * work.packs(tokens)
    untuned = READ * weights * work.predicted_untuned(machine.cpu) / rate
    answers = READ * weights * work.predicted(machine.cpu) / rate + untuned
    start = START + sizes_of(model.shapes, 2)["one"] / LOADED
    return Minutes(start / 60, training / 60, answers / 60, untuned / 60, FACTOR[machine.measured and memory.ours])
