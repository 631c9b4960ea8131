"""The process of one tracker: `python -m weitiao.tracking.child swanlab`, started by `process.py`, whose docstring
shows the lines that go back and forth.

What a library does here (print, prompt, call sys.exit, hang, leave hooks behind) cannot touch training.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Protocol

from weitiao.errors import first_line
from weitiao.tracking.shown import Shown

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher of distributed training sets; accelerate would join its group."""


class Tracker(Protocol):
    """A run of a tracker's library. Made of the `start` message; may raise whatever the library raises."""

    notes: Sequence[str]
    """Lines for the user: where the run can be seen, or how to upload it."""

    def log(self, step: int, figures: Mapping[str, float], at: float) -> None:
        """at: when it was, in seconds since 1970."""

    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        """Rows of predictions, as images where they have one that the library can show."""

    def finish(self, state: str, error: str | None) -> None:
        """state: `success`, `crashed` or `aborted`."""


def open_tracker(name: str) -> Callable[[Mapping[str, Any]], Tracker]:
    """What makes a tracker of a `start` message. The names are those of `TrackingSection.trackers`."""
    if name == "swanlab":
        from weitiao.tracking.swanlab import SwanLab

        return SwanLab
    from weitiao.tracking.others import OTHERS

    return OTHERS[name]


def serve(make: Callable[[], Callable[[Mapping[str, Any]], Tracker]]) -> int:
    """Do what the lines of standard input say, until `finish` or their end. Returns the exit code.

    make: imports the library and gives what opens its run.
    """
    lines, out = _private_streams()

    def tell(**message: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens where training was killed; the run is still finished
            out.write(json.dumps(message) + "\n")
            out.flush()

    try:
        messages = (json.loads(line) for line in lines)
        tracker = make()(next(messages)["start"])
        for note in tracker.notes:
            tell(note=note)
        try:
            state, reason = _follow(tracker, messages)
        except BaseException as error:
            with contextlib.suppress(BaseException):  # what it has so far is worth keeping
                tracker.finish("crashed", _said(error))
            raise
        tracker.finish(state, reason)
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too: none of it is ours
        tell(warning=_said(error))
        return 1
    tell(done=True)
    return 0


def _follow(tracker: Tracker, messages: Any) -> tuple[str, str | None]:
    """Pass messages on to the tracker; (state, error) that the run ends with."""
    for message in messages:
        if "log" in message:
            tracker.log(message["step"], message["log"], message["time"])
        elif "rows" in message:
            tracker.rows(message["step"], message["name"], [Shown(*row) for row in message["rows"]])
        elif "finish" in message:
            return message["finish"], message["error"]
    return "crashed", "the training process ended without a word"


def _said(error: BaseException) -> str:
    return first_line(error) if isinstance(error, Exception) else f"{type(error).__name__} {error}"


def _private_streams() -> tuple[IO[str], IO[str]]:
    """Standard input and output, for our lines alone: a library's prints go to standard error, and its prompts find an
    end of file."""
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return lines, out


if __name__ == "__main__":
    for variable in LAUNCHER:
        os.environ.pop(variable, None)
    sys.exit(serve(lambda: open_tracker(sys.argv[1])))
