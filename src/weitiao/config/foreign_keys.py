"""Keys of LLaMA-Factory and ms-swift in a config become ours; what becomes of each is a line on standard error."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from weitiao.config.sections import RunConfig
from weitiao.errors import ConfigError, shown
from weitiao.other_spellings.table import LEFT_OUT
from weitiao.other_spellings.turning import is_theirs, turned


def turn_foreign(values: dict[str, Any], where: str) -> None:
    """Keys of other programs become ours, in place; what becomes of each is printed."""
    theirs: dict[str, Any] = {}
    for name, value in list(values.items()):
        if is_foreign((name,), value):
            theirs[name] = values.pop(name)
        elif isinstance(value, dict) and name != "task":
            for key in [key for key in value if is_foreign((name, key), value[key])]:
                if key in theirs:
                    raise ConfigError(f"{where}: key `{key}` is given twice; remove one")
                theirs[key] = value.pop(key)
    if not theirs:
        return
    whole = not isinstance(values.get("model"), dict)
    for name, value in turned_here(theirs, values, where).items():
        section, key = name.split(".")
        there = values.get(section, {})
        if isinstance(there, dict) and there.get(key, value) != value:
            if value is None:
                continue
            raise ConfigError(
                f"{where}: key `{name}` is given twice, {shown(there[key])} and {shown(value)} by another program's "
                "key; remove one"
            )
        put(values, name, value)
    if whole:
        _say_what_is_left_out(values)


def is_foreign(names: Sequence[str], value: Any) -> bool:
    """Whether a key is another program's. One of ours never is; `model` with a text is, since ours has keys below."""
    *sections, key = names
    fields = RunConfig.model_fields
    if not sections:
        return is_theirs(key) and (key not in fields or isinstance(value, str))
    section = fields[sections[0]].annotation if sections[0] in fields and len(sections) == 1 else None
    is_section = isinstance(section, type) and issubclass(section, BaseModel)
    return is_section and key not in section.model_fields and is_theirs(key)  # type: ignore[union-attr]


def turned_here(theirs: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        ours, lines = turned(theirs, has_task="task" in values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for line in lines:
        print(line, file=sys.stderr)
    return ours


def put(values: dict[str, Any], name: str, value: Any) -> None:
    section, key = name.split(".")
    place = values.setdefault(section, {})
    if isinstance(place, dict):  # else the check of the whole says what is wrong
        place[key] = value


def _say_what_is_left_out(values: Mapping[str, Any]) -> None:
    """Defaults differ from program to program, and a config that is carried over relies on some."""
    told = []
    for name in LEFT_OUT:
        section, key = name.split(".")
        if key not in (values.get(section) or {}):
            fields: dict[str, Any] = RunConfig.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
            default = fields[key].default
            told.append(f"{name} = {shown(default)}")
    if "task" not in values:
        print("left out there: task; their fine-tuning is `task.name=generation`", file=sys.stderr)
    if told:
        print(f"left out there, so by our defaults: {', '.join(told)}", file=sys.stderr)
