"""`weitiao bench predict`: rows a second that are answered, ours and others', and whether ours are the plain path's.

Same weights, same adapter, same rows, same number of tokens an answer; each way in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from weitiao.bench.answerer import ADAPTER, adapted, answerer_class
from weitiao.bench.equality import LAYERS
from weitiao.bench.measure import free
from weitiao.bench.predict_lane import Lane, spread, tried
from weitiao.bench.predict_rows import OURS, absent_row, told
from weitiao.bench.questions import Questions, questions
from weitiao.bench.remote import WorkerFailed, Workers
from weitiao.bench.request import PredictRequest
from weitiao.bench.shapes import SHAPES, model_maker
from weitiao.bench.table import agreement_line
from weitiao.bench.turns import blocks_in_turn, guarded
from weitiao.bench.vocabulary import write_tokenizer
from weitiao.model.adapter import save_adapter
from weitiao.model.load import choose_dtype
from weitiao.tracking.machine import machine
from weitiao.tracking.screen import Screen

SEED = 1


@dataclass(frozen=True)
class Weights:
    """Of one model, on the disk."""

    folder: Path
    dtype: str
    layers: int | None
    """Of its decoder; None: all that the shape has."""


def bench_predict(request: PredictRequest, screen: Screen) -> dict[str, Any]:
    """Measure all that is asked for; the content of `--json`."""
    device = torch.device(request.device)
    dtype = choose_dtype("auto", device)
    rows: list[dict[str, Any]] = []
    agreements: list[dict[str, Any]] = []
    with Workers(request.shape, device) as workers:
        weights = written(request, workers, dtype)
        # In float32 with few layers, as the gradients of `bench train`.
        checked = [weights] if dtype == torch.float32 else [weights, written(request, workers, torch.float32, LAYERS)]
        screen.note(f"{request.shape}, {weights.dtype} on {device}")
        for profile in request.profiles:
            screen.note(f"{profile}, {request.rows} rows")
            asked = counted(drawn(request, profile, workers.folder), workers, weights.folder, screen)
            lanes = measured(request, asked, weights.folder, workers, screen)
            ours = [name for name in present(request) if name in OURS]
            found = [one for name in ours for one in agreed(name, request, asked, checked, workers, screen)]
            equal = {name: all(one["equal"] for one in found if one["system"] == name) for name in ours}
            rows += told(lanes, profile, equal)
            rows += [absent_row(name, profile, why) for name, why in absent(request).items()]
            agreements += found
    about = {"shape": request.shape, "dtype": weights.dtype, "rows": request.rows}
    return {"machine": machine(device) | about, "rows": rows, "agreement": agreements}


def written(request: PredictRequest, workers: Workers, dtype: torch.dtype, layers: int | None = None) -> Weights:
    """Weights on the disk. This process does not keep them: the others need the memory."""
    make = model_maker(request.shape, torch.device(request.device), dtype, layers=layers)
    folder = workers.weights(make)
    save_adapter(adapted(make), folder / ADAPTER)
    del make
    free()
    return Weights(folder, str(dtype).removeprefix("torch."), layers)


def drawn(request: PredictRequest, profile: str, folder: Path) -> Questions:
    family, vocabulary = SHAPES[request.shape].family, SHAPES[request.shape].config["vocab_size"]
    if not (folder / "tokenizer.json").exists():
        write_tokenizer(folder, family, vocabulary)
    return questions(profile, folder, family, vocabulary, request.rows, SEED)


def counted(asked: Questions, workers: Workers, folder: Path, screen: Screen) -> Questions:
    """With the lengths of the answers that our grammar lets the model write; labels have theirs already."""
    if asked.options["name"] != "ner":
        return asked
    worker = workers.of(answerer_class("weitiao"))
    try:
        worker.ask("first", folder, asked)
        return replace(asked, answers=worker.ask("answer_tokens"))
    except (WorkerFailed, torch.cuda.OutOfMemoryError) as failed:
        screen.note(f"weitiao: {failed}; answers of the profile's lengths")
        return asked
    finally:
        worker.stop()


def measured(request: PredictRequest, asked: Questions, folder: Path, workers: Workers, screen: Screen) -> list[Lane]:
    """Every way that is here, warmed up, then its blocks in turn with the others'; then the others' processes end."""
    lanes = []
    for name in present(request):
        kind = answerer_class(name)
        members = spread(asked, kind.most) if kind.most else range(len(asked.rows))
        lane = Lane(name, workers.of(kind), folder, asked, members, tried(kind.sizes[request.device], len(members)))
        lanes.append(lane)
        if guarded(lane, Lane.start):
            screen.note(
                f"{name}: first answer after {lane.first_seconds:.1f} s, warm {lane.warm_up_seconds:.1f} s later"
            )
        else:
            screen.note(f"{name}: {lane.note}")
    blocks_in_turn(lanes, request, screen)
    for lane in lanes:
        if lane.name not in OURS:
            lane.drop()
    return lanes


def agreed(
    system: str, request: PredictRequest, asked: Questions, checked: Sequence[Weights], workers: Workers, screen: Screen
) -> list[dict[str, Any]]:
    """One of ours against the plain path, with each of the weights; then its process ends."""
    worker, found = workers.of(answerer_class(system)), []
    for weights in checked:
        named = {"system": system, "profile": asked.profile, "dtype": weights.dtype, "layers": weights.layers}
        try:
            one = named | worker.ask("agreement", weights.folder, asked, request.checked)
        except (WorkerFailed, torch.cuda.OutOfMemoryError) as failed:
            one = named | {"rows": 0, "same": None, "equal": False, "note": str(failed)}
        screen.note(agreement_line(one))
        found.append(one)
    worker.stop()
    return found


def absent(request: PredictRequest) -> dict[str, str]:
    """Each way that cannot answer here, and why."""
    reasons = {name: answerer_class(name).absent(request.device) for name in request.systems}
    return {name: why for name, why in reasons.items() if why is not None}


def present(request: PredictRequest) -> list[str]:
    return [name for name in request.systems if name not in absent(request)]
