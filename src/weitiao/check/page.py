"""`check.html`: a result on one page that needs nothing beside it, in the manner of a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from weitiao import __version__
from weitiao.check.screen import head, verdict
from weitiao.cost.told import lines as cost_lines
from weitiao.report.html import render
from weitiao.report.words import Words

WIDTH, HEIGHT, FOOT = 600, 150, 22
"""Of the histogram, in its own units."""


def page(result: Mapping[str, Any], name: str) -> str:
    return render(
        "check.html.j2",
        Words("en"),
        version=__version__,
        title=name,
        kind="check",
        head=head(result),
        verdict=verdict(result),
        result=result,
        cost=list(cost_lines(result["cost"])) if result["cost"] else [],
        picture=_histogram(result["tokens"]) if result.get("tokens") else None,
    )


def _histogram(tokens: Mapping[str, Any]) -> Markup:
    """Lengths of the texts as bars, a line at `data.max_length`. Figures alone, so nothing is to be escaped."""
    edges, counts = (tokens["texts"]["histogram"][key] for key in ("edges", "counts"))
    most, last = tokens["max_length"], edges[-1]
    scale, highest = WIDTH / (last - edges[0]), max(counts)
    parts = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        tall = HEIGHT * count / highest
        place = f'x="{(low - edges[0]) * scale:.1f}" y="{HEIGHT - tall:.1f}" width="{(high - low) * scale - 1:.1f}"'
        colour = "var(--orange)" if low > most else "var(--blue)"
        title = f"<title>{low}–{high - 1}: {count}</title>"
        parts.append(f'<rect {place} height="{tall:.1f}" fill="{colour}">{title}</rect>')
    if edges[0] <= most <= last:
        at = (most - edges[0]) * scale
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}" stroke="var(--orange)" stroke-dasharray="4"/>'
        )
    for at, anchor, said in ((0, "start", edges[0]), (WIDTH, "end", last - 1)):
        parts.append(
            f'<text x="{at}" y="{HEIGHT + 16}" text-anchor="{anchor}" font-size="13" fill="var(--faint)">{said}</text>'
        )
    inside = "".join(parts)
    label = "Tokens of the training texts"
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{label}">{inside}</svg>')
