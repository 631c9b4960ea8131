"""A result on a terminal, on one screen. What does not fit on a line is cut on a terminal, and whole in a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from weitiao.cost.told import lines as cost_lines

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
SIGNS = {"error": "✗", "warning": "!", "note": "·"}
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
BARS = 6
"""Lines of the histogram, without that of the longest texts."""
WIDTH = 32
"""Characters of its longest bar."""
LABELS = 8
"""Labels that are listed."""


def show(result: Mapping[str, Any], console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    folder = common_folder(result)
    lines = [Text(head(result), style="bold"), *([Text(f"files in {folder}")] if folder else [])]
    if result.get("tokens"):
        lines += [Text(), *_lengths(result["tokens"])]
    if result.get("labels"):
        lines += [Text(), *_labels(result["labels"])]
    lines += [Text(line) for line in _cost(result["cost"])]
    lines += [Text(f"note: {note}") for note in result.get("notes", ())]
    lines += [Text(), *(line for finding in result["findings"] for line in _finding(finding, folder))]
    for line in [*lines, Text(verdict(result), style="bold")]:
        if line.no_wrap and console.is_terminal:
            line.truncate(console.width, overflow="ellipsis")
        console.print(line, soft_wrap=not console.is_terminal)


def head(result: Mapping[str, Any]) -> str:
    rows = result["rows"]
    told = [f"{rows[name]:,} {kind}" for name, kind in SPLITS.items()]
    more = [f"{rows[name]:,} {name}" for name in ("unused", "refused") if rows[name]]
    return f"{result['task']} · {result['model']} · rows: {', '.join([*told, *more])}"


def verdict(result: Mapping[str, Any]) -> str:
    """How many of each level, in a line."""
    count = {level: sum(finding["level"] == level for finding in result["findings"]) for level in STYLES}
    if not any(count.values()):
        return "nothing found"
    listed = ", ".join(f"{n} {level}{'' if n == 1 else 's'}" for level, n in count.items() if n)
    return listed + ("; training refuses these files" if count["error"] else "")


def common_folder(result: Mapping[str, Any]) -> str:
    """The folder of all files where there are several, with a separator at its end; else nothing."""
    folders = {os.path.dirname(path) for path in result["files"]}
    folder = folders.pop() if len(folders) == 1 else ""
    return os.path.join(folder, "") if folder else ""


def _lengths(tokens: Mapping[str, Any]) -> Iterator[Text]:
    """Lengths of the texts before they are shortened, as bars; those beyond `data.max_length` in another colour."""
    texts, rows, most = tokens["texts"], tokens["rows"], tokens["max_length"]
    yield Text(
        f"tokens of a training text: median {texts['median']:,}, 95 % up to {texts['p95']:,}, longest "
        f"{texts['max']:,}; {tokens['above']:,} above data.max_length={most}"
    )
    bars = _merged(texts["histogram"]["edges"], texts["histogram"]["counts"])
    if texts["longer"]:
        bars.append((bars[-1][1], texts["max"] + 1, texts["longer"]))
    highest = max(count for _, _, count in bars)
    for low, high, count in bars:
        bar = "█" * max(round(WIDTH * count / highest), 1 if count else 0)
        yield Text.assemble(
            f"{low:>7,}–{high - 1:<7,}", (f"{bar:<{WIDTH}}", "yellow" if low > most else ""), f" {count:,}"
        )
    yield Text(f"with prompt and answer: median {rows['median']:,}, longest {rows['max']:,}, {tokens['all']:,} in all")


def _merged(edges: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """(low, high, count) of neighbouring bins taken together, so that there are no more than BARS."""
    step = -(-len(counts) // BARS)
    return [
        (edges[at], edges[min(at + step, len(counts))], sum(counts[at : at + step]))
        for at in range(0, len(counts), step)
    ]


def _labels(labels: Mapping[str, Mapping[str, int]]) -> Iterator[Text]:
    table = Table(box=None, pad_edge=False)
    table.add_column("rows that name", overflow="ellipsis", max_width=40, no_wrap=True)
    for kind in SPLITS.values():
        table.add_column(kind, justify="right")
    for name, counts in list(labels.items())[:LABELS]:
        table.add_row(Text(name), *(f"{counts[split]:,}" for split in SPLITS))
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(table)
    yield from map(Text, captured.get().rstrip("\n").split("\n"))
    if len(labels) > LABELS:
        yield Text(f"… and {len(labels) - LABELS:,} more", style="dim")


def _cost(cost: Mapping[str, Any] | None) -> Iterator[str]:
    """Memory, time, disk and price, a line each, where they are estimated."""
    if cost:
        yield ""
        yield from (f"{name}: {told}" for name, told in cost_lines(cost))


def _finding(finding: Mapping[str, Any], folder: str) -> Iterator[Text]:
    style = STYLES[finding["level"]]
    yield Text.assemble((f"{SIGNS[finding['level']]} {finding['name']}", style), f"  {finding['what']}")
    if finding["level"] == "note":  # the page has the rest
        return
    for example in finding["examples"]:
        place = example["place"].replace(folder, "") if folder else example["place"]
        line = f"{place}  {example['text']}".strip()
        # An error says what to do; of a text the beginning will do.
        yield Text(f"    {line}", style="dim", no_wrap=finding["level"] != "error")
    yield Text(f"    → {finding['do']}")
