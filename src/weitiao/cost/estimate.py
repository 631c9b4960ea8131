"""All that a training takes, as JSON:

machine  {"name", "memory_gib": null where unknown, "tflops": null where unknown, "rate_from"}
steps, tokens   of the training: optimizer updates, and tokens that are computed
memory   {"peak_gib": as the engine would do it, "without_recomputation_gib", "with_recomputation_gib",
          "available_gib", "fits", "placement": one|nf4, "recompute": nothing|gate_up|layer, "tokens_per_pack"}
minutes  {"total", "low", "high", "start", "training", "answers", "untuned": of the answers}; null where the machine's
         rate is unknown
disk     {"gib": at most, "free_gib", "checkpoints": at once}
price    {"per_hour", "total", "low", "high"} in the currency of the number that was given; null without one
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weitiao.config import RunConfig
from weitiao.cost.machine import GIB, Machine, machine_of
from weitiao.cost.memory import Memory, memory
from weitiao.cost.minutes import Minutes, minutes
from weitiao.cost.model import Model, model_of
from weitiao.cost.work import Work, work_of
from weitiao.families.base import Family
from weitiao.tasks.base import task_class
from weitiao.training.disk import checkpoints_at_most, free_near, most_bytes
from weitiao.training.on_cpu import MOST, duration

Told = dict[str, Any]


def estimate(
    config: RunConfig,
    folder: Path,
    family: Family,
    result: Mapping[str, Any],
    gpu: str | None = None,
    price: float | None = None,
) -> tuple[Told | None, Told | None]:
    """(the cost, what to tell as the finding `too-large`). The cost is None where there is no such machine, no row, or
    a config.json without sizes.

    folder, family: of the model. result: of a check. gpu: a name in `cards`, or `cpu`; None: the
    machine at hand. price: of an hour.
    Raises ConfigError for a card that is not in the table.
    """
    machine = machine_of(gpu, config.model)
    model = model_of(folder, config.lora, family)
    work = work_of(config, result, task_class(config.task["name"]).has_labels)
    if machine is None or model is None or work is None:
        return None, None
    held = memory(config, model, work, machine)
    taken = minutes(model, work, machine, held)
    return told(config, model, work, machine, held, taken, price), too_large(config, model, machine, held, taken)


def told(
    config: RunConfig,
    model: Model,
    work: Work,
    machine: Machine,
    held: Memory,
    taken: Minutes | None,
    price: float | None,
) -> Told:
    times = None if taken is None else _minutes(taken)
    return {
        "machine": {
            "name": machine.name,
            "memory_gib": None if machine.gib is None else round(machine.gib, 1),
            "tflops": None if machine.flops is None else round(machine.flops / 1e12, 3),
            "rate_from": machine.rate_from,
        },
        "steps": work.steps,
        "tokens": round(work.distinct(held.fit.tokens)),
        "memory": _memory(held),
        "minutes": times,
        "disk": _disk(config, model, work),
        "price": None if price is None or times is None else _price(price, times),
    }


def _memory(held: Memory) -> Told:
    return {
        "peak_gib": _gib(held.peak),
        "without_recomputation_gib": _gib(held.without),
        "with_recomputation_gib": _gib(held.again),
        "available_gib": None if held.available is None else _gib(held.available),
        "fits": held.fits,
        "placement": held.placement,
        "recompute": held.fit.recompute,
        "tokens_per_pack": held.fit.tokens,
    }


def _minutes(taken: Minutes) -> Told:
    parts = {name: round(getattr(taken, name), 2) for name in ("start", "training", "answers", "untuned")}
    ends = {"total": taken.total, "low": taken.total / taken.factor, "high": taken.total * taken.factor}
    return {**{name: round(value, 2) for name, value in ends.items()}, **parts}


def _price(price: float, times: Told) -> Told:
    return {"per_hour": price} | {name: round(price * times[name] / 60, 2) for name in ("total", "low", "high")}


def _disk(config: RunConfig, model: Model, work: Work) -> Told:
    checkpoints = checkpoints_at_most(config, work.steps, work.per_epoch)
    needed = most_bytes(4 * model.trained, checkpoints)
    return {"gib": _gib(needed), "free_gib": _gib(free_near(config.folder)), "checkpoints": checkpoints}


def too_large(config: RunConfig, model: Model, machine: Machine, held: Memory, taken: Minutes | None) -> Told | None:
    """{"level", "what", "do"} where it cannot be trained on such a machine."""
    count = sum(map(math.prod, model.shapes.values()))
    if machine.cpu and count > MOST and config.training.on_cpu == "refuse":
        time = f", in about {duration(60 * taken.total)}" if taken is not None else ""
        what = f"{config.model.name} has {count / 1e9:.1f} billion parameters, and would be trained on a CPU{time}"
        return {"level": "error", "what": what, "do": "use a card or a smaller model, or set training.on_cpu=allow"}
    if held.fits or held.available is None:
        return None
    what = f"training takes {held.peak / GIB:.1f} GiB, and {machine.name} has {held.available / GIB:.1f} GiB for it"
    # A system can lend a process more memory than it has; a card cannot.
    level = "warning" if machine.cpu else "error"
    return {"level": level, "what": what, "do": "; ".join(_helps(config, machine, held))}


def _helps(config: RunConfig, machine: Machine, held: Memory) -> Iterator[str]:
    if config.training.gradient_checkpointing == "off" and held.again < held.without:
        yield "training.gradient_checkpointing=auto computes layers again"
    if config.model.placement == "one" and not machine.cpu:
        yield "model.placement=auto puts the weights in 4 bits where they do not fit"
    yield f"use a smaller model{'' if machine.cpu else ' or a larger card'}, or lower data.max_length"


def _gib(count: float) -> float:
    return round(count / GIB, 2)
