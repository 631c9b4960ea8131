"""What a person sees while something runs: notes, and a bar with rate and time left.

On a terminal the bar moves; elsewhere (a log file, a pipe, a notebook) a line appears now and then instead. All of it
goes to standard error, so that standard output holds results only; a notebook shows standard error as if something had
failed, so there it is plain output.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY = 15.0
"""Seconds between two lines where there is no terminal."""


FIGURE = re.compile(r"(?<=[\s:(=])\d[\d,.]*(?=[\s;,.)]|$)|^\d[\d,.]*(?=\s)")
"""A number that stands by itself, and is no part of a name."""


class Screen:
    def __init__(self, console: Console | None = None, silent: bool = False) -> None:
        self.console = console or _console(silent)
        self._said: set[str] = set()

    def note(self, text: str) -> None:
        self.console.print(text, markup=False)

    def once(self, text: str) -> None:
        """A note, unless one that differs in its figures or in brackets alone was given: the trainings of a curve read
        the same files."""
        key = FIGURE.sub("", text.partition(" (")[0])
        if key not in self._said:
            self._said.add(key)
            self.note(text)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", markup=False)

    @contextlib.contextmanager
    def bar(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
        """A function `advance(count, note="")` that moves the bar."""
        moving = self._moving if self.console.is_terminal else self._lines
        with moving(title, total, unit, done) as advance:
            yield advance

    @contextlib.contextmanager
    def _moving(self, title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[note]}"),
        )
        start = time.monotonic()
        moved = 0
        with Progress(*columns, console=self.console, transient=False) as progress:
            task = progress.add_task(title, total=total, completed=done, rate="", note="")

            def advance(count: int = 1, note: str = "") -> None:
                nonlocal moved
                moved += count
                rate = moved / max(time.monotonic() - start, 1e-9)
                progress.update(task, advance=count, rate=f"{_figures(rate)} {unit}/s")
                if note:
                    progress.update(task, note=note)

            yield advance

    @contextlib.contextmanager
    def _lines(self, title: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
        start = shown = time.monotonic()
        moved = 0

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal moved, shown
            moved += count
            now = time.monotonic()
            if moved and (now - shown >= LINE_EVERY or done + moved == total):
                shown = now
                rate = moved / max(now - start, 1e-9)
                to_do = total - done - moved
                left = f"{duration(to_do / rate)} left" if rate and to_do else ""
                told = (f"{title} {done + moved}/{total}", f"{_figures(rate)} {unit}/s", left, note)
                self.note("  ".join(filter(None, told)))

        yield advance


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `5.2 h`, `3.1 days`."""
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"


def _figures(rate: float) -> str:
    """A large model on a CPU makes some hundredths of a step in a second."""
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _console(silent: bool) -> Console:
    options: dict[str, Any] = {"quiet": silent, "highlight": False, "soft_wrap": True}
    if Console().is_jupyter:
        # rich would display each line by itself, unwrapped; kernels set FORCE_COLOR, which it takes for a terminal.
        return Console(force_jupyter=False, force_terminal=False, **options)
    return Console(stderr=True, **options)
