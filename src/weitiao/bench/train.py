"""`weitiao bench train`: samples a second of training steps, ours and others', and whether they compute the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch

from weitiao.bench.curves import curves
from weitiao.bench.equality import LAYERS, SAMPLES, largest_error, worst_error
from weitiao.bench.measure import Lane, free, gemm_rates
from weitiao.bench.profiles import PROFILES, samples
from weitiao.bench.remote import RemoteLane, WorkerFailed, Workers
from weitiao.bench.request import Request
from weitiao.bench.rows import absent_row, row
from weitiao.bench.shapes import SHAPES, ModelMaker, model_maker
from weitiao.bench.system import Settings, system_class
from weitiao.bench.turns import blocks_in_turn, guarded
from weitiao.data.prefix import common_prefix
from weitiao.model.load import choose_dtype
from weitiao.tracking.machine import machine
from weitiao.tracking.screen import Screen
from weitiao.types import Encoded

COUNT = 1024
"""Samples of a profile."""
SEED = 1
CURVE_SAMPLES = 16
"""Of a step, where losses are compared."""

Equality = dict[tuple[str, str], float]
"""(system, profile) → worst error."""


def bench_train(request: Request, screen: Screen) -> dict[str, Any]:
    """Measure all that is asked for; the content of `--json`."""
    device = torch.device(request.device)
    dtype, (rate, kept_up) = choose_dtype("auto", device), gemm_rates(device)
    type_name = str(dtype).removeprefix("torch.")
    rates = f"matrix products at {rate / 1e12:.2f} TFLOP/s, kept up {kept_up / 1e12:.2f}"
    screen.note(f"{request.shape}, {type_name} on {device}; {rates}")
    make = model_maker(request.shape, device, dtype)
    drawn = {name: samples(PROFILES[name], COUNT, make.vocabulary, SEED) for name in request.profiles}
    rows = []
    with Workers(request.shape, device) as workers:
        errors = equality(request, drawn, workers, screen)
        for profile, count in product(request.profiles, request.samples_per_step):
            screen.note(f"{profile}, {count} samples a step")
            lanes = measured(request, make, drawn[profile], count, workers, screen)
            rows += [row(lane, profile, make.body_parameters, rate, errors.get((lane.name, profile))) for lane in lanes]
            rows += [absent_row(name, profile, count, why) for name, why in absent(request).items()]
    told_curves = []
    if request.curve:
        settings = Settings(CURVE_SAMPLES, COUNT)
        told_curves = curves(present(request), make, drawn, settings, request.curve, screen)
    told = {
        "shape": request.shape,
        "dtype": type_name,
        "gemm_tflops": rate / 1e12,
        "gemm_kept_up_tflops": kept_up / 1e12,
    }
    return {"machine": machine(device) | told, "rows": rows, "curves": told_curves}


def equality(request: Request, drawn: Mapping[str, Sequence[Encoded]], workers: Workers, screen: Screen) -> Equality:
    """In float32, without dropout, with few layers; of the systems that claim the same gradient."""
    make = model_maker(request.shape, torch.device(request.device), torch.float32, layers=LAYERS)
    errors: Equality = {}
    for name, profile in product(present(request), drawn):
        kind, members = system_class(name), drawn[profile][:SAMPLES]
        if not kind.exact:
            continue
        try:
            if kind.own_process:
                error = largest_error(workers.of(kind).gradients(make, members), make, members)
            else:
                error = worst_error(kind(), make, members)
            screen.note(f"{profile}: gradients of {name} against separate sequences: {error:.1e}")
        except WorkerFailed as failed:
            error = math.inf
            screen.note(f"{profile}: no gradients of {name}: {failed}")
        errors[name, profile] = error
    free()
    return errors


def measured(
    request: Request,
    make: ModelMaker,
    drawn: Sequence[Encoded],
    samples_per_step: int,
    workers: Workers,
    screen: Screen,
) -> list[Lane]:
    """Every system that is here, warmed up, then its blocks in turn with the others'."""
    settings = Settings(samples_per_step, len(drawn), request.dropout)
    prefix = len(common_prefix(drawn))
    lanes: list[Lane] = []
    for name in present(request):
        system = system_class(name)()
        whole = (name, system, drawn, prefix, settings, torch.device(request.device))
        own = system.own_process
        lanes.append(RemoteLane(*whole, worker=workers.of(type(system))) if own else Lane(*whole))
    for lane in lanes:
        if guarded(lane, lambda lane: lane.warm_up(make)):
            screen.note(f"{lane.name}: warm after {lane.warm_up_seconds:.1f} s, {lane.steps} steps")
        else:
            screen.note(f"{lane.name}: {lane.note}")
    blocks_in_turn(lanes, request, screen)
    for lane in lanes:
        lane.drop()
    return lanes


def absent(request: Request) -> dict[str, str]:
    """Each system that cannot run here, and why."""
    model_type = SHAPES[request.shape].model_type
    reasons = {name: system_class(name).absent(model_type) for name in request.systems}
    return {name: why for name, why in reasons.items() if why is not None}


def present(request: Request) -> list[str]:
    return [name for name in request.systems if name not in absent(request)]
