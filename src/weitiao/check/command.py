"""`weitiao check CONFIG`: the result on a terminal, as JSON, and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from weitiao.check.page import page
from weitiao.check.priced import priced
from weitiao.check.screen import show
from weitiao.check.walk import check
from weitiao.config import load_config, resolve_config
from weitiao.cost.machine import named
from weitiao.errors import ConfigError
from weitiao.run_folder import write_text
from weitiao.shell import typed

NAME = "check.html"


def run(
    config: str,
    overrides: Sequence[str],
    as_json: bool,
    output: Path | None,
    gpu: str | None = None,
    price: float | None = None,
) -> bool:
    """Whether nothing was found that training refuses. The page is written in any case."""
    path = output or _beside(config)
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{path}: {'is a folder' if path.is_dir() else 'its folder does not exist'}; name a file")
    if gpu is not None:
        named(gpu)  # a wrong name is told before rows are read
    settings = load_config(config, overrides)
    result = priced(check(settings), settings, gpu, price)
    try:
        write_text(path, page(result, config))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); name another file with -o") from None
    fine = not any(finding["level"] == "error" for finding in result["findings"])
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return fine
    show(result)
    print(f"page in {path}")
    if fine:
        print(f"next:\n  {typed('weitiao', 'train', config, *overrides)}")
    return fine


def _beside(config: str) -> Path:
    """Beside the config; here, for one that ships with the package."""
    return Path(config).with_name(NAME) if Path(config).is_file() else resolve_config(config) and Path(NAME)
