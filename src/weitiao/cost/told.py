"""A cost in a few lines, for the screen and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weitiao.hub.download import size
from weitiao.tracking.screen import duration
from weitiao.training.disk import counted

AGAIN = {"gate_up": "gate and up are computed again", "layer": "whole layers are computed again"}


def lines(cost: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, what is told of it)."""
    yield "memory", _memory(cost)
    if cost["minutes"]:
        yield "time", _time(cost)
    disk = cost["disk"]
    needed, free = (size(disk[key] * 2**30) for key in ("gib", "free_gib"))
    yield "disk", f"at most {needed} with {counted(disk['checkpoints'])}; {free} are free"
    if price := cost["price"]:
        yield "price", f"{price['total']:g} ({price['low']:g} to {price['high']:g}) at {price['per_hour']:g} an hour"


def _memory(cost: Mapping[str, Any]) -> str:
    memory, name = cost["memory"], cost["machine"]["name"]
    peak = f"{memory['peak_gib']:.1f}"
    told = f"{peak} GiB at most on {name}"
    if memory["available_gib"] is not None:
        told = f"{peak} of {memory['available_gib']:.1f} GiB on {name}"
    done = [AGAIN[memory["recompute"]]] if memory["recompute"] in AGAIN else []
    done += ["weights in 4 bits"] * (memory["placement"] == "nf4")
    if memory["without_recomputation_gib"] > memory["peak_gib"]:
        done.append(f"packs of {memory['tokens_per_pack']:,} tokens")
    usual = f"in the largest packs {memory['without_recomputation_gib']:.1f}"
    least = f"{memory['with_recomputation_gib']:.1f} with layers computed again"
    return f"{told}{': ' if done else ''}{', '.join(done)} ({usual}, {least})"


def _time(cost: Mapping[str, Any]) -> str:
    times = cost["minutes"]
    parts = ", ".join(f"{duration(60 * times[part])} {part}" for part in ("start", "training", "answers"))
    total, low, high = (duration(60 * times[name]) for name in ("total", "low", "high"))
    count = f"{cost['steps']:,} steps, {cost['tokens']:,} tokens"
    rate = f"{cost['machine']['tflops']:g} TFLOP/s ({cost['machine']['rate_from']})"
    return f"{total} ({low} to {high}): {parts}; {count}; {rate}"
