"""What is known once the runs are done: the content of `curve.json`.

    {"schema_version": 1, "task": "ner", "headline": "f1", "split": "test", "test_rows": 400, "train_rows": 2000,
     "share": 100.0,
     "points": [{"share": 10.0, "rows": 200, "steps": 50, "lengthened": true, "seeds": [42, 43, 44], "score": 0.61,
                 "low": 0.56, "high": 0.66, "deviation_test": 0.02, "deviation_seeds": 0.02,
                 "systems": {"dictionary": 0.4}}],
     "fit": {"a": 0.1, "b": 2.0, "c": 0.4, "d": 0.0}, "rises": true,
     "predictions": [{"times": 2, "rows": 4000, "score": 0.8, "low": 0.76, "high": 0.83, "gain": 0.03, …}],
     "line": [{"rows": 200, "score": 0.61, "low": …, "high": …}]}

Intervals are 90 %. A point's score is the mean of its seeds; its interval is normal, with the variances of test rows
and of seeds added.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from weitiao.config import SCHEMA_VERSION
from weitiao.curve.fit import TAILS, Numbers, Points, Z, best, errors_at, falls, interval
from weitiao.curve.plan import Part
from weitiao.curve.points import Measured, points
from weitiao.errors import CheckpointError
from weitiao.report.run import Run, read_run

TIMES = (2, 4)
"""How many times the rows of the last point are asked about."""
TOPS = {"cider": 10.0}
"""The best value of metrics for which it is not 1."""
PLACES = 40
"""At which the drawn line has values."""


def result(done: Sequence[Part]) -> dict[str, Any]:
    """Of finished parts. Raises CheckpointError when they were not measured on the same rows."""
    by_share = [list(group) for _, group in groupby(sorted(done, key=lambda p: (p.share, p.seed)), lambda p: p.share)]
    runs = [[read_run(part.config.folder) for part in group] for group in by_share]
    first = runs[0][0]
    _refuse_other_rows([run for group in runs for run in group])
    counts = [[_counts(run) for run in group] for group in runs]
    measured = [Measured(g[0].rows, [c for c, _ in found]) for g, found in zip(by_share, counts, strict=True)]
    top, seed = TOPS.get(first.headline, 1.0), first.config.split_seed
    known = points(measured, counts[0][0][1], top, seed)
    line, share = best(known), by_share[-1][0].share
    return {
        "schema_version": SCHEMA_VERSION,
        "task": first.task.name,
        "headline": first.headline,
        "split": (first.metrics or {})["split"],
        "test_rows": len(first.rows),
        "train_rows": by_share[-1][0].rows,
        "share": share,
        "points": [_point(*one, known, at, top) for at, one in enumerate(zip(by_share, runs, strict=True))],
        "fit": {"a": line.a, "b": line.b, "c": line.c, "d": line.d},
        "rises": falls(known),
        "predictions": _predictions(known, top, seed),
        "line": _line(known, top, seed),
    }


def _counts(run: Run) -> Any:
    return run.task.counts([row.answer for row in run.rows], [row.example for row in run.rows])


def _refuse_other_rows(runs: Sequence[Run]) -> None:
    wanted = [row.example.row.fields for row in runs[0].rows]
    for run in runs:
        if not run.rows or [row.example.row.fields for row in run.rows] != wanted:
            raise CheckpointError(
                f"{run.path}: was not measured on the rows of {runs[0].path}; remove the folder and go on"
            )


def _point(parts: Sequence[Part], runs: Sequence[Run], known: Points, at: int, top: float) -> dict[str, Any]:
    test, seeds = float(np.sqrt(known.test[at, at])), float(np.sqrt(known.seeds[at]))
    score, reach = top - float(known.errors[at]), Z * float(np.hypot(test, seeds))
    others = [name for name in runs[0].systems if name != "finetuned"]
    return {
        "share": parts[0].share,
        "rows": parts[0].rows,
        "steps": parts[0].steps,
        "lengthened": parts[0].lengthened,
        "seeds": [part.seed for part in parts],
        "score": score,
        "low": max(0.0, score - reach),
        "high": min(top, score + reach),
        "deviation_test": test,
        "deviation_seeds": seeds,
        "systems": {name: float(np.mean([r.systems[name][r.headline] for r in runs])) for name in others},
    }


def _predictions(known: Points, top: float, seed: int) -> list[dict[str, Any]]:
    last = known.rows[-1]
    drawn = errors_at(known, [last * k for k in (1, *TIMES)], seed)
    found = []
    for times, column, scores in zip(TIMES, drawn.T[1:], _scores(drawn, known, top)[1:], strict=True):
        gains = np.quantile(drawn[:, 0] - column, (0.5, *TAILS))
        gain = dict(zip(("gain", "gain_low", "gain_high"), map(float, gains), strict=True))
        found.append({"times": times, "rows": round(last * times), **scores, **gain})
    return found


def _line(known: Points, top: float, seed: int) -> list[dict[str, Any]]:
    rows = np.geomspace(known.rows[0], known.rows[-1] * TIMES[-1], PLACES)
    scores = _scores(errors_at(known, list(rows), seed), known, top)
    return [{"rows": float(n), **told} for n, told in zip(rows, scores, strict=True)]


def _scores(drawn: Numbers, known: Points, top: float) -> list[dict[str, float]]:
    found = np.clip(top - np.array(interval(drawn, known)), 0.0, top)
    return [{"score": float(middle), "low": float(low), "high": float(high)} for middle, high, low in found.T]
