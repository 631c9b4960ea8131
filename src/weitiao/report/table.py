"""Metrics and predictions as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

NAMES = {
    "finetuned": "fine-tuned",
    "untuned": "untuned",
    "majority": "majority",
    "tfidf": "TF-IDF + LR",
    "dictionary": "dictionary",
}
MOST_COLUMNS = 4
"""Metrics shown beside the headline; metrics.json has all of them."""


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Systems, best first, with the first metrics that all of them have; the headline with its 95 % interval."""
    systems: Mapping[str, Mapping[str, Any]] = metrics["systems"]
    headline = metrics["headline"]
    columns = _columns(systems, headline)
    title = f"{metrics['task']} · {metrics['rows']} {metrics['split']} rows"
    if metrics["ceiling"] < 1:
        title += f" · the output format allows {metrics['ceiling']:.3f} at most"
    table = Table(title=title, title_justify="left")
    table.add_column("system", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", style="bold" if column == headline else "", no_wrap=True)
    for name, values in sorted(systems.items(), key=lambda item: -item[1][headline]):
        table.add_row(NAMES.get(name, name), *(_cell(values, column, column == headline) for column in columns))
    return table


def predictions_table(rows: Sequence[Mapping[str, Any]], text_field: str = "text") -> Table:
    """Rows of `predictions.jsonl`: text, prediction, reference; right or wrong."""
    table = Table(title=f"{len(rows)} predictions", title_justify="left", show_lines=True)
    table.add_column("")
    table.add_column("text", ratio=3)
    table.add_column("prediction", ratio=1)
    table.add_column("p", justify="right")
    table.add_column("reference", ratio=1)
    for row in rows:
        right = row["prediction"] == row.get("reference")
        chance = "" if row.get("probability") is None else f"{row['probability']:.2f}"
        table.add_row(
            Text("✓" if right else "✗", style="green" if right else "red"),
            Text(_clipped(str(row.get(text_field, "")))),
            Text(_shown(row["prediction"])),
            chance,
            Text(_shown(row.get("reference"))),
        )
    return table


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


def _clipped(text: str, most: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
