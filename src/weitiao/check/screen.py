"""A result on a terminal, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from weitiao.check.finding import clipped

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
SIGNS = {"error": "✗", "warning": "!", "note": "·"}
BARS = 8
"""Lines of the histogram."""
WIDTH = 32
"""Characters of its longest bar."""
LABELS = 8
"""Labels that are listed."""


def show(result: Mapping[str, Any], console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    console.print(head(result), markup=False, soft_wrap=True)
    if result.get("tokens"):
        console.print()
        for line in histogram(result["tokens"]):
            console.print(line)
    if result.get("labels"):
        console.print()
        console.print(_labels(result["labels"]))
    for line in _cost(result["cost"]):
        console.print(line, markup=False)
    console.print()
    for finding in result["findings"]:
        _finding(finding, console)
    console.print(verdict(result), style="bold", markup=False)


def head(result: Mapping[str, Any]) -> str:
    rows = result["rows"]
    told = [f"{rows[name]:,} {'training' if name == 'train' else name}" for name in ("train", "validation", "test")]
    more = [f"{rows[name]:,} {name}" for name in ("unused", "refused") if rows[name]]
    return f"{result['task']} · {result['model']} · rows: {', '.join([*told, *more])}"


def histogram(tokens: Mapping[str, Any]) -> Iterator[Text]:
    """Lengths of the texts before they are shortened, in a few bars, those beyond `max_length` marked."""
    texts, rows = tokens["texts"], tokens["rows"]
    most = tokens["max_length"]
    yield Text(
        f"tokens of a training text: median {texts['median']:,}, 95 % ≤ {texts['p95']:,}, longest {texts['max']:,} "
        f"(data.max_length {most:,}); with prompt and answer: median {rows['median']:,}, {tokens['all']:,} in all"
    )
    bars = _merged(texts["histogram"]["edges"], texts["histogram"]["counts"])
    highest = max(count for _, _, count in bars)
    for low, high, count in bars:
        bar = "█" * max(round(WIDTH * count / highest), 1 if count else 0)
        style = "yellow" if low > most else ""
        yield Text.assemble(f"{low:>7,}–{high - 1:<7,} ", (f"{bar:<{WIDTH}}", style), f" {count:,}")


def _merged(edges: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """(low, high, count) of neighbouring bins taken together, so that there are no more than BARS."""
    step = -(-len(counts) // BARS)
    return [
        (edges[at], edges[min(at + step, len(counts))], sum(counts[at : at + step]))
        for at in range(0, len(counts), step)
    ]


def _labels(labels: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("rows that name", overflow="ellipsis", max_width=40)
    for split in ("train", "validation", "test"):
        table.add_column("training" if split == "train" else split, justify="right")
    for name, counts in list(labels.items())[:LABELS]:
        table.add_row(Text(name), *(f"{counts[split]:,}" for split in ("train", "validation", "test")))
    if len(labels) > LABELS:
        table.add_row(Text(f"… and {len(labels) - LABELS:,} more", style="dim"))
    return table


def _cost(cost: Mapping[str, Any] | None) -> Iterator[str]:
    """Memory, minutes and price, a line each, where they are estimated."""
    for name, told in (cost or {}).items():
        yield f"{name}: {told}"


def _finding(finding: Mapping[str, Any], console: Console) -> None:
    style = STYLES[finding["level"]]
    console.print(Text.assemble((f"{SIGNS[finding['level']]} {finding['name']}", style), f"  {finding['what']}"))
    for example in finding["examples"]:
        console.print(Text(f"    {example['place']}  {clipped(example['text'], 100)}".rstrip(), style="dim"))
    console.print(Text(f"    → {finding['do']}"))


def verdict(result: Mapping[str, Any]) -> str:
    """How many of each, in a line."""
    count = {level: sum(finding["level"] == level for finding in result["findings"]) for level in STYLES}
    if not any(count.values()):
        return "nothing found"
    listed = ", ".join(f"{n} {level}{'' if n == 1 else 's'}" for level, n in count.items() if n)
    return listed + ("; training would refuse these rows" if count["error"] else "")
