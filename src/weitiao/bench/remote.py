"""A process for one system that patches what others use: the side that asks (`worker.py` computes).

The process starts when it is first asked, reads the bench's own weights from a folder, and serves all profiles. It dies
with its last answer a note, never a hang: the next question starts another.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from weitiao.bench.equality import Gradients
from weitiao.bench.measure import Lane, free
from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Alternative
from weitiao.bench.worker import FAILED, OUT_OF_MEMORY
from weitiao.model.quiet import quiet
from weitiao.types import Encoded

PATIENCE = 300.0
"""Seconds that an answer may take: more than a start, its compilations and a warm-up."""
GRACE = 10.0
"""Seconds between the end of a process's pipes and its own."""
LONGEST_NOTE = 200
"""Characters of a process's last words."""


class WorkerFailed(Exception):
    """Why a worker gave no answer."""


class Workers:
    """The processes of a bench, one a system, and the folder of what they share."""

    def __init__(self, shape: str, device: torch.device) -> None:
        self.shape, self.device = shape, device
        self._workers: dict[type[Alternative], Worker] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def of(self, kind: type[Alternative]) -> Worker:
        if kind not in self._workers:
            self._workers[kind] = Worker(kind, self)
        return self._workers[kind]

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="weitiao-bench-")
        return Path(self._folder.name)

    def weights(self, make: ModelMaker) -> Path:
        """The folder of a maker's weights, written once."""
        config = make.master.config
        folder = self.folder / f"{str(make.master.dtype).removeprefix('torch.')}-{config.num_hidden_layers}"
        if not folder.exists():
            with quiet():
                make.master.save_pretrained(folder)
        return folder


class Worker:
    def __init__(self, kind: type[Alternative], workers: Workers) -> None:
        self.kind, self.workers = kind, workers
        self.process: subprocess.Popen[bytes] | None = None
        self._overdue = threading.Event()

    def ask(self, order: str, *arguments: Any) -> Any:
        """Raises OutOfMemoryError where the worker ran into one, WorkerFailed where it failed or died."""
        # What this process keeps for later is of no use to it now, and of use to the worker.
        free()
        process = self.process or self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Timer(PATIENCE, self._give_up, [process])
        late.start()
        try:
            pickle.dump((order, arguments), process.stdin)
            process.stdin.flush()
            state, value = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerFailed(self._last_words(process)) from None
        finally:
            late.cancel()
        if state == OUT_OF_MEMORY:
            raise torch.cuda.OutOfMemoryError(f"in the process of {self.kind.__name__}")
        if state == FAILED:
            # What an error leaves behind on a card may make all that follows fail.
            self.stop()
            raise WorkerFailed(_short(value))
        return value

    def gradients(self, make: ModelMaker, samples: Sequence[Encoded]) -> Gradients:
        try:
            found: Gradients = self.ask("gradients", self.workers.weights(make), list(samples))
        except torch.cuda.OutOfMemoryError:
            raise WorkerFailed("out of memory") from None
        return found

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        # What a pipe still holds finds nobody to read it.
        with contextlib.suppress(OSError):
            process.communicate()

    def start(self) -> subprocess.Popen[bytes]:
        kind, workers = self.kind, self.workers
        self._overdue.clear()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", kind.program, kind.__module__, workers.shape, str(workers.device)]
                + ([] if kind.first_import is None else [kind.first_import]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **kind.environment(workers.folder)},
            )
        return self.process

    @property
    def _log(self) -> Path:
        return self.workers.folder / f"{self.kind.__module__}.log"

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        self._overdue.set()
        process.kill()

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        try:
            code = process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:  # it closed its pipes and lives on
            process.kill()
            code = process.wait()
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        self.stop()
        if self._overdue.is_set():
            return f"its process gave no answer in {PATIENCE:.0f} s"
        ended = f"its process was killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
        return _short(f"{ended}: {lines[-1]}" if lines else ended)


@dataclass
class RemoteLane(Lane):
    """A lane whose system is in a worker: time and memory are those that the worker saw."""

    worker: Worker = field(kw_only=True)

    def warm_up(self, make: ModelMaker) -> None:
        folder = self.worker.workers.weights(make)
        told = self.worker.ask("warm_up", folder, list(self.samples), self.prefix, self.settings)
        self.steps, self.warm_up_seconds, self.warm_up_samples, self.losses = told

    def block(self, seconds: float) -> None:
        self.blocks.append(self.worker.ask("block", seconds))

    def drop(self) -> None:
        if self.worker.process is None:
            return
        # Where it is gone, so is what it held.
        with contextlib.suppress(WorkerFailed):
            self.worker.ask("drop")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_NOTE else line[: LONGEST_NOTE - 1] + "…"
