"""Ctrl-C in a step: the step ends, a checkpoint is written, and the training stops. A second one stops at once.

An exception in the middle of an optimizer's update would leave half of it, and what a checkpoint before the first
`save_steps` has to keep is minutes of a CPU.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from weitiao.tracking.screen import Screen


class Stopping:
    def __init__(self, screen: Screen, alone: bool) -> None:
        """alone: no other process computes the same steps; several would stop at different ones, and wait for ever."""
        self.screen, self.alone = screen, alone
        self.asked = False

    @contextmanager
    def at_the_end(self) -> Iterator[None]:
        """Ctrl-C inside only sets `asked`. A handler that is not Python's own stays."""
        usual = signal.default_int_handler
        ours = self.alone and threading.current_thread() is threading.main_thread()
        if not ours or signal.getsignal(signal.SIGINT) is not usual:
            yield
            return
        signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

    def _ask(self, *_: Any) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.screen.note("stopping behind this step, with a checkpoint; Ctrl-C again stops at once")
