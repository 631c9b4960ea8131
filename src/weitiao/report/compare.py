"""Runs beside each other: the same rows answered twice, and what differs in config, machine and time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weitiao.errors import ConfigError, DataError
from weitiao.metrics.intervals import paired_difference
from weitiao.report.mistakes import values_of_rows
from weitiao.report.run import Answered, Run
from weitiao.report.significance import mcnemar, randomization

OWN_PLACE = ("run.name", "run.output_dir")
"""Keys that say where a run lies, not what it does."""


@dataclass(frozen=True)
class Pair:
    """Another run against the first, on the rows that both answered."""

    first: Run
    other: Run
    rows: Sequence[tuple[Answered, Answered]]
    """(first's, other's)."""
    unmatched: tuple[int, int]
    """Rows that only the first, and only the other answered."""
    values: tuple[float, float]
    """The headline metric of both on the common rows."""
    difference: float
    """other − first."""
    low: float
    high: float
    """Its 95 % interval, by the paired bootstrap."""
    p: float
    test: str
    """`mcnemar` or `randomization`, see `significance.py`."""
    gains: Sequence[float]
    """Of each row: 1 where only the other has it right, −1 where only the first has; of free text the difference of
    the headline metric, where a row has one."""

    @property
    def gained(self) -> list[tuple[Answered, Answered]]:
        """Rows that the other has right and the first wrong; of free text those where it is better, most so first."""
        ordered = sorted(zip(self.rows, self.gains, strict=True), key=lambda row: -row[1])
        return [pair for pair, gain in ordered if gain > 0]

    @property
    def lost(self) -> list[tuple[Answered, Answered]]:
        """Rows that the first has right and the other wrong; of free text those where it is better, most so first."""
        ordered = sorted(zip(self.rows, self.gains, strict=True), key=lambda row: row[1])
        return [pair for pair, gain in ordered if gain < 0]


def compare(first: Run, other: Run) -> Pair:
    """Raises ConfigError when a run is not finished or the tasks differ, DataError when no row is in both."""
    for run in (first, other):
        if not run.rows:
            raise ConfigError(
                f"{run.path}: has no measured rows (metrics.json and predictions.jsonl), so there is nothing to compare"
            )
    if (first.task.name, first.headline) != (other.task.name, other.headline):
        raise ConfigError(
            f"{other.path} is a run of {other.task.name} judged by {other.headline}, but {first.path} one of "
            f"{first.task.name} judged by {first.headline}; compare runs of one task"
        )
    rows = matched(first.rows, other.rows)
    if not rows:
        raise DataError(
            f"{first.path} and {other.path} answered no common row; compare runs that were measured on the same rows"
        )
    return _measured(first, other, rows)


def _measured(first: Run, other: Run, rows: Sequence[tuple[Answered, Answered]]) -> Pair:
    examples = [a.example for a, _ in rows]
    before, statistic = first.task.counts([a.answer for a, _ in rows], examples)
    after, _ = first.task.counts([b.answer for _, b in rows], examples)
    seed, resamples = first.config.run.seed, max(first.config.evaluation.bootstrap, 1000)
    interval = paired_difference(after, before, statistic, resamples=resamples, seed=seed)
    if first.headline == "accuracy":
        only = [sum(a.right > b.right for a, b in rows), sum(b.right > a.right for a, b in rows)]
        test, p = "mcnemar", mcnemar(*only)
    else:
        test, p = "randomization", randomization(before, after, statistic, seed=seed)
    values = float(statistic(before.sum(axis=0))), float(statistic(after.sum(axis=0)))
    unmatched = len(first.rows) - len(rows), len(other.rows) - len(rows)
    gains: list[float] = [b.right - a.right for a, b in rows]
    if not first.task.has_labels:
        of_first, of_other = values_of_rows(before), values_of_rows(after)
        if of_first is not None and of_other is not None:
            gains = [b - a for a, b in zip(of_first, of_other, strict=True)]
    return Pair(first, other, rows, unmatched, values, *interval, p, test, gains)


def matched(first: Sequence[Answered], other: Sequence[Answered]) -> list[tuple[Answered, Answered]]:
    """Rows of both that have the same fields and the same reference, in the first's order. A row that stands several
    times in both is matched as often as it stands in the one that has it less often."""
    waiting: dict[str, list[Answered]] = defaultdict(list)
    for row in reversed(other):
        waiting[_key(row)].append(row)
    return [(row, waiting[_key(row)].pop()) for row in first if waiting[_key(row)]]


def _key(row: Answered) -> str:
    return json.dumps(row.example.row.fields, sort_keys=True, ensure_ascii=False)


def config_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Key → its value in each run, for the keys that are not the same in all."""
    flat = [dict(_flat(run.config.model_dump(mode="json"))) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    table = {key: [values.get(key) for values in flat] for key in keys if key not in OWN_PLACE}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{above}.{name}" if above else name
        if isinstance(value, Mapping) and value:
            yield from _flat(value, key)
        else:
            yield key, value
