"""A cost in a few lines, for the screen and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weitiao.hub.download import size
from weitiao.tracking.screen import duration
from weitiao.training.disk import counted

AGAIN = {"gate_up": "a part of each layer twice", "layer": "whole layers twice"}
"""What the engine computes again where memory is short."""


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
    """What is needed, what is there, and whether and how it fits."""
    memory, name = cost["memory"], cost["machine"]["name"]
    needed = f"needs about {memory['peak_gib']:.1f} GiB"
    if memory["available_gib"] is None:
        return f"{needed}; how much {name} has is not known"
    there = f"{needed}, {name} has {memory['available_gib']:.1f} GiB"
    if not memory["fits"]:
        return f"{there}: it does not fit; the finding `too-large` says what to change"
    ways = list(_ways(memory))
    told = f"{there}: it fits" + (f", {' and '.join(ways)}" if ways else "")
    others = []
    if memory["without_recomputation_gib"] > memory["peak_gib"]:
        others.append(f"{memory['without_recomputation_gib']:.1f} GiB would be faster")
    if memory["with_recomputation_gib"] < memory["peak_gib"]:
        others.append(f"{memory['with_recomputation_gib']:.1f} GiB would do if whole layers were computed twice")
    return told + (f" ({', '.join(others)})" if others else "")


def _ways(memory: Mapping[str, Any]) -> Iterator[str]:
    """What is done so that it fits."""
    if memory["placement"] == "nf4":
        yield "with the weights stored in 4 bits"
    if memory["recompute"] in AGAIN:
        yield f"slower, computing {AGAIN[memory['recompute']]}"
    if memory["without_recomputation_gib"] > memory["peak_gib"]:
        yield f"with at most {memory['tokens_per_pack']:,} tokens at once"


def _time(cost: Mapping[str, Any]) -> str:
    times = cost["minutes"]
    parts = ", ".join(f"{duration(60 * times[part])} {part}" for part in ("start", "training", "answers"))
    if times["untuned"]:
        parts += f" (evaluation.untuned=false saves {duration(60 * times['untuned'])})"
    total, low, high = (duration(60 * times[name]) for name in ("total", "low", "high"))
    count = f"{cost['steps']:,} steps, {cost['tokens']:,} tokens"
    rate = f"{cost['machine']['tflops']:g} TFLOP/s ({cost['machine']['rate_from']})"
    return f"{total} ({low} to {high}): {parts}; {count}; {rate}"
