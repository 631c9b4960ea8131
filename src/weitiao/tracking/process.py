"""A tracker in a process of its own: fed over its standard input, never waited for while training.

Both ways one JSON object a line:

    to the tracker      {"start": {"name": …, "project": …, "mode": …, "folder": …, "config": {…}}}   first, once
                        {"log": {"train/loss": 0.7}, "step": 10, "time": 1767225600.0}
                        {"rows": [["content", "caption", image], …], "name": "Prediction", "step": 60}
                            image: the absolute path of a file, or null
                        {"finish": "success" | "crashed" | "aborted", "error": null | "…"}        last, once
    from the tracker    {"note": "…"}       a line for the user
                        {"warning": "…"}    what went wrong; nothing more is sent to it
                        {"done": true}      finished; the process may end now

`child.py` is the other end. Whatever goes wrong there is one warning here.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.tracking.screen import Screen
from weitiao.tracking.shown import Shown

PATIENCE = 5.0
"""Seconds of waiting for a tracker before a line says so."""
HOOKS = 2.0
"""Seconds for what a library does at the exit of its process, after it has finished the run."""
LAST_WORDS = 0.5
"""Seconds until a process that closed its output has ended."""


class TrackerProcess:
    def __init__(
        self, name: str, command: Sequence[str], start: Mapping[str, Any], prints: Path, screen: Screen
    ) -> None:
        """command: runs a program that speaks the lines above. start: content of the first of them.
        prints: file for what else the program and its libraries print."""
        self.name = name
        self._screen, self._prints = screen, prints
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._failed = self._done = False
        self._over = threading.Event()
        """Set when it is done or has failed: there is nothing to wait for."""
        self._process: subprocess.Popen[str] | None = None
        self._send({"start": start})
        try:
            self._process = _started(command, prints)
        except OSError as error:
            self.fail(str(error))
            return
        self._thread(self._listen)
        self._thread(self._feed)

    def log(self, step: int, figures: Mapping[str, float], at: float) -> None:
        self._send({"log": figures, "step": step, "time": at})

    def rows(self, step: int, name: str, rows: Sequence[Shown]) -> None:
        self._send({"rows": rows, "name": name, "step": step})

    def finish(self, state: str, error: str | None) -> None:
        """Tell it that this was all. state: `success`, `crashed` or `aborted`."""
        self._send({"finish": state, "error": error})
        self._lines.put(None)

    def wait(self, seconds: float) -> bool:
        """Whether it is done, or has failed, within so many seconds."""
        return self._over.wait(seconds)

    def close(self) -> None:
        """Leave no process behind. A library's hooks at exit get a moment, and no word is said of them."""
        self._lines.put(None)
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._done:
                self._process.wait(HOOKS)
        self._kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._failed:
            self._lines.put(json.dumps(message, default=str) + "\n")

    def _thread(self, work: Callable[[subprocess.Popen[str]], None]) -> threading.Thread:
        thread = threading.Thread(target=work, args=(self._process,), name=f"{self.name}{work.__name__}", daemon=True)
        thread.start()
        return thread

    def _feed(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        # A pipe that broke is told by _listen, which sees the end of the process.
        with contextlib.suppress(OSError, ValueError), process.stdin as pipe:
            while (line := self._lines.get()) is not None:
                pipe.write(line)
                pipe.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._heard(json.loads(line))
            except (ValueError, TypeError, AttributeError):
                self.fail(f"its process wrote {line.strip()[:80]!r}, which is no message")
        if not self._done:
            self.fail(self._end_of(process))

    def _heard(self, message: Mapping[str, Any]) -> None:
        if message.get("done"):
            self._done = True
            self._over.set()
        if "note" in message:
            self._screen.note(str(message["note"]))
        if "warning" in message:
            self.fail(str(message["warning"]))

    def _end_of(self, process: subprocess.Popen[str]) -> str:
        """Why a process ended before it was done."""
        try:
            code = process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            return "its process closed its output"
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was stopped by signal {-code} ({signal.strsignal(-code)})"
        printed = self._prints.read_bytes().decode("utf-8", "replace") if self._prints.is_file() else ""
        last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
        return f"its process {how}" + (f" ({last[:200]})" if last else "")

    def fail(self, reason: str) -> None:
        """Stop it with a warning, unless it has failed before."""
        with self._lock:
            if self._failed:
                return
            self._failed = True
        self._screen.warn(f"{self.name}: {reason.rstrip('.')}; the run goes on without it, log.jsonl has all figures")
        self._over.set()
        self._lines.put(None)
        self._kill()

    def _kill(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)  # its helpers, too


def finish_all(
    trackers: Sequence[TrackerProcess], state: str, error: str | None, seconds: float, screen: Screen
) -> None:
    """Let all trackers finish at once, for at most so many seconds together."""
    for tracker in trackers:
        tracker.finish(state, error)
    end = time.monotonic() + seconds
    try:
        for tracker in trackers:
            if tracker.wait(min(PATIENCE, max(0.0, end - time.monotonic()))):
                continue
            left = end - time.monotonic()
            if left > 0:
                screen.note(f"waiting for {tracker.name} to finish, for at most {left:.0f} s (tracking.timeout)")
            if not tracker.wait(max(0.0, left)):
                tracker.fail(f"did not finish within {seconds:g} s (tracking.timeout) and was stopped")
    finally:  # a second Ctrl-C, too, ends the waiting
        for tracker in trackers:
            tracker.close()


def _started(command: Sequence[str], prints: Path) -> subprocess.Popen[str]:
    """The process, out of reach of this terminal's Ctrl-C, so that it can finish after one."""
    apart = 0
    if sys.platform == "win32":  # where start_new_session does nothing
        apart = subprocess.CREATE_NEW_PROCESS_GROUP
    # It imports what this process would, a notebook's additions to the path included.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    prints.parent.mkdir(parents=True, exist_ok=True)
    # A file, not a pipe: where this process is killed, a print must not fail while the tracker saves what it has.
    with prints.open("wb") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            encoding="utf-8",
            errors="replace",
            env=env,
            start_new_session=True,
            creationflags=apart,
        )
