"""`log.jsonl` read back: what a run said of itself, in the order of its steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Log:
    machine: Line = field(default_factory=dict)
    """Of the last start, see `tracking/machine.py`; empty when the log does not say."""
    data: Mapping[str, Line] = field(default_factory=dict)
    """Split → its `data/summary.py`; empty when the log does not say."""
    sessions: int = 0
    """How many times the run was started."""
    training: Sequence[Line] = ()
    """Lines with a loss."""
    evaluations: Sequence[Line] = ()
    """Lines with `evaluation` and `best`."""
    seconds: float | None = None
    """Training time of all sessions; validation while training included."""
    peak: Line = field(default_factory=dict)
    """`peak_gib`, `peak_gpu_gib`; empty before the run is finished."""

    @property
    def last_step(self) -> int:
        return max((int(line["step"]) for line in (*self.training, *self.evaluations)), default=0)


def read_log(path: Path) -> Log:
    """The log of a run; an empty one when there is no file. A line that was cut off is left out."""
    lines = _lines(path)
    starts = [line for line in lines if "started" in line]
    return Log(
        machine=_last(starts, "started"),
        data=_last(starts, "data"),
        sessions=len(starts),
        training=[line for line in lines if isinstance(line.get("loss"), int | float)],
        evaluations=[line for line in lines if isinstance(line.get("evaluation"), dict) and line["evaluation"]],
        seconds=_seconds(lines),
        peak=_last(lines, "finished"),
    )


def _lines(path: Path) -> list[Line]:
    if not path.is_file():
        return []
    found: list[Line] = []
    for raw in path.read_bytes().splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.append(line)
    return found


def _last(lines: Sequence[Line], key: str) -> Line:
    return next((line[key] for line in reversed(lines) if isinstance(line.get(key), dict)), {})


def _seconds(lines: Sequence[Line]) -> float | None:
    """A session that came to its end says its seconds; of an interrupted one, the times of its lines tell."""
    sessions: list[list[Line]] = [[]]
    for line in lines:
        if "started" in line and sessions[-1]:
            sessions.append([])
        sessions[-1].append(line)
    spent = [_seconds_of_session(session) for session in sessions if session]
    known = [seconds for seconds in spent if seconds is not None]
    return sum(known) if known else None


def _seconds_of_session(lines: Sequence[Line]) -> float | None:
    told = next((line["training_seconds"] for line in lines if "training_seconds" in line), None)
    if told is not None:
        return float(told)
    times = [float(line["time"]) for line in lines if isinstance(line.get("time"), int | float)]
    return times[-1] - times[0] if len(times) > 1 else None
