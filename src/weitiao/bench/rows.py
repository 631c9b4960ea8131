"""What is told of a system: a row of `bench --json`.

Useful FLOPs are those that no exact way can do without: 4 × parameters of the body × distinct tokens, 2 for the forward
pass and 2 for the gradient of the input of each frozen weight; the shared prefix counts once a step. Head, attention
and adapters are left out.
"""

from __future__ import annotations

import statistics
from typing import Any

from weitiao.bench.equality import TOLERANCE
from weitiao.bench.measure import Lane
from weitiao.tracking.machine import GIB

FIGURES = (
    *("samples_per_second", "low", "high", "tokens_per_second", "peak_gib", "useful_tflops", "gemm_share"),
    *("warm_up_seconds", "seconds_1k", "seconds_10k", "equal", "equal_error", "first_losses"),
)


def row(lane: Lane, profile: str, body: int, gemm: float, error: float | None) -> dict[str, Any]:
    """Medians over the blocks. Warm-up's samples count as done, for its steps train like any other.

    body: parameters, see the module's text. gemm: FLOP/s.
    """
    if lane.note is not None:
        return absent_row(lane.name, profile, lane.settings.samples_per_step, lane.note)
    rates = [block.samples / block.seconds for block in lane.blocks]
    speed = statistics.median(rates)
    useful = 4 * body * statistics.median(block.distinct / block.seconds for block in lane.blocks)
    peak = max(block.peak for block in lane.blocks)
    return {
        "system": lane.name,
        "profile": profile,
        "samples_per_step": lane.settings.samples_per_step,
        "samples_per_second": speed,
        "low": min(rates),
        "high": max(rates),
        "tokens_per_second": statistics.median(block.tokens / block.seconds for block in lane.blocks),
        "peak_gib": peak / GIB if peak else None,
        "useful_tflops": useful / 1e12,
        "gemm_share": useful / gemm,
        "warm_up_seconds": lane.warm_up_seconds,
        "seconds_1k": lane.warm_up_seconds + max(1_000 - lane.warm_up_samples, 0) / speed,
        "seconds_10k": lane.warm_up_seconds + max(10_000 - lane.warm_up_samples, 0) / speed,
        "equal": None if error is None else error <= TOLERANCE[lane.device.type],
        "equal_error": error,
        "first_losses": [float(loss) for loss in lane.losses],
        "note": None,
    }


def absent_row(system: str, profile: str, samples_per_step: int, why: str) -> dict[str, Any]:
    named = {"system": system, "profile": profile, "samples_per_step": samples_per_step}
    return {**named, **dict.fromkeys(FIGURES), "note": why}
