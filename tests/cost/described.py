"""Work of the bench's profiles on models of its shapes, as `weitiao check` would tell it."""

from __future__ import annotations

from functools import cache
from statistics import fmean, pstdev
from typing import Any

from weitiao.bench.profiles import PROFILES, samples
from weitiao.bench.shapes import SHAPES
from weitiao.config import RunConfig
from weitiao.cost.machine import Machine, named
from weitiao.cost.memory import Memory, memory
from weitiao.cost.model import Model, described
from weitiao.cost.work import Spread, Work
from weitiao.data.pack import steps_per_epoch
from weitiao.families.base import families
from weitiao.types import Encoded

COUNT, STEPS = 1024, 400
"""Of the bench."""


def config_of(**sections: Any) -> RunConfig:
    said = {"task": {"name": "ner"}, "model": {"name": "some"}, "data": {"train": "rows"}}
    return RunConfig.model_validate(said | sections)


def model_of(shape: str = "qwen2-1.5b", **config: Any) -> Model:
    made = SHAPES[shape]
    values = {"model_type": made.model_type, **made.config, **config}
    model = described(values, config_of().lora, families()[made.family], None)
    assert model is not None
    return model


@cache
def rows(profile: str) -> list[Encoded]:
    return samples(PROFILES[profile], COUNT, 100, 1)


def work_of(profile: str, samples_per_step: int, **other: Any) -> Work:
    drawn, prefix = rows(profile), PROFILES[profile].prefix
    answers, own = [len(e.answer) for e in drawn], [len(e.ids) - prefix - 1 for e in drawn]
    told: dict[str, Any] = {
        "rows": COUNT,
        "samples": samples_per_step,
        "steps": STEPS,
        "per_epoch": steps_per_epoch(COUNT, samples_per_step),
        "prefix": prefix,
        "own": Spread(fmean(own), pstdev(own), max(own)),
        "answers": Spread(fmean(answers), pstdev(answers), max(answers)),
        "answered": 0,
        "written": profile == "ner",
    }
    return Work(**told | other)


def held(work: Work, machine: Machine | None = None, made: Model | None = None, **sections: Any) -> Memory:
    return memory(config_of(**sections), made or model_of(), work, machine or named("h100"))
