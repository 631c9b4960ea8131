"""A YAML file, or the name of one in `weitiao/configs/`, and `section.key=value` from the command line → RunConfig."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.config.explanation import nearest, validated
from weitiao.config.foreign_keys import is_foreign, put, turn_foreign, turned_here
from weitiao.config.sections import RunConfig
from weitiao.config.yaml_text import read_value, read_yaml
from weitiao.errors import ConfigError

SHIPPED = Path(__file__).parents[1] / "configs"


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config and check it.

    source: path of a YAML file, the name of a shipped config, or a mapping.
    overrides: `section.key=value`; the value is read as YAML, so `null`, `true`, `1e-4` and `[a, b]` work.
    Keys of LLaMA-Factory and ms-swift are understood in both; what becomes of each is a line on standard error.
    Raises ConfigError with one line for the first thing that is wrong.
    """
    if isinstance(source, Mapping):
        values: dict[str, Any] = json.loads(json.dumps(source))
        where = "config"
    else:
        path = resolve_config(source)
        values, where = read_yaml(path), str(source)
    turn_foreign(values, where)
    _override(values, overrides, where)
    return validated(RunConfig, values, where)


def resolve_config(source: str | Path) -> Path:
    """Path of a config file, or of a shipped config of that name."""
    path = Path(source)
    if path.is_file():
        return path
    names = sorted(p.stem for p in SHIPPED.glob("*.yaml"))
    if str(source) in names:
        return SHIPPED / f"{source}.yaml"
    hint = nearest(str(source), names)
    raise ConfigError(
        f"no config {str(source)!r}: not a file, nor one of the shipped configs"
        + (f"; did you mean {hint!r}?" if hint else f" ({', '.join(names)})")
    )


def _override(values: dict[str, Any], overrides: Sequence[str], where: str) -> None:
    theirs: dict[str, Any] = {}
    for override in overrides:
        names, value = _read_override(override)
        if is_foreign(names, value):
            theirs[names[-1]] = value
        else:
            _apply(values, names, value, override)
    for name, value in turned_here(theirs, values, where).items():
        put(values, name, value)


def _read_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r}: wanted key=value, such as training.learning_rate=1e-4")
    try:
        return key.strip().split("."), read_value(text)
    except ValueError:
        raise ConfigError(f"{override!r}: the value is not valid YAML; quote it") from None


def _apply(values: dict[str, Any], names: Sequence[str], value: Any, override: str) -> None:
    *sections, last = names
    place = values
    for name in sections:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{override!r}: `{name}` is not a section")
        place = inner
    place[last] = value
