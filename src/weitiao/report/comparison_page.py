"""`comparison.html`: runs beside each other, each held against the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weitiao import __version__
from weitiao.report.compare import Pair, compare, config_differences
from weitiao.report.html import render
from weitiao.report.mistakes import sure
from weitiao.report.page import metric_columns
from weitiao.report.run import Answered, Run, read_run
from weitiao.report.thumbnails import Thumbnails
from weitiao.report.verdict import split_name
from weitiao.report.words import Words
from weitiao.run_folder import write_text

MOST_ROWS = 12
"""Rows shown of those that one run has right and the other wrong."""
MOST_METRICS = 6
"""Beside time, memory and machine; each run's own report has all."""
LEVEL = 0.05


def write_comparison(
    folders: Sequence[str | Path], output: Path, *, language: str | None = None
) -> tuple[list[Run], list[Pair]]:
    """Write the page to `output`; the runs, and each but the first held against the first.

    Raises ConfigError or DataError, in one line, when runs are unfinished or have no task or no row in common.
    """
    runs = [read_run(folder) for folder in folders]
    pairs = [compare(runs[0], run) for run in runs[1:]]
    write_text(output, page(runs, pairs, language))
    return runs, pairs


def page(runs: Sequence[Run], pairs: Sequence[Pair], language: str | None = None) -> str:
    w = Words(language or runs[0].language)
    return render(
        "comparison.html.j2",
        w,
        version=__version__,
        title=" · ".join(names(runs)),
        kind=w["comparison"],
        runs=list(zip(names(runs), runs, [None, *pairs], strict=True)),
        columns=metric_columns(runs[0])[:MOST_METRICS],
        differences=config_differences(runs),
        sections=[_section(pair, name, names(runs)[0], w) for name, pair in zip(names(runs)[1:], pairs, strict=True)],
        entities=runs[0].task.name == "ner",
        free=not runs[0].task.has_labels,
        thumbnails=Thumbnails(runs[0].image_root),
        headline=runs[0].headline,
    )


def names(runs: Sequence[Run]) -> list[str]:
    """Names of the runs' folders, with the folder above where two are alike."""
    short = [run.name for run in runs]
    full = [f"{run.path.resolve().parent.name}/{run.name}" for run in runs]
    return [name if short.count(name) == 1 else longer for name, longer in zip(short, full, strict=True)]


def verdict(pair: Pair) -> str:
    """`surely_better`, `surely_worse` or `perhaps_equal`: of the other run. Sure: the interval leaves out 0, and p is
    below 0.05."""
    if pair.p >= LEVEL or pair.low <= 0 <= pair.high:
        return "perhaps_equal"
    return "surely_better" if pair.difference > 0 else "surely_worse"


def _section(pair: Pair, other: str, first: str, w: Words) -> dict[str, Any]:
    both = sum(a.right and b.right for a, b in pair.rows)
    gained, lost = pair.gained, pair.lost
    free = not pair.first.task.has_labels
    show = _first if free else _surest
    names = ("gained_texts", "lost_texts") if free else ("gained", "lost")
    return {
        "pair": pair,
        "other": other,
        "first": first,
        "verdict": verdict(pair),
        "both_right": both,
        "both_wrong": len(pair.rows) - both - len(gained) - len(lost),
        "split": split_name((pair.other.metrics or {}).get("split", ""), w),
        "lists": [(names[0], len(gained), show(gained, 1)), (names[1], len(lost), show(lost, 0))],
    }


def _first(rows: Sequence[tuple[Answered, Answered]], which: int) -> list[tuple[Answered, Answered]]:
    """Those that differ most."""
    return list(rows[:MOST_ROWS])


def _surest(rows: Sequence[tuple[Answered, Answered]], which: int) -> list[tuple[Answered, Answered]]:
    """Those first that the run which has them right is surest of."""
    return sorted(rows, key=lambda pair: sure(pair[which]), reverse=True)[:MOST_ROWS]
