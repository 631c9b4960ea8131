"""Configs as YAML, read and written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel

from weitiao.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text("utf-8"), Loader=_Loader)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save the config as UTF-8") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-30
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())[:120]
        raise ConfigError(f"{path}{line}: is not valid YAML ({problem}); correct it") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: wanted sections such as `task:`, `model:` and `data:`, found {type(values).__name__}"
        )
    return values


def read_value(text: str) -> Any:
    """The value behind `key=`; ValueError where it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def dump_yaml(config: BaseModel) -> str:
    """YAML that `load_config` reads back to an equal config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def yaml_value(value: Any) -> str:
    """A value on one line of YAML, as `load_config` reads it back; small numbers as `1e-4`."""
    if isinstance(value, float) and 0 < value < 0.001:
        return f"{value:e}".replace("e-0", "e-").replace(".000000", "")
    text = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, default_flow_style=True, width=1 << 30)
    return text.removesuffix("\n").removesuffix("\n...")


_NUMBER = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_BOOLEAN = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two of its surprises mended: `1e-4` is a number, and only `true` and `false` are booleans."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would read as a number, and U+0085, which YAML takes for a line break."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("tTfF"))
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None),
)
