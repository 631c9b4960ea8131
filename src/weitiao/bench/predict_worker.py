"""A process that predicts in one way, its first answer's time and its memory its own (`worker.py` says how it talks).

python -m weitiao.bench.predict_worker MODULE_OF_THE_ANSWERER SHAPE DEVICE
"""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao.bench.worker import own_output, serve

if TYPE_CHECKING:
    from weitiao.bench.answerer import Answerer, Block
    from weitiao.bench.questions import Questions
    from weitiao.bench.shapes import ModelMaker

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to CLEAR, it makes the peak the memory of now (Linux, proc(5))."""


class PredictBench:
    def __init__(self, module: str, shape: str, device: str) -> None:
        import torch

        self.module, self.shape, self.device = module, shape, torch.device(device)
        self.answerer: Answerer | None = None

    def first(self, folder: Path, questions: Questions) -> None:
        """Read the weights of `folder`, answer one row."""
        answerer: Answerer = importlib.import_module(self.module).ANSWERER()
        answerer.size = 1
        answerer.prepare(self._maker(folder), questions)
        answerer.answer([0])
        self.answerer, self.questions = answerer, questions

    def block(self, members: Sequence[int], seconds: float, size: int) -> Block:
        """Answer all members again and again for so long, in batches of `size` where the way has batches."""
        from weitiao.bench.answerer import Block

        assert self.answerer is not None, "a block comes after the first answer"
        self.answerer.size = size
        self._reset_peak()
        passes, start = 0, time.perf_counter()
        while not passes or time.perf_counter() - start < seconds:
            self.answerer.answer(members)
            passes += 1
        taken = time.perf_counter() - start
        written = sum(self.questions.answers[at] for at in members)
        return Block(taken, passes * len(members), passes * written, self._peak())

    def setting(self) -> str:
        assert self.answerer is not None, "a way is set when it answers"
        return self.answerer.setting

    def answer_tokens(self) -> tuple[int, ...]:
        """Count what our own answers to all rows have, and go on with that."""
        from weitiao.bench.answerers.weitiao import Weitiao

        assert isinstance(self.answerer, Weitiao), "only a grammar ends a random answer"
        found = self.answerer.answer_tokens()
        self.questions = replace(self.questions, answers=found)
        return found

    def agreement(self, folder: Path, questions: Questions, count: int) -> dict[str, Any]:
        """How our answers to the first `count` rows agree with those of the plain path."""
        from weitiao.bench.agreement import agreement

        self.drop()
        return agreement(self._maker(folder), questions, count, importlib.import_module(self.module).ANSWERER)

    def drop(self) -> None:
        self.answerer = None

    def _maker(self, folder: Path) -> ModelMaker:
        from weitiao.bench.shapes import saved_maker

        return saved_maker(self.shape, folder, self.device)

    def _reset_peak(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif CLEAR.exists():
            CLEAR.write_text(RESET_PEAK, "ascii")

    def _peak(self) -> int | None:
        import torch

        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text("utf-8"), re.MULTILINE) if STATUS.exists() else None
        return int(found[1]) * 1024 if found else None


def main(module: str, shape: str, device: str) -> None:
    answers = own_output()
    serve(sys.stdin.buffer, answers, PredictBench(module, shape, device))


if __name__ == "__main__":
    main(*sys.argv[1:])
