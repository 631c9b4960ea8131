"""The pictures of a report. They hold fixed words and figures only, never a user's text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from weitiao.metrics.classification import BINS
from weitiao.report.certainty import Bin, Point
from weitiao.report.run import Run
from weitiao.report.svg import COLOURS, svg
from weitiao.report.words import Words, interval, number

LONG = 40
"""Logged losses from which on a smoothed line is drawn over them."""
STEEP = 20
"""Ratio of the largest and the smallest loss from which on its axis is logarithmic."""
FAINT, GRID, BLUE, ORANGE, GREEN = (COLOURS[name] for name in ("faint", "grid", "blue", "orange", "green"))
SPLIT_LINES = {"train": (BLUE, "-"), "validation": (GREEN, ":"), "test": (ORANGE, "--")}


def loss(run: Run, w: Words) -> Markup | None:
    lines = run.log.training
    if len(lines) < 2:
        return None
    steps, values = [line["step"] for line in lines], np.array([line["loss"] for line in lines])
    long = len(lines) > LONG

    def paint(axes: Any) -> None:
        axes.plot(steps, values, color=BLUE, lw=0.8 if long else 1.6, alpha=0.45 if long else 1, label=w["each_line"])
        if long:
            axes.plot(steps, smoothed(values), color=BLUE, label=w["smoothed"])
            axes.legend(loc="upper right")
        if values.min() > 0 and values.max() / values.min() > STEEP:
            _log_axis(axes, values)
        else:
            axes.set_ylim(bottom=min(0.0, float(values.min())))
        _step_axis(axes, w)

    return svg("loss", w["loss_figure"], paint, height=1.9)


def learning_rate(run: Run, w: Words) -> Markup | None:
    lines = [line for line in run.log.training if "learning_rate" in line]
    if len(lines) < 2:
        return None

    def paint(axes: Any) -> None:
        axes.plot([line["step"] for line in lines], [line["learning_rate"] for line in lines], color=BLUE)
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        _step_axis(axes, w)

    return svg("rate", w["learning_rate"], paint, height=1.9)


def validation(run: Run, w: Words) -> Markup | None:
    """The metric that chose the best adapter; the best step is marked by a diamond and by its number."""
    lines = run.log.evaluations
    if not lines:
        return None
    name = next(iter(lines[-1]["evaluation"]))
    kept = [line for line in lines if line["evaluation"].get(name) is not None]
    steps, values = [line["step"] for line in kept], [line["evaluation"][name] for line in kept]
    best = next((i for i in reversed(range(len(kept))) if kept[i].get("best")), None)

    def paint(axes: Any) -> None:
        axes.plot(steps, values, "o-", color=BLUE, ms=3.5)
        if best is not None:
            label = w.say("best_step", step=steps[best]) + f" ({number(values[best])})"
            axes.plot([steps[best]], [values[best]], "D", color=ORANGE, ms=7, label=label)
            axes.legend(loc="best")
        axes.margins(y=0.25)
        _step_axis(axes, w)

    return svg("validation", w.say("validation_figure", metric=w.metric(name)), paint, height=1.9)


def forest(run: Run, w: Words) -> Markup | None:
    """Systems, best first: the headline metric with its interval. The name stands over its line, so long names fit."""
    name = run.headline
    systems = sorted(run.systems.items(), key=lambda item: -item[1][name])
    if not systems:
        return None

    most = max(1.0, *(figures.get(f"{name}_high", figures[name]) for _, figures in systems))

    def paint(axes: Any) -> None:
        for place, (system, figures) in enumerate(systems):
            value, own = figures[name], system == "finetuned"
            low, high = figures.get(f"{name}_low", value), figures.get(f"{name}_high", value)
            colour = BLUE if own else FAINT
            axes.plot([low, high], [-place, -place], color=colour, lw=3.5 if own else 2.2, solid_capstyle="butt")
            axes.plot([value], [-place], "D" if own else "o", color=colour, ms=6 if own else 5)
            axes.text(0.0, 0.36 - place, w.system(system), weight="bold" if own else "normal", va="center")
            axes.text(
                most,
                0.36 - place,
                f"{number(value)} {interval(figures, name)}",
                ha="right",
                va="center",
                weight="bold" if own else "normal",
            )
        axes.set_xlim(-0.01 * most, 1.01 * most)
        axes.set_ylim(-len(systems) + 0.55, 0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)

    title = w.say("forest", metric=w.metric(name))
    return svg("forest", title, paint, height=0.35 + 0.42 * len(systems))


def reliability(after: Sequence[Bin], before: Sequence[Bin] | None, temperature: float, w: Words) -> Markup | None:
    if not after:
        return None

    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, ls="--", lw=1)
        rows = sum(b.count for b in after)
        axes.bar(
            [b.low for b in after],
            [b.count / rows for b in after],
            1 / BINS,
            align="edge",
            color=GRID,
            edgecolor="none",
            zorder=0.5,
        )
        if before is not None:
            _bins(axes, before, color=ORANGE, marker="s", ls=":", label=w["before"], hollow=True)
        label = w["after_plain"] if before is None else w.say("after", t=f"{temperature:.2f}")
        _bins(axes, after, color=BLUE, marker="o", ls="-", label=label, hollow=False)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(w["mean_probability"])
        axes.set_ylabel(w["share_right"])
        axes.legend(loc="upper left")

    return svg("reliability", w["reliability"], paint, height=2.7)


def _bins(axes: Any, bins: Sequence[Bin], *, color: str, marker: str, ls: str, label: str, hollow: bool) -> None:
    x, y = [b.probability for b in bins], [b.accuracy for b in bins]
    axes.plot(x, y, color=color, ls=ls, marker=marker, ms=4.5, mfc="none" if hollow else color, lw=1.2, label=label)


def coverage(points: Sequence[Point], w: Words) -> Markup | None:
    if len(points) < 2:
        return None
    # A line of 10,000 points is no clearer than one of 300.
    kept = [points[i] for i in np.unique(np.linspace(0, len(points) - 1, 300).astype(int)).tolist()]

    def paint(axes: Any) -> None:
        axes.plot([p.coverage for p in kept], [p.accuracy for p in kept], color=BLUE, drawstyle="steps-post")
        axes.plot([points[-1].coverage], [points[-1].accuracy], "D", color=ORANGE, ms=6)
        axes.set_xlim(-0.03, 1.03)
        lowest = min(p.accuracy for p in kept)
        axes.set_ylim(max(0.0, lowest - 0.08), 1.02)
        axes.set_xlabel(w["coverage_axis"])
        axes.set_ylabel(w["share_right"])

    return svg("coverage", w["coverage"], paint, height=2.7)


def lengths(run: Run, w: Words) -> Markup | None:
    """Histograms of the splits over each other, as shares of their rows."""
    found = {name: split["tokens"]["histogram"] for name, split in run.log.data.items() if split.get("tokens")}
    if not found:
        return None

    def paint(axes: Any) -> None:
        for name in [name for name in SPLIT_LINES if name in found]:
            colour, style = SPLIT_LINES[name]
            counts = np.array(found[name]["counts"], dtype=float)
            axes.stairs(
                counts / max(counts.sum(), 1),
                found[name]["edges"],
                color=colour,
                ls=style,
                lw=1.4,
                label=w[f"split_{name}"],
                fill=False,
            )
        axes.set_xlabel(w["tokens"])
        axes.set_ylabel(w["share_of_rows"])
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")

    return svg("lengths", w["lengths"], paint, height=2.2)


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each value and of its neighbours, at most a twentieth of all to each side; as many on both sides, so that
    the ends are not drawn towards the middle."""
    place = np.arange(len(values))
    reach = np.minimum(max(1, len(values) // 20), np.minimum(place, place[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1))


def _step_axis(axes: Any, w: Words) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(w["step"])


def _log_axis(axes: Any, values: NDArray[np.float64]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    wide = values.max() / values.min() > 1000
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
