"""What is told of a way to predict: a row of `bench predict --json`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from weitiao.bench.predict_lane import Lane
from weitiao.tracking.machine import GIB

OURS = ("weitiao", "weitiao_merged")
REFERENCES = ("hf_batch", "hf_generate_batch")
"""Hugging Face's ways; the faster one is what ours is compared with."""
FIGURES = (
    *("samples_per_second", "low", "high", "ratio", "answer_tokens_per_second", "peak_gib", "first_answer_seconds"),
    *("warm_up_seconds", "setting", "equal"),
)


def told(lanes: Sequence[Lane], profile: str, equal: Mapping[str, bool]) -> list[dict[str, Any]]:
    """A row of `--json` for each lane. equal: of our ways, whether the answers are the plain path's."""
    speeds = {lane.name: _speed(lane) for lane in lanes if lane.note is None}
    best = max((speed for name, speed in speeds.items() if name in REFERENCES), default=None)
    return [
        _row(lane, profile, speeds[lane.name], best, equal.get(lane.name))
        if lane.note is None
        else absent_row(lane.name, profile, lane.note)
        for lane in lanes
    ]


def _speed(lane: Lane) -> float:
    return statistics.median(block.samples / block.seconds for block in lane.blocks)


def _row(lane: Lane, profile: str, speed: float, best: float | None, equal: bool | None) -> dict[str, Any]:
    rates = [block.samples / block.seconds for block in lane.blocks]
    peak = max((block.peak for block in lane.blocks if block.peak is not None), default=None)
    return {
        "system": lane.name,
        "profile": profile,
        "samples_per_second": speed,
        "low": min(rates),
        "high": max(rates),
        "ratio": None if best is None else speed / best,
        "answer_tokens_per_second": statistics.median(block.answer_tokens / block.seconds for block in lane.blocks),
        "peak_gib": None if peak is None else peak / GIB,
        "first_answer_seconds": lane.first_seconds,
        "warm_up_seconds": lane.warm_up_seconds,
        "setting": lane.setting,
        "equal": equal,
        "note": None,
    }


def absent_row(system: str, profile: str, why: str) -> dict[str, Any]:
    return {"system": system, "profile": profile, **dict.fromkeys(FIGURES), "note": why}
