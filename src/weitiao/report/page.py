"""`report.html`: one run on one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao import __version__
from weitiao.config import dump_yaml
from weitiao.report import certainty, figures
from weitiao.report.html import render
from weitiao.report.mistakes import (
    MOST_BEST,
    MOST_WORST,
    by_value,
    confusions,
    entity_mistakes,
    is_entities,
    least_sure_right,
    surest_wrong,
)
from weitiao.report.run import Run, read_run
from weitiao.report.thumbnails import Thumbnails
from weitiao.report.verdict import best_baseline, sentences, split_name, warnings
from weitiao.report.words import Words
from weitiao.run_folder import RunFolder, Thresholds, write_text
from weitiao.tasks.base import BOUNDS

DETAILS = ("per_class", "per_type")
SPLITS = ("train", "validation", "test")
MOST_CLASSES = 200
"""Labels or types whose figures are shown, the most frequent first."""
FIRST_METRICS = (
    *("precision", "recall", "macro_f1", "micro_f1_at_half", "exact_match", "hamming", "text_f1", "boundary_f1"),
    *("invalid", "ece", "nll"),
)


def write_report(run: str | Path, *, output: Path | None = None, language: str | None = None) -> Path:
    """Write the report of a run folder; where it is. Reads the run folder alone.

    output: by default `report.html` in the folder. language: `en` or `zh`; by default the task's.
    Raises CheckpointError or ConfigError, in one line, when the folder holds no run or a damaged one.
    """
    read = read_run(run)
    path = output or RunFolder(run).report
    write_text(path, page(read, language))
    return path


def page(run: Run, language: str | None = None) -> str:
    w = Words(language or run.language)
    return render(
        "report.html.j2",
        w,
        run=run,
        version=__version__,
        title=run.name,
        kind=w["report"],
        head=_head(run, w),
        systems=sorted(run.systems.items(), key=lambda item: -item[1][run.headline]),
        columns=metric_columns(run),
        errors=_errors(run) if run.task.has_labels else None,
        answers=None if run.task.has_labels else _answers(run),
        thumbnails=Thumbnails(run.image_root),
        classes=_classes(run),
        certainty=_certainty(run, w),
        training=_training(run, w),
        data=_data(run, w),
        config=dump_yaml(run.config),
        pictures={"forest": figures.forest(run, w)},
    )


def metric_columns(run: Run) -> list[str]:
    """The headline and those other metrics that the fine-tuned model has, in the order that is read first."""
    known = FIRST_METRICS if run.task.has_labels else [name for name in run.own if _is_metric(run.own, name)]
    return [run.headline, *[name for name in known if name in run.own and name != run.headline]]


def _is_metric(figures: Mapping[str, Any], name: str) -> bool:
    return isinstance(figures[name], float) and not name.endswith(BOUNDS)


def _head(run: Run, w: Words) -> dict[str, Any]:
    return {
        "sentences": sentences(run, w),
        "warnings": warnings(run, w),
        "baseline": best_baseline(run),
        "split": split_name(run.metrics["split"], w) if run.metrics else "",
        "train_rows": run.facts.get("rows", {}).get("train"),
    }


def _errors(run: Run) -> dict[str, Any]:
    entities = bool(run.rows) and is_entities(run.rows[0].example.answer) and run.task.name == "ner"
    return {
        "wrong": sum(not row.right for row in run.rows),
        "surest": surest_wrong(run.rows),
        "unsure": least_sure_right(run.rows),
        "with_probability": any(row.probability is not None for row in run.rows),
        "entities": entities,
        "kinds": entity_mistakes(run.rows) if entities else [],
    }


def _answers(run: Run) -> dict[str, Any] | None:
    """Free texts: the worst and the best, with the metric of each alone, or the first where it has none."""
    if not run.rows:
        return None
    rows = by_value(run)
    asked = {row.example.text for row in run.rows}
    ordered = rows[0][1] is not None
    best = min(MOST_BEST, len(rows) // 2) if ordered else 0
    return {
        "ordered": ordered,
        "first": rows[: min(MOST_WORST, len(rows) - best)],
        "best": rows[len(rows) - best :][::-1],
        "asked": asked.pop() if len(asked) == 1 else None,
    }


def _classes(run: Run) -> dict[str, Any] | None:
    key = next((key for key in DETAILS if key in run.own), None)
    if key is None:
        return None
    rows = sorted(run.own[key].items(), key=lambda item: -item[1]["support"])
    single = key == "per_class" and all(isinstance(row.example.answer, str) for row in run.rows)
    return {
        "title": "types" if key == "per_type" else "classes",
        "rows": rows[:MOST_CLASSES],
        "all": len(rows),
        "thresholds": _thresholds(run, [name for name, _ in rows]),
        "confusion": _confusion(run.own),
        "confusions": confusions(run.rows) if single and len(rows) > 2 else [],
    }


def _thresholds(run: Run, names: Sequence[str]) -> dict[str, float]:
    """From which probability on each label is given, where that was fitted."""
    if run.told is None or run.told.thresholds == Thresholds():
        return {}
    return {name: run.told.thresholds.of(name) for name in names}


def _confusion(own: Mapping[str, Any]) -> dict[str, Any] | None:
    """Labels that occur, and their counts with a last column for invalid answers where there are any."""
    if "confusion" not in own:
        return None
    names, counts = own["confusion"]["labels"], own["confusion"]["counts"]
    support = {name: own["per_class"][name]["support"] for name in names}
    kept = [i for i, name in enumerate(names) if support[name] or any(row[i] for row in counts)]
    rows = []
    for i in kept:
        cells, whole = [counts[i][j] for j in kept], support[names[i]]
        rows.append({"name": names[i], "cells": cells, "invalid": whole - sum(cells), "all": whole})
    return {"labels": [names[i] for i in kept], "rows": rows, "invalid": any(row["invalid"] for row in rows)}


def _certainty(run: Run, w: Words) -> dict[str, Any] | None:
    pairs = certainty.calibrated(run) if run.task.has_labels else []
    if not pairs:
        return None
    after, raw = certainty.bins(pairs), certainty.uncalibrated(run)
    before = certainty.bins(raw) if raw and run.temperature != 1 else None
    return {
        "bins": after,
        "before": before,
        "points": certainty.at_thresholds(pairs, len(run.rows)),
        "reliability": figures.reliability(after, before, run.temperature, w),
        "coverage": figures.coverage(certainty.coverage(pairs, len(run.rows)), w),
    }


def _training(run: Run, w: Words) -> dict[str, Any]:
    """Pictures with their titles, and the median speed."""
    chosen = next(iter(run.log.evaluations[-1]["evaluation"]), "") if run.log.evaluations else ""
    pictures = [
        (w["loss_figure"], figures.loss(run, w)),
        (w.say("validation_figure", metric=w.metric(chosen)), figures.validation(run, w)),
        (w["learning_rate"], figures.learning_rate(run, w)),
    ]
    return {
        "pictures": [(title, picture) for title, picture in pictures if picture],
        "speed": {name: _median(run, f"{name}_per_second") for name in ("samples", "tokens")},
    }


def _median(run: Run, key: str) -> float | None:
    values = sorted(line[key] for line in run.log.training if line.get(key) is not None)
    return values[len(values) // 2] if values else None


def _data(run: Run, w: Words) -> dict[str, Any]:
    splits = {name: run.log.data[name] for name in SPLITS if name in run.log.data}
    names = dict.fromkeys(name for split in splits.values() for name in split.get("names", {}))
    return {"splits": splits, "names": list(names), "lengths": figures.lengths(run, w)}
