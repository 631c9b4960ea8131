"""Where a pass of written answers spends its time: what the host does and what it waits for, and how long the card is
at work.

    python bench/decode_waits.py [--rows 4096] [--passes 3]           entities, Qwen2-1.5B's shape, on a card
    python bench/decode_waits.py --run RUN --data DATA [--near 0]     a run of its own and the first rows of a file
    python bench/decode_waits.py --shape tiny --rows 64 --device cpu  tries the script

Without a run, random weights and rows as in `weitiao bench predict`. Seconds of the main thread, each part without the
others inside of it; `card busy` is the sum of all kernels, of one more pass under torch's profiler, which is slower.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from weitiao.bench.answerer import adapted
from weitiao.bench.answerers.weitiao import predictor
from weitiao.bench.questions import questions
from weitiao.bench.shapes import SHAPES, model_maker
from weitiao.bench.vocabulary import write_tokenizer
from weitiao.config import DataSection
from weitiao.data.source import iter_rows
from weitiao.engine.slot_prompts import PromptReader
from weitiao.engine.slot_steps import Steps
from weitiao.model.load import choose_dtype
from weitiao.prediction import slot_run, slot_state
from weitiao.prediction.adapter_folder import open_folder
from weitiao.prediction.predictor import Predictor
from weitiao.prediction.windows import Windows
from weitiao.prediction.written import Written

PARTS = (
    (Windows, "__init__", "encode rows"),
    (PromptReader, "read", "start to read prompts"),
    (Steps, "logits", "start steps"),
    (slot_run.Run, "_chosen", "start choices"),
    (slot_run.Run, "_take", "take tokens"),
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
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--near", type=float, help="nats within which float32 decides, of a run")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if asked.run is None:
        ours, examples = of_random(asked.shape, device, asked.rows)
    else:
        ours, examples = of_run(asked.run, asked.data, asked.device, asked.rows)
        ours.near = ours.near if asked.near is None else asked.near
    answer = functools.partial(ours.answer, examples)
    answer()
    clock = Clock()
    for owner, name, part in PARTS:
        clock.watch(owner, name, part)
    for _ in range(asked.passes):
        clock.spent.clear()
        begin = time.perf_counter()
        answer()
        told(clock.spent, time.perf_counter() - begin, len(examples))
    if device.type == "cuda":
        busy(answer)


def of_random(shape: str, device: torch.device, rows: int) -> tuple[Predictor, list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        family, vocabulary = SHAPES[shape].family, SHAPES[shape].config["vocab_size"]
        write_tokenizer(Path(folder), family, vocabulary)
        asked = questions("ner", Path(folder), family, vocabulary, rows, seed=1)
        model = adapted(model_maker(shape, device, choose_dtype("auto", device)))
        return predictor(model, asked), asked.examples()


def of_run(run: Path, data: str, device: str, rows: int) -> tuple[Predictor, list[Any]]:
    folder = open_folder(run)
    section = DataSection(train=data, columns=folder.told.columns, encoding=folder.told.encoding)  # type: ignore[call-arg]
    examples = [folder.task.example(row, labelled=False) for row in islice(iter_rows(data, section), rows)]
    return Predictor.open(folder, device), examples


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
