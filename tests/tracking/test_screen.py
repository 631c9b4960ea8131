"""What is printed while something runs, where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from weitiao.tracking import screen
from weitiao.tracking.screen import Screen, duration


@pytest.mark.parametrize(
    ("seconds", "told"), [(30, "30 s"), (1800, "30 min"), (18720, "5.2 h"), (86400 * 3.1, "3.1 days")]
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_lines_of_a_slow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 400.0, 800.0, 1000.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with Screen(Console(file=out, soft_wrap=True)).bar("training", 30, "steps") as advance:
        advance(1)
        advance(1, "loss 2.301")
        advance(28)
    assert out.getvalue().splitlines() == [
        "training 1/30  0.0025 steps/s  3.2 h left",
        "training 2/30  0.0025 steps/s  3.1 h left  loss 2.301",
        "training 30/30  0.03 steps/s",
    ]


def test_what_differs_in_figures_or_in_brackets_alone_is_said_once() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, soft_wrap=True))
    told = [
        "p1.csv: read as gb18030",
        "p2.csv: read as gb18030",
        "12 training rows, 1,234 tokens, share 12.5 (first p1.csv:7)",
        "9 training rows, 345 tokens, share 31.6 (first p2.csv:9)",
        "9 test rows, 345 tokens, share 31.6 (first p1.csv:9)",
    ]
    for line in told:
        screen.once(line)
    assert out.getvalue().splitlines() == [*told[:3], told[4]]


def test_no_line_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 400.0, 800.0])
    monkeypatch.setattr(screen.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with Screen(Console(file=out, soft_wrap=True)).bar("validating", 4, "rows") as advance:
        advance(0)
        advance(2)
    assert out.getvalue().splitlines() == ["validating 2/4  0.0025 rows/s  13 min left"]
