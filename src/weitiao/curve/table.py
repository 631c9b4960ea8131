"""A curve as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from weitiao.report.table import NAMES


def curve_table(found: Mapping[str, Any]) -> Table:
    """Measured shares, then what is expected of more rows; scores with their 90 % intervals."""
    others = list(found["points"][0]["systems"])
    title = f"{found['task']} · {found['headline']} on {found['test_rows']} {found['split']} rows · 90 % intervals"
    table = Table(title=title, title_justify="left")
    for name in ("share", "rows", "steps", "seeds", found["headline"], *(NAMES.get(name, name) for name in others)):
        own = name == found["headline"]
        table.add_column(name, justify="right", no_wrap=own, overflow="fold", style="bold" if own else "")
    for point in found["points"]:
        cells = [f"{point['share']:g} %", f"{point['rows']:,}", _steps(point), str(len(point["seeds"])), _score(point)]
        table.add_row(*cells, *(f"{point['systems'][name]:.3f}" for name in others))
    table.add_section()
    for told in found["predictions"]:
        table.add_row(f"× {told['times']}", f"{told['rows']:,}", "", "expected", _score(told), *("" for _ in others))
    return table


def _steps(point: Mapping[str, Any]) -> str:
    return f"{point['steps']:,}" + ("*" if point["lengthened"] else "")


def _score(told: Mapping[str, Any]) -> str:
    return f"{told['score']:.3f} [{told['low']:.3f}–{told['high']:.3f}]"
