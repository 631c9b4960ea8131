"""A way to predict at work in its process, and the rows that it answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from weitiao.bench.answerer import Block
from weitiao.bench.questions import Questions
from weitiao.bench.remote import Worker


@dataclass
class Lane:
    """A way at work, and what was seen of it."""

    name: str
    worker: Worker
    folder: Path
    """Of the weights."""
    asked: Questions
    members: Sequence[int]
    sizes: Sequence[int]
    """Rows of a batch that are tried."""
    first_seconds: float = 0.0
    """From the start of the process to its first answer."""
    warm_up_seconds: float = 0.0
    rates: dict[int, float] = field(default_factory=dict)
    """Rows a second in the warm-up, by the size of a batch."""
    setting: str = ""
    blocks: list[Block] = field(default_factory=list)
    note: str | None = None
    """Why there are no blocks."""

    def start(self) -> None:
        begin = time.perf_counter()
        self.worker.ask("first", self.folder, self.asked)
        self.first_seconds = time.perf_counter() - begin
        self.warm_up()
        self.warm_up_seconds = time.perf_counter() - begin - self.first_seconds

    def warm_up(self) -> None:
        """A pass with each size."""
        for size in self.sizes:
            try:
                block = self.worker.ask("block", self.members, 0.0, size)
            except torch.cuda.OutOfMemoryError:
                if not self.rates:
                    raise
                # It holds no model now.
                self.worker.ask("first", self.folder, self.asked)
                break
            self.rates[size] = block.samples / block.seconds

    def block(self, seconds: float) -> None:
        """With the fastest size; the others at work may have left too little memory for it, then with the next one."""
        size = max(self.rates, key=lambda size: self.rates[size])
        try:
            self.blocks.append(self.worker.ask("block", self.members, seconds, size))
        except torch.cuda.OutOfMemoryError:
            del self.rates[size]
            if not self.rates:
                raise
            self.worker.ask("first", self.folder, self.asked)
            self.block(seconds)
        self.setting = self.worker.ask("setting")

    def drop(self) -> None:
        self.worker.stop()


def spread(asked: Questions, count: int) -> list[int]:
    """Rows whose lengths, answers included, are spread as all rows' are: the middle ones of equal strata."""
    ordered = sorted(range(len(asked.rows)), key=lambda at: len(asked.prompts[at]) + asked.answers[at])
    count = min(count, len(ordered))
    return [ordered[(2 * at + 1) * len(ordered) // (2 * count)] for at in range(count)]


def tried(sizes: Sequence[int], rows: int) -> list[int]:
    """Sizes up to the first that holds all rows."""
    return [size for at, size in enumerate(sizes) if not at or sizes[at - 1] < rows]
