"""Metrics and predictions as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weitiao.tracking.shown import as_reference

NAMES = {
    "finetuned": "fine-tuned",
    "untuned": "untuned",
    "majority": "majority",
    "tfidf": "TF-IDF + LR",
    "pixels": "pixels + LR",
    "commonest": "commonest answer",
    "nearest": "nearest row",
    "dictionary": "dictionary",
}
SPLITS = ("test", "validation")
"""Of a run's own rows, what may be measured."""
MOST_COLUMNS = 4
"""Metrics shown beside the headline; metrics.json has all of them."""
MOST_TEXT = 160
"""Characters of a row's text."""


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Systems, best first, with the first metrics that all of them have; the headline with its 95 % interval."""
    systems: Mapping[str, Mapping[str, Any]] = metrics["systems"]
    headline = metrics["headline"]
    columns = _columns(systems, headline)
    title = f"{metrics['task']} · {_measured(metrics['rows'], metrics['split'])}"
    if metrics["ceiling"] < 1:
        what = "references reach" if metrics["task"] == "generation" else "output format allows"
        title += f" · the {what} {metrics['ceiling']:.3f} at most"
    table = Table(title=title, title_justify="left")
    table.add_column("system", no_wrap=True)
    for column in columns:
        table.add_column(
            column,
            justify="right",
            style="bold" if column == headline else "",
            overflow="fold",
            no_wrap=column == headline,
        )
    for name, values in sorted(systems.items(), key=lambda item: -item[1][headline]):
        table.add_row(NAMES.get(name, name), *(_cell(values, column, column == headline) for column in columns))
    return table


def _measured(count: int, split: str) -> str:
    """`20 test rows`; of a file that was named, `4 rows of new.jsonl`."""
    rows = "row" if count == 1 else "rows"
    return f"{count:,} {split} {rows}" if split in SPLITS else f"{count:,} {rows} of {split}"


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """The same on this terminal, where any system was measured."""
    if metrics["systems"]:
        Console().print(metrics_table(metrics))


def predictions_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of `predictions.jsonl`: text, prediction, reference; right or wrong."""
    table = Table(title=f"{len(rows)} predictions", title_justify="left", show_lines=True)
    table.add_column("")
    table.add_column("text", ratio=3)
    table.add_column("prediction", ratio=1)
    table.add_column("p", justify="right")
    table.add_column("reference", ratio=1)
    for row in rows:
        right = as_reference(row["prediction"]) == row.get("reference")
        chance = "" if row.get("probability") is None else f"{row['probability']:.2f}"
        table.add_row(
            Text("✓" if right else "✗", style="green" if right else "red"),
            Text(_clipped(str(row.get("text", "")))),
            Text(_shown(row["prediction"])),
            chance,
            Text(_shown(row.get("reference"))),
        )
    return table


def comparison_table(named: Sequence[tuple[str, Any]], pairs: Sequence[Any]) -> Table:
    """Runs with their headline metric, its paired difference to the first run, p, time and memory.

    named: (name, `report.run.Run`). pairs: `report.compare.Pair` of each run but the first.
    """
    headline, task = named[0][1].headline, named[0][1].task.name
    table = Table(title=f"{task} · each run against the first", title_justify="left", box=box.SIMPLE)
    table.add_column("run", overflow="fold")
    for column in (headline, "difference", "p", "rows", "time", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for (name, run), pair in zip(named, [None, *pairs], strict=True):
        low, high = (run.own.get(f"{headline}_{end}") for end in ("low", "high"))
        seconds, memory = run.log.seconds, run.log.peak.get("peak_gib")
        table.add_row(
            Text(name),
            _over(f"{run.own[headline]:.3f}", low, high, "{:.3f}"),
            "" if pair is None else _over(f"{pair.difference:+.3f}", pair.low, pair.high, "{:+.3f}"),
            "" if pair is None else f"{pair.p:.2g}",
            str(len(run.rows) if pair is None else len(pair.rows)),
            "" if seconds is None else f"{seconds:.0f} s",
            "" if memory is None else f"{memory:.1f} GiB",
        )
    return table


def differences_table(names: Sequence[str], differences: Mapping[str, Sequence[Any]]) -> Table:
    """Config keys that differ, and their value in each run."""
    table = Table(title="config", title_justify="left", box=box.SIMPLE)
    for name in ("key", *names):
        table.add_column(name, overflow="fold")
    for key, values in differences.items():
        table.add_row(Text(key), *(Text(str(value)) for value in values))
    return table


def _over(value: str, low: float | None, high: float | None, form: str) -> str:
    """A value over its interval, which beside it would be too wide."""
    return value if low is None or high is None else f"{value}\n\\[{form.format(low)}, {form.format(high)}]"


def _columns(systems: Mapping[str, Mapping[str, Any]], headline: str) -> list[str]:
    numbers = [
        {key for key, value in values.items() if isinstance(value, float) and not key.endswith(("_low", "_high"))}
        for values in systems.values()
    ]
    shared = set.intersection(*numbers) if numbers else set()
    first = next(iter(systems.values()), {})
    return [headline, *[key for key in first if key in shared and key != headline][:MOST_COLUMNS]]


def _cell(values: Mapping[str, Any], column: str, with_interval: bool) -> str:
    value = f"{values[column]:.3f}"
    if not with_interval or f"{column}_low" not in values:
        return value
    return f"{value} [{values[f'{column}_low']:.3f}–{values[f'{column}_high']:.3f}]"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        items = [f"{item['text']} ({item['type']})" if isinstance(item, dict) else str(item) for item in value]
        return ", ".join(items) or "—"
    return "—" if value is None else str(value)


def _clipped(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"
