"""What the head of a report says: the result in plain sentences, and what to mind when reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from weitiao.report.run import Run
from weitiao.report.words import Words, interval, number, percent

FEW = 100
"""Measured rows below which a result is called uncertain: a 95 % interval is then about 0.2 wide at 0.5."""


def best_baseline(run: Run) -> str | None:
    """The baseline with the highest headline metric; the untuned model is none."""
    names = [name for name in run.systems if name not in ("finetuned", "untuned")]
    return max(names, key=lambda name: run.systems[name][run.headline], default=None)


def relation(own: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> str:
    """`better`, `worse` or `overlap`: where the interval of `own` lies beside that of `other`."""
    if own.get(f"{metric}_low", own[metric]) > other.get(f"{metric}_high", other[metric]):
        return "better"
    if own.get(f"{metric}_high", own[metric]) < other.get(f"{metric}_low", other[metric]):
        return "worse"
    return "overlap"


def sentences(run: Run, w: Words) -> list[str]:
    """The result, held against the best baseline and the untuned model."""
    if run.metrics is None:
        return [w.say("unfinished", step=run.log.last_step, steps=run.steps or "?")]
    if not run.own:
        return [w["nothing_measured"]]
    name = run.headline
    told = [
        w.say(
            "verdict",
            metric=w.metric(name),
            value=number(run.own[name]),
            interval=interval(run.own, name),
            rows=number(run.metrics["rows"]),
            split=split_name(run.metrics["split"], w),
        )
    ]
    baseline = best_baseline(run)
    if baseline is not None:
        told.append(_against(run, w, baseline, w.say("the_best_baseline", system=w.system(baseline))))
    if "untuned" in run.systems:
        told.append(_against(run, w, "untuned", w["the_untuned"]))
    return told


def _against(run: Run, w: Words, system: str, what: str) -> str:
    name, figures = run.headline, run.systems[system]
    how = relation(run.own, figures, name)
    return w.say(f"verdict_{how}", what=what, value=number(figures[name]), interval=interval(figures, name))


def warnings(run: Run, w: Words) -> list[str]:
    return list(_warnings(run, w)) if run.metrics and run.own else list(_of_data(run, w))


def _warnings(run: Run, w: Words) -> Iterator[str]:
    assert run.metrics is not None
    rows, ceiling = run.metrics["rows"], run.metrics.get("ceiling")
    kind = "" if run.task.has_labels else "_texts"
    baseline = best_baseline(run)
    if run.metrics["split"] == "validation":
        yield w[f"warn_validation{kind}"]
    if rows < FEW:
        yield w.say("warn_few", rows=rows)
    for system in filter(None, (baseline, "untuned" if "untuned" in run.systems else None)):
        how = relation(run.own, run.systems[system], run.headline)
        if how != "better":
            yield w.say(f"warn_{how}", system=w.system(system))
    if baseline is None:
        yield w["warn_no_baseline"]
    if ceiling is not None and ceiling < 1:
        yield w.say(f"warn_ceiling{kind}", ceiling=number(ceiling))
    if run.own.get("invalid"):
        yield w.say(f"warn_invalid{kind}", share=percent(run.own["invalid"]))
    yield from _of_data(run, w)


def _of_data(run: Run, w: Words) -> Iterator[str]:
    shares = [
        w.say("share_of_split", share=percent(split["shortened"] / split["rows"]), split=split_name(name, w))
        for name, split in reversed(list(run.log.data.items()))
        if split.get("shortened") and (name == "train" or not run.task.in_windows)
    ]
    if shares:
        yield w.say("warn_shortened", length=run.config.data.max_length, shares="; ".join(shares))


def split_name(name: str, w: Words) -> str:
    """The word for a split; a file that was measured in its place keeps its name."""
    return w[f"split_{name}"] if name in ("train", "validation", "test") else name
