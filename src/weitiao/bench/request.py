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
DEFAULT_ROWS = {"cuda": 4096, "cpu": 32}
DEFAULT_CHECKED = {"cuda": 128, "cpu": 16}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What both benches are asked for."""

    device: str
    shape: str
    profiles: tuple[str, ...]
    systems: tuple[str, ...]
    repeats: int = 3
    seconds: float = 10.0
    """Of a block; one of predictions answers all rows once at least."""


@dataclass(frozen=True, kw_only=True)
class Request(Asked):
    samples_per_step: tuple[int, ...]
    dropout: float = 0.0
    curve: int = 0
    """Steps over which losses are compared; 0: they are not."""


@dataclass(frozen=True, kw_only=True)
class PredictRequest(Asked):
    rows: int
    checked: int
    """Rows whose answers are compared with the plain path's."""


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
    there = _checked(device, shape, profiles, systems, system_names())
    return Request(
        device=there,
        shape=shape or DEFAULT_SHAPE[there],
        profiles=tuple(profiles) or DEFAULT_PROFILES[there],
        systems=tuple(systems) or system_names(),
        samples_per_step=tuple(samples_per_step) or (16, 256),
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
    there = _checked(device, shape, profiles, systems, answerer_names())
    rows = rows or DEFAULT_ROWS[there]
    return PredictRequest(
        device=there,
        shape=shape or DEFAULT_SHAPE[there],
        profiles=tuple(profiles) or PREDICTED,
        systems=tuple(systems) or answerer_names(),
        rows=rows,
        checked=min(rows, checked or DEFAULT_CHECKED[there]),
        **more,
    )


def _checked(
    device: str | None, shape: str | None, profiles: Sequence[str], systems: Sequence[str], known: Collection[str]
) -> str:
    """The device that is there."""
    _refuse_unknown("device", [device] if device else [], DEVICES)
    _refuse_unknown("shape", [shape] if shape else [], SHAPES)
    _refuse_unknown("profile", profiles, PROFILES)
    _refuse_unknown("system", systems, known)
    return _there(device)


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
