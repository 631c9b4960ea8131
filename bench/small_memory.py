"""Training steps where the card has little memory left: what is computed again, how fast, and within how much.

python bench/small_memory.py [GIB, by default 5] [PROFILE, by default ner]
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from weitiao.bench.profiles import PROFILES, samples
from weitiao.bench.shapes import model_maker
from weitiao.bench.system import Settings
from weitiao.bench.systems.weitiao import Weitiao
from weitiao.families.base import Family

COUNT, STEPS, WARM = 1024, 60, 20


class Once:
    """Gives its model away, as a run does that has read its weights: nobody else holds them."""

    def __init__(self, model: Any, family: Family) -> None:
        self.model, self.family = model, family

    def __call__(self) -> Any:
        model, self.model = self.model, None
        return model


def main(gib: float = 5.0, profile: str = "ner") -> None:
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total)
    made = model_maker("qwen2-1.5b", torch.device("cuda"), torch.bfloat16)
    drawn = samples(PROFILES[profile], COUNT, made.vocabulary, 1)
    make: Any = Once(made.master, made.family)
    del made
    torch.cuda.empty_cache()
    system, settings = Weitiao(), Settings(16, COUNT)
    system.prepare(make, drawn, settings)
    losses = [system.step(number) for number in range(WARM)]
    torch.cuda.synchronize()
    start = time.perf_counter()
    losses += [system.step(number) for number in range(WARM, WARM + STEPS)]
    torch.cuda.synchronize()
    rate = STEPS * settings.samples_per_step / (time.perf_counter() - start)
    reserved = torch.cuda.max_memory_reserved() / 2**30
    print(
        f"{profile}, 16 samples a step within {gib} GiB: {rate:.0f} samples/s, {reserved:.2f} GiB held by torch, "
        f"{system.loop.fit}, loss {losses[0].item():.4f} → {losses[-1].item():.4f}"
    )


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *sys.argv[2:3])
