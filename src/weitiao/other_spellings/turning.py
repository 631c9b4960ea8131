"""Their keys and values as ours, with a line that says what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weitiao.errors import ConfigError, shown
from weitiao.other_spellings.kinds import NotNeeded, Refused, Renamed, Several
from weitiao.other_spellings.table import BATCH, TABLE
from weitiao.other_spellings.values import is_off


def is_theirs(key: str) -> bool:
    return key in TABLE or key in BATCH


def turned(theirs: Mapping[str, Any], has_task: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Their keys and values as `section.key` → value, and a line for each of them.

    has_task: whether a task is given, which theirs do not replace. Raises ConfigError for the first that cannot be.
    """
    ours: dict[str, Any] = {}
    lines: list[str] = []
    for key, value in theirs.items():
        if key in BATCH:
            if key == next(name for name in theirs if name in BATCH):
                _put(ours, "training.samples_per_step", _product(theirs), key)
                lines.append(f"{' × '.join(BATCH)} → training.samples_per_step = {ours['training.samples_per_step']}")
            continue
        row = TABLE[key]
        if value is None:
            lines.append(f"{key}: null, left out")
        elif isinstance(row, Refused):
            if not is_off(value):
                raise ConfigError(f"key `{key}`{'' if row.secret else _is(value)} has no counterpart here: {row.why}")
            lines.append(f"{key}: off, left out")
        elif isinstance(row, NotNeeded):
            if row.values is not None and value not in row.values:
                raise ConfigError(f"key `{key}`{_is(value)} has no counterpart here: {row.why}")
            lines.append(f"{key}: not needed; {row.why}")
        else:
            lines.append(_rename(ours, key, value, row, has_task))
    return ours, lines


def _rename(ours: dict[str, Any], key: str, value: Any, row: Renamed, has_task: bool) -> str:
    try:
        made = row.turn(value)
    except ValueError as error:
        raise ConfigError(f"key `{key}`{_is(value)}: {error}") from None
    if row.weak and has_task:
        return f"{key}: not needed; `task` says it"
    several = made if isinstance(made, Several) else Several({row.ours: made})
    for name, own in several.items():
        _put(ours, name, own, key)
    if len(several) == 1 and made == value:
        return f"{key} → {row.ours}"
    return f"{key}{_is(value)} → " + ", ".join(f"{name}{_is(own)}" for name, own in several.items())


def _put(ours: dict[str, Any], name: str, value: Any, key: str) -> None:
    there = ours.get(name)
    if name == "tracking.trackers" and isinstance(there, list):
        value = [*there, *(tracker for tracker in value if tracker not in there)]
    elif there is not None and value is None:
        value = there
    elif there is not None and there != value:
        raise ConfigError(f"key `{key}`: `{name}` is given twice, {shown(there)} and {shown(value)}; remove one")
    ours[name] = value


def _product(theirs: Mapping[str, Any]) -> int:
    """Rows of a step. One of the two alone says nothing: the other's default is not the same for both programs."""
    product = 1
    for name in BATCH:
        value = theirs.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            found = "is missing" if value is None else f"is {shown(value)}, wanted a whole number"
            raise ConfigError(
                f"key `{name}` {found}: the product of {' and '.join(BATCH)} is our training.samples_per_step; "
                "give both, or that"
            )
        product *= value
    return product


def _is(value: Any) -> str:
    return f" = {shown(value)}"
