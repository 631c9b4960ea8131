"""Which trainings a curve consists of: shares of the training rows, seeds, steps. Each is the config of a plain run.

The subsets of one seed are nested and stratified because they are the beginnings of one stratified order, which
`data.train_rows` takes (`data/splits.py`); `data.split_seed` holds validation and test rows still while the seeds
change. Labels and types are those of all training rows at every share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weitiao.config import RunConfig
from weitiao.data.pack import steps_per_epoch
from weitiao.errors import ConfigError

SHARES = (10.0, 25.0, 50.0, 100.0)
"""Per cent of the training rows."""
LEAST_ROWS = 2
LEAST_STEPS = 100
"""A run on a small share takes at least so many steps, or as many as that on all rows where these are fewer: else its
point would show a model that has hardly begun to learn. Measured on 200 sentences (docs/defaults.md): with 52 steps F1
is 5 points below that with 104, and with 200 no better."""


@dataclass(frozen=True)
class Part:
    """One training."""

    share: float
    rows: int
    steps: int
    lengthened: bool
    """Whether its epochs are more than configured, for `LEAST_STEPS`."""
    config: RunConfig

    @property
    def seed(self) -> int:
        return self.config.run.seed


def parts(config: RunConfig, rows: int, shares: Sequence[float], seeds: int) -> list[Part]:
    """In the order in which they are trained: every share once, the smallest first, then further seeds.

    rows: training rows of the config. seeds: of the smallest share, see `seeds_of`.
    Raises ConfigError for shares that give no curve.
    """
    _check(shares, rows)
    ordered = sorted(shares)
    numbers = seeds_of(ordered, seeds)
    return [
        _part(config, rows, share, config.run.seed + turn)
        for turn in range(seeds)
        for share, number in zip(ordered, numbers, strict=True)
        if turn < number
    ]


def seeds_of(shares: Sequence[float], seeds: int) -> list[int]:
    """Seeds of each share: a small one costs little and varies much, so its number falls with the root of the share."""
    return [max(1, round(seeds * math.sqrt(min(shares) / share))) for share in shares]


def parse_shares(text: str) -> tuple[float, ...]:
    """`10,25,50,100`, or a ConfigError."""
    try:
        return tuple(float(part.strip().removesuffix("%")) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--shares {text!r}: wanted per cent parted by commas, such as 10,25,50,100") from None


def _check(shares: Sequence[float], rows: int) -> None:
    wrong = [share for share in shares if not 0 < share <= 100]
    if wrong:
        raise ConfigError(f"--shares: {wrong[0]:g} is no share; wanted per cent above 0 and up to 100")
    numbers = {share: _rows(share, rows) for share in sorted(shares)}
    few = [share for share, number in numbers.items() if number < LEAST_ROWS]
    if few:
        raise ConfigError(f"--shares: {few[0]:g} % of {rows} training rows are {numbers[few[0]]}; name larger shares")
    if len(set(numbers.values())) < len(shares):
        raise ConfigError(f"--shares: two of them are the same number of {rows} training rows; name each once")
    if len(shares) < 2:
        raise ConfigError(f"--shares: {shares[0]:g} alone is one point, which is no curve; name two shares or more")


def _rows(share: float, rows: int) -> int:
    return max(1, round(share / 100 * rows))


def _part(config: RunConfig, all_rows: int, share: float, seed: int) -> Part:
    rows = _rows(share, all_rows)
    steps, most = _steps(config, rows), _steps(config, all_rows)
    least = min(LEAST_STEPS, most)
    longer = steps < least
    changes: dict[str, dict[str, object]] = {
        "run": {"output_dir": str(curve_folder(config)), "name": f"{share:g}-percent-seed-{seed}", "seed": seed},
        "data": {"train_rows": rows, "split_seed": config.split_seed},
        # A curve needs one adapter of a run, and no second run of the untuned model.
        "training": {"keep_checkpoints": 1},
        "evaluation": {"untuned": False},
    }
    if longer:
        changes["training"]["max_steps"] = least
        changes["evaluation"]["steps"] = _evaluations(config, least)
    return Part(share, rows, max(steps, least), longer, _changed(config, changes))


def curve_folder(config: RunConfig) -> Path:
    return config.folder.with_name(f"{config.run_name}-curve")


def _steps(config: RunConfig, rows: int) -> int:
    """As the loop counts them."""
    section = config.training
    per_epoch = steps_per_epoch(rows, section.samples_per_step)
    return section.max_steps or max(1, round(section.num_train_epochs * per_epoch))


def _evaluations(config: RunConfig, steps: int) -> int:
    """Steps between evaluations of a lengthened run: as many evaluations as there are epochs, not one for each of its
    short ones."""
    return config.evaluation.steps or max(1, steps // max(1, math.ceil(config.training.num_train_epochs)))


def _changed(config: RunConfig, changes: dict[str, dict[str, object]]) -> RunConfig:
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
    return config.model_copy(update=sections)
