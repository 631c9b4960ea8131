"""What the bench is asked for, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from weitiao.bench.answerers import answerer_names
from weitiao.bench.profiles import PROFILES
from weitiao.bench.shapes import SHAPES
from weitiao.bench.systems import system_names
from weitiao.errors import ConfigError

DEVICES = ("cpu", "cuda")
DEFAULT_SHAPE = {"cuda": "qwen2-1.5b", "cpu": "smollm2-135m"}
DEFAULT_PROFILES = {"cuda": tuple(PROFILES), "cpu": ("ner",)}
PREDICTED = ("classification", "ner")
"""Profiles of predictions, unless others are asked for."""
DEFAULT_ROWS = {"cuda": 1024, "cpu": 32}
DEFAULT_CHECKED = {"cuda": 128, "cpu": 16}


@dataclass(frozen=True)
class Request:
    device: str
    shape: str
    profiles: tuple[str, ...]
    samples_per_step: tuple[int, ...]
    systems: tuple[str, ...]
    repeats: int = 3
    seconds: float = 10.0
    """Of a block."""
    dropout: float = 0.0
    curve: int = 0
    """Steps over which losses are compared; 0: they are not."""


@dataclass(frozen=True)
class PredictRequest:
    device: str
    shape: str
    profiles: tuple[str, ...]
    systems: tuple[str, ...]
    rows: int
    checked: int
    """Rows whose answers are compared with the plain path's."""
    repeats: int = 3
    seconds: float = 10.0
    """Of a block, which answers all rows once at least."""


def asked(
    device: str | None = None,
    shape: str | None = None,
    profiles: Sequence[str] = (),
    samples_per_step: Sequence[int] = (),
    systems: Sequence[str] = (),
    **more: Any,
) -> Request:
    """A request by names; what is left out gets its default. Raises ConfigError for a name that there is not, and for
    a device that this machine has not."""
    _refuse_unknown("device", [device] if device else [], DEVICES)
    _refuse_unknown("shape", [shape] if shape else [], SHAPES)
    _refuse_unknown("profile", profiles, PROFILES)
    _refuse_unknown("system", systems, system_names())
    there = _there(device)
    return Request(
        there,
        shape or DEFAULT_SHAPE[there],
        tuple(profiles) or DEFAULT_PROFILES[there],
        tuple(samples_per_step) or (16, 256),
        tuple(systems) or system_names(),
        **more,
    )


def asked_predict(
    device: str | None = None,
    shape: str | None = None,
    profiles: Sequence[str] = (),
    systems: Sequence[str] = (),
    rows: int | None = None,
    checked: int | None = None,
    **more: Any,
) -> PredictRequest:
    """As `asked`, for predictions."""
    _refuse_unknown("device", [device] if device else [], DEVICES)
    _refuse_unknown("shape", [shape] if shape else [], SHAPES)
    _refuse_unknown("profile", profiles, PROFILES)
    _refuse_unknown("system", systems, answerer_names())
    there = _there(device)
    rows = rows or DEFAULT_ROWS[there]
    return PredictRequest(
        there,
        shape or DEFAULT_SHAPE[there],
        tuple(profiles) or PREDICTED,
        tuple(systems) or answerer_names(),
        rows,
        min(rows, checked or DEFAULT_CHECKED[there]),
        **more,
    )


def _refuse_unknown(option: str, names: Sequence[str], choices: Collection[str]) -> None:
    for name in names:
        if name not in choices:
            raise ConfigError(f"--{option} {name}: no such {option}; choices: {', '.join(choices)}")


def _there(device: str | None) -> str:
    import torch

    has_card = torch.cuda.is_available()
    if device == "cuda" and not has_card:
        raise ConfigError("--device cuda: this machine has no card that torch can use; choices: cpu")
    return device or ("cuda" if has_card else "cpu")
