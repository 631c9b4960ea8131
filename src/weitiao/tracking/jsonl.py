"""`log.jsonl`: every figure of a run, one JSON object a line, flushed at once. The source of truth for reports."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any


class JsonlLog:
    """Appends lines; opened again after an interruption, it goes on where the run goes on."""

    def __init__(self, path: Path, from_step: int = 0) -> None:
        """from_step: lines of later steps are dropped, for they will be written again."""
        if path.is_file():
            kept = [line for line in path.read_text("utf-8").splitlines() if _step_of(line) <= from_step]
            path.write_text("".join(line + "\n" for line in kept), "utf-8")
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, **values: Any) -> dict[str, Any]:
        """The line that was written."""
        line = {"step": step, "time": round(time.time(), 3), **{k: _plain(v) for k, v in values.items()}}
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        return line

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line that was cut off


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
