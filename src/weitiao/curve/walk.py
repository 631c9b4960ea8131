"""`weitiao curve`: train at several shares of the rows, draw the curve, say what more rows would bring.

output/<run.name>-curve/10-percent-seed-42/    a run folder, as `weitiao train` leaves one
                        …
                        curve.json             what was found, see `result.py`
                        curve.html             the same as a page
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.config import RunConfig, load_config
from weitiao.curve.plan import LEAST_STEPS, SHARES, Part, curve_folder, parts
from weitiao.curve.result import result
from weitiao.curve.runs import carry_out
from weitiao.data.splits import load, read_as
from weitiao.errors import ConfigError
from weitiao.report.curve_page import conclusion, page
from weitiao.report.words import Words
from weitiao.run_folder import write_json, write_text
from weitiao.tasks.base import task_options
from weitiao.tracking.screen import Screen

SEEDS = 3
"""Of the smallest share, where neither seeds nor minutes are given."""
MOST_SEEDS = 9
"""Of the smallest share, where minutes are given alone."""

FEW_ROWS = 20
"""From fewer, 90 % intervals held in some three of four cases (docs/curve.md)."""


def curve(
    config: RunConfig | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    *,
    shares: Sequence[float] = SHARES,
    seeds: int | None = None,
    minutes: float | None = None,
    overwrite: bool = False,
    screen: Screen | None = None,
) -> dict[str, Any]:
    """The content of `curve.json`, see `result.py`, with its `conclusion` as a sentence. The same call goes on with one
    that was interrupted.

    shares: per cent of the training rows. seeds: of the smallest share; larger ones get fewer.
    minutes: no run is begun that would not end within them.
    """
    config = config if isinstance(config, RunConfig) else load_config(config, overrides)
    screen = screen or Screen()
    task, splits = load(config.data, task_options(config.task), config.run.seed)
    if not splits.test and not splits.validation:
        raise ConfigError("a curve needs rows to measure; set data.test to a file or to a share such as 0.1")
    for note in (*read_as(config.data), *splits.notes, *splits.repeats):
        screen.once(note)
    planned = parts(config, len(splits.train), shares, seeds or (SEEDS if minutes is None else MOST_SEEDS))
    for note in filter(None, (_lengthened(planned), _few(planned))):
        screen.note(note)
    done = carry_out(planned, screen, minutes=minutes, overwrite=overwrite)
    found = result(done)
    found["conclusion"] = conclusion(found, Words("en"))
    folder = curve_folder(config)
    write_json(folder / "curve.json", found)
    write_text(folder / "curve.html", page(found, config.run_name, task.options.language or "en"))
    screen.note(f"curve in {folder / 'curve.html'}")
    return found


def _few(planned: Sequence[Part]) -> str:
    least = min(part.rows for part in planned)
    told = f"the smallest share is {least} rows, from which a model may still guess; larger --shares tell more"
    return told if least < FEW_ROWS else ""


def _lengthened(planned: Sequence[Part]) -> str:
    longer = sorted({part.share for part in planned if part.lengthened})
    if not longer:
        return ""
    steps = next(part.steps for part in planned if part.lengthened)
    told = ", ".join(f"{share:g} %" for share in longer)
    why = f"the least that a run takes ({LEAST_STEPS}, or as many as all rows take)"
    return f"{told}: more epochs than configured, for {steps} steps, {why}"
