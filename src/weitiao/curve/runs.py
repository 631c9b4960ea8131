"""The trainings of a curve, one after the other. Each is an ordinary run folder, so what is finished is kept and what
was interrupted goes on, by `train`'s own rules."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

from weitiao.curve.plan import Part
from weitiao.errors import ConfigError
from weitiao.report.log import read_log
from weitiao.run_folder import RunFolder
from weitiao.tracking.screen import Screen

Train = Callable[..., dict[str, Any]]
Spent = list[tuple[int, float]]
"""(steps, seconds) of runs that are done."""


def carry_out(
    parts: Sequence[Part],
    screen: Screen,
    *,
    minutes: float | None = None,
    overwrite: bool = False,
    train: Train | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Part]:
    """Train what is not finished; the parts that are. minutes: of this call. A part is left out when, by what the
    others took, it would not fit into them; one that was begun is finished. train: by default `training.train.train`.

    Raises ConfigError when fewer than two shares are done.
    """
    end = None if minutes is None else clock() + 60 * minutes
    done: list[Part] = []
    spent: Spent = []
    for number, part in enumerate(parts, 1):
        kept = RunFolder(part.config.folder).finished and not overwrite
        told = f"{number} of {len(parts)}: {part.share:g} % ({part.rows:,} rows), seed {part.seed}, {part.steps} steps"
        if not kept and end is not None and clock() + _estimate(part, spent) > end:
            screen.note(f"left out {told}: it would not fit into --minutes {minutes:g}")
            continue
        screen.note(f"kept {told}" if kept else f"training {told}")
        spent.append((part.steps, _trained(part, screen, kept, overwrite, train, clock)))
        done.append(part)
    if len({part.share for part in done}) < 2:
        raise ConfigError(
            f"--minutes {minutes or 0:g}: two shares or more make a curve, {len(done)} fitted in; give more minutes, "
            "and the finished runs are kept"
        )
    return done


def _trained(
    part: Part, screen: Screen, kept: bool, overwrite: bool, train: Train | None, clock: Callable[[], float]
) -> float:
    """Seconds that the run took; of one that was kept, those of its training."""
    start = clock()
    (train or _train())(part.config, overwrite=overwrite, screen=Screen(silent=True) if kept else screen)
    gc.collect()  # the model of this run makes room for the next
    return (read_log(RunFolder(part.config.folder).log).seconds or 0.0) if kept else clock() - start


def _train() -> Train:
    from weitiao.training.train import train  # it imports much

    return train


def _estimate(part: Part, spent: Spent) -> float:
    """Seconds by the longest run that took no more steps, or by the shortest; nothing before any is known. Its loading
    and measuring are scaled up with its steps, which is too much rather than too little."""
    if not spent:
        return 0.0
    no_longer = [run for run in spent if run[0] <= part.steps]
    steps, seconds = max(no_longer) if no_longer else min(spent)
    return seconds * max(1.0, part.steps / steps)
