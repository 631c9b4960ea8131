"""Results by what they depend on: the files' content, the config, the tokenizer, and this program."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from weitiao import __version__
from weitiao.config import RunConfig
from weitiao.hub.cache import cache_root
from weitiao.model.base import Base
from weitiao.run_folder import write_json


def key(config: RunConfig, files: Mapping[str, str], base: Base) -> str:
    """Names a result. What only a training reads of a config is left out of it."""
    read = {
        "config": config.model_dump(mode="json", include={"task", "data", "model"}),
        "seed": config.run.seed,
        "files": dict(files),
        "tokenizer": base.tokenizer.hash,
        "template": base.chat.hash,
        "program": [__version__, _program()],
    }
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:32]


def read(config: RunConfig, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads(_path(config, name).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(config: RunConfig, name: str, result: Mapping[str, Any]) -> None:
    """A cache that cannot be written costs time, no more."""
    path = _path(config, name)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)


def _path(config: RunConfig, name: str) -> Path:
    return cache_root(config.model.cache_dir) / "check" / f"{name}.json"


@functools.cache
def _program() -> str:
    """Hash of the checks themselves, which change between versions."""
    whole = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()
