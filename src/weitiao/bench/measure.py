"""Time and memory of systems, block by block in turn, so that a machine's slow minutes meet all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from weitiao.bench.profiles import distinct_tokens, real_tokens
from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings, System
from weitiao.types import Encoded

GEMM = {"cuda": (8192, torch.bfloat16, 20), "cpu": (2048, torch.float32, 2)}
"""Size, type and repetitions of the product that a rate is measured with."""
KEPT_UP = {"cuda": 3.0, "cpu": 0.5}
"""Seconds after which a card has come down to the clock that its power allows."""
STILL_FASTER = 0.9
"""A step that takes less than this share of the fastest before says that warm-up goes on."""
LONGEST_WARM_UP = 120.0
"""Seconds after which a system counts as warm, whatever its steps do."""
FIRST_LOSSES = 5


@dataclass(frozen=True)
class Block:
    seconds: float
    samples: int
    tokens: int
    """Real ones: of every sample, its prefix too."""
    distinct: int
    peak: int
    """Bytes on the card that the system alone would have needed; 0 on a CPU."""


@dataclass
class Lane:
    """A system at work, and what was seen of it."""

    name: str
    system: System
    samples: Sequence[Encoded]
    prefix: int
    settings: Settings
    device: torch.device
    steps: int = 0
    """Steps done."""
    warm_up_seconds: float = 0.0
    """From a model to steps that get no faster."""
    warm_up_samples: int = 0
    losses: list[torch.Tensor] = field(default_factory=list)
    """Of the first steps."""
    blocks: list[Block] = field(default_factory=list)
    note: str | None = None
    """Why there are no blocks."""

    def step(self) -> None:
        loss = self.system.step(self.steps)
        self.steps += 1
        if len(self.losses) < FIRST_LOSSES:
            self.losses.append(loss.detach())

    def members(self, first: int) -> list[Encoded]:
        """Samples of the steps from `first` on."""
        return [self.samples[at] for number in range(first, self.steps) for at in self.settings.members(number)]

    def warm_up(self, make: ModelMaker) -> None:
        start = time.perf_counter()
        self.system.prepare(make, self.samples, self.settings)
        times: list[float] = []
        while not stable(times) and time.perf_counter() - start < LONGEST_WARM_UP:
            begin = time.perf_counter()
            self.step()
            synchronize(self.device)
            times.append(time.perf_counter() - begin)
        self.warm_up_seconds = time.perf_counter() - start
        self.system.rest()
        self.warm_up_samples = len(self.members(0))

    def block(self, seconds: float) -> None:
        """Steps for so long; the device is waited for at the end only."""
        others = self._take_card() if self.device.type == "cuda" else 0
        first = self.steps
        start = time.perf_counter()
        while self.steps == first or time.perf_counter() - start < seconds:
            self.step()
        synchronize(self.device)
        taken = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() - others if self.device.type == "cuda" else 0
        self.system.rest()
        members = self.members(first)
        # The prefix is computed once a step.
        distinct = sum(
            distinct_tokens([self.samples[at] for at in self.settings.members(number)], self.prefix)
            for number in range(first, self.steps)
        )
        self.blocks.append(Block(taken, len(members), real_tokens(members), distinct, peak))

    def drop(self) -> None:
        """Give back what the system holds."""
        self.system = type(self.system)()
        free()

    def _take_card(self) -> int:
        """Free what other systems left in torch's pool, and fill it by a step outside of the block; the bytes that the
        other systems hold."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        others = torch.cuda.memory_allocated() - held_bytes(self.system)
        self.system.wake()
        self.step()
        synchronize(self.device)
        return others


def stable(times: Sequence[float]) -> bool:
    """Whether the last two steps were no faster than those before."""
    return len(times) > 2 and min(times[-2:]) >= STILL_FASTER * min(times[:-2])


def held_bytes(system: System) -> int:
    """Bytes of the tensors that a system needs between steps: model and optimizer, shared memory once."""
    tensors = [*system.model.parameters(), *system.model.buffers()]
    for state in system.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.is_cuda}
    return sum(storages.values())


L = TypeVar("L")


def interleaved(lanes: Iterable[L], repeats: int, block: Callable[[L], None]) -> None:
    """One block of each lane in turn, `repeats` times."""
    lanes = list(lanes)
    for _ in range(repeats):
        for lane in lanes:
            block(lane)


def gemm_rates(device: torch.device) -> tuple[float, float]:
    """FLOP/s of a square matrix product, 2 n³ FLOPs: the best of three short runs, and what is kept up for seconds.

    A card runs into its limit of power within a second, and lowers its clock: training never sees the first rate.
    """
    size, dtype, repeats = GEMM[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def taken() -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(repeats):
            a @ b
        synchronize(device)
        return (time.perf_counter() - start) / repeats

    a @ b
    best = min(taken() for _ in range(3))
    start, last = time.perf_counter(), best
    while time.perf_counter() - start < KEPT_UP[device.type]:
        last = taken()
    return 2 * size**3 / best, 2 * size**3 / last


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
