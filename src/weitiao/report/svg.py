"""A matplotlib figure as a small inline SVG that the page's own fonts and colours reach.

Text stays text, so a browser's Chinese fonts are used; colours become CSS variables, so dark mode and print change
them. Nothing in it is fetched: namespaces, metadata and the document type are left out.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

from markupsafe import Markup

COLOURS = {
    "ink": "#1b1f24",
    "faint": "#8b949e",
    "grid": "#d8dee4",
    "blue": "#0067a3",
    "orange": "#b34700",
    "green": "#00714f",
}
"""CSS variable → the value that matplotlib is given in its place. Blue, orange and green after Okabe and Ito (2008),
Color Universal Design, darkened to a contrast of 4.5 : 1 on white."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.edgecolor": COLOURS["faint"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["faint"],
    "ytick.color": COLOURS["faint"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
WIDTH = 3.7
"""Inches; on a phone 360 px wide a point is then about 1.2 px, and text 10 px high."""
METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))

Paint = Callable[[Any], None]
"""Draws into matplotlib Axes."""


def svg(name: str, title: str, paint: Paint, *, height: float = 2.3) -> Markup:
    """The figure that `paint` draws. name: prefix of its ids, unique in the page. title: what it shows, for those who
    do not see it. height: inches."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The browser has the fonts, not this machine.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    style: Any = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata=METADATA)
    return Markup(_inline(file.getvalue(), name, title))


def _inline(text: str, name: str, title: str) -> str:
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    text = text[text.index(">", box.end()) + 1 :]
    for pattern in (
        r"<metadata>.*?</metadata>",
        r"<!--.*?-->\s*",
        r"<style type=.*?</style>",
        r"font-family: [^;\"]*;?",
    ):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r">\s+<", "><", text).strip()
    told = escape(title)
    return f'<svg id="{name}" {box[0]} role="img" aria-label="{told}"><title>{told}</title>{text}'
