"""Where a pass of written answers spends its time: what the host does and what it waits for, and how long the card is
at work.

    python bench/decode_waits.py [--rows 4096] [--passes 3]           entities, Qwen2-1.5B's shape, on a card
    python bench/decode_waits.py --shape tiny --rows 64 --device cpu  tries the script

Random weights and rows as in `weitiao bench predict`. Seconds of the main thread, each part without the others inside
of it; `card busy` is the sum of all kernels, of one more pass under torch's profiler, which is slower.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

from weitiao.bench.answerer import adapted
from weitiao.bench.answerers.weitiao import predictor
from weitiao.bench.questions import questions
from weitiao.bench.shapes import SHAPES, model_maker
from weitiao.bench.vocabulary import write_tokenizer
from weitiao.engine.slot_prompts import PromptReader
from weitiao.engine.slot_steps import Steps
from weitiao.model.load import choose_dtype
from weitiao.prediction import slot_run, slot_state
from weitiao.prediction.prompts import Prompts
from weitiao.prediction.windows import Windows
from weitiao.prediction.written import Written

PARTS = (
    (Windows, "__init__", "encode rows"),
    (Prompts, "constraints", "write grammars"),
    (PromptReader, "read", "start to read prompts"),
    (Steps, "logits", "start steps"),
    (slot_run.Run, "_chosen", "start choices"),
    (slot_run.Run, "_accept", "take tokens"),
    (slot_run.Run, "_prepared", "prepare steps"),
    (slot_state.Chosen, "told", "wait for the card"),
    (Future, "result", "wait for masks"),
    (Written, "_read", "read answers"),
)


class Clock:
    """Seconds of each part, in the main thread."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inside: list[float] = []
        self._main = threading.main_thread()

    def watch(self, owner: type, name: str, part: str) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def timed(*args: Any, **named: Any) -> Any:
            if threading.current_thread() is not self._main:
                return plain(*args, **named)
            self._inside.append(0.0)
            begin = time.perf_counter()
            try:
                return plain(*args, **named)
            finally:
                whole = time.perf_counter() - begin
                self.spent[part] += whole - self._inside.pop()
                if self._inside:
                    self._inside[-1] += whole

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--shape", default="qwen2-1.5b", choices=SHAPES)
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    device, shape = torch.device(asked.device), SHAPES[asked.shape]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_tokenizer(folder, shape.family, shape.config["vocab_size"])
        rows = questions("ner", folder, shape.family, shape.config["vocab_size"], asked.rows, seed=1)
        ours = predictor(adapted(model_maker(asked.shape, device, choose_dtype("auto", device))), rows)
        examples = rows.examples()
        answer = functools.partial(ours.answer, examples)
        answer()
        clock = Clock()
        for owner, name, part in PARTS:
            clock.watch(owner, name, part)
        for _ in range(asked.passes):
            clock.spent.clear()
            begin = time.perf_counter()
            answer()
            told(clock.spent, time.perf_counter() - begin, asked.rows)
        if device.type == "cuda":
            busy(answer)


def told(spent: Counter[str], whole: float, rows: int) -> None:
    print(f"{rows / whole:.1f} rows/s, {whole:.2f} s")
    for part, seconds in [*spent.most_common(), ("the rest", whole - sum(spent.values()))]:
        print(f"    {part:24}{seconds:6.2f} s  {seconds / whole:6.1%}", flush=True)


def busy(answer: Any) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        begin = time.perf_counter()
        answer()
        torch.cuda.synchronize()
        whole = time.perf_counter() - begin
    kernels = profile.key_averages()
    print(f"card busy {sum(k.self_device_time_total for k in kernels) / 1e6:.2f} s of {whole:.2f}")
    for kernel in sorted(kernels, key=lambda k: -k.self_device_time_total)[:12]:
        print(f"    {kernel.key[:70]:72}{kernel.self_device_time_total / 1e6:6.2f} s")


if __name__ == "__main__":
    main()
