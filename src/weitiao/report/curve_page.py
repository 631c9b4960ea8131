"""`curve.html`: a learning curve on one page, from the content of `curve.json` alone (`curve/result.py` shows it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from weitiao import __version__
from weitiao.report.html import render
from weitiao.report.svg import COLOURS, svg
from weitiao.report.words import Words, interval, number

Found = Mapping[str, Any]
FAINT, BLUE, ORANGE, GREEN = (COLOURS[name] for name in ("faint", "blue", "orange", "green"))
OTHERS = ((ORANGE, "s"), (GREEN, "^"), (FAINT, "v"))
"""Colour and marker of the baselines, in their order."""


def page(found: Found, name: str, language: str) -> str:
    w = Words(language)
    return render(
        "curve.html.j2",
        w,
        version=__version__,
        title=name,
        kind=w["curve"],
        found=found,
        others=list(found["points"][0]["systems"]),
        conclusion=conclusion(found, w),
        picture=figure(found, w),
        scored=scored,
    )


MOST_FLAT = 0.1
"""Of the metric: below it lies what twice the rows may gain where they are said not to help (reckoned)."""


def conclusion(found: Found, w: Words) -> str:
    """What follows for someone who could label more rows, in a sentence."""
    metric, last, (twice, fourfold) = w.metric(found["headline"]), found["points"][-1], found["predictions"]
    values = {"metric": metric, "last": number(last["rows"]), "rows": number(twice["rows"])}
    values["before"] = number(last["score"])
    if not found["rises"]:
        flat = twice["high"] - last["score"] < MOST_FLAT
        return w.say("curve_flat" if flat else "curve_unsure", **values, bound=number(twice["high"]))
    return w.say("curve_rises", **values, twice=scored(twice), fourfold=scored(fourfold))


def scored(told: Mapping[str, Any]) -> str:
    """0.740 [0.710, 0.770]"""
    return f"{number(told['score'])} {interval({'x_low': told['low'], 'x_high': told['high']}, 'x')}"


def figure(found: Found, w: Words) -> Markup:
    """Points with their intervals, the curve in its band, dashed where it goes beyond the points."""
    points, line = found["points"], found["line"]
    last = points[-1]["rows"]
    rows = [place["rows"] for place in line]
    within = [place for place in line if place["rows"] <= last * 1.001]
    beyond = line[len(within) - 1 :]

    def paint(axes: Any) -> None:
        axes.fill_between(rows, [p["low"] for p in line], [p["high"] for p in line], color=BLUE, alpha=0.15, lw=0)
        axes.plot([p["rows"] for p in within], [p["score"] for p in within], color=BLUE, lw=1.2)
        axes.plot([p["rows"] for p in beyond], [p["score"] for p in beyond], color=BLUE, lw=1.2, ls="--")
        for point in points:
            axes.plot([point["rows"]] * 2, [point["low"], point["high"]], color=BLUE, lw=2.2)
        _dots(axes, points, [point["score"] for point in points], BLUE, "D", w.system("finetuned"))
        for (colour, marker), name in zip(OTHERS, points[0]["systems"], strict=False):
            _dots(axes, points, [point["systems"][name] for point in points], colour, marker, w.system(name))
        _row_axis(axes, [*(point["rows"] for point in points), *(told["rows"] for told in found["predictions"])])
        axes.set_xlabel(w["curve_rows"])
        axes.legend(loc="best")

    return svg("curve", w.say("curve_figure", metric=w.metric(found["headline"])), paint, height=2.7)


def _dots(axes: Any, points: Any, values: list[float], colour: str, marker: str, label: str) -> None:
    axes.plot([point["rows"] for point in points], values, marker, color=colour, ms=4.5, ls="", label=label)


def _row_axis(axes: Any, rows: list[int]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(rows))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="x", labelsize=7)
