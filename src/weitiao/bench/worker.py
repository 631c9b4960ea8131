"""A process for one system that patches what others use: the side that computes (`remote.py` is the other).

    python -m weitiao.bench.worker MODULE_OF_THE_SYSTEM SHAPE DEVICE [FIRST_IMPORT]

Pickled (order, arguments) come on standard input, pickled (state, value) go back on standard output, so that nothing
but the bench that started it talks to it. Whatever else is printed goes to standard error. torch is imported after
FIRST_IMPORT, which may want to set it up.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from weitiao.types import Encoded

if TYPE_CHECKING:
    from weitiao.bench.equality import Gradients
    from weitiao.bench.measure import Block, Lane
    from weitiao.bench.shapes import ModelMaker
    from weitiao.bench.system import Settings, System

DONE, OUT_OF_MEMORY, FAILED = "done", "out of memory", "failed"


class Orders(Protocol):
    """What a process does: each order is a method."""

    def drop(self) -> None:
        """Give back what is held."""


class Bench:
    """What the orders do; between them the device's memory holds one lane, without torch's pool."""

    def __init__(self, module: str, shape: str, device: str) -> None:
        import torch

        self.module, self.shape, self.device = module, shape, torch.device(device)
        self.lane: Lane | None = None

    def gradients(self, folder: Path, samples: Sequence[Encoded]) -> Gradients:
        from weitiao.bench import equality

        found = equality.gradients(self._system(), self._maker(folder), samples)
        return {name: gradient.cpu() for name, gradient in found.items()}

    def warm_up(
        self, folder: Path, samples: Sequence[Encoded], prefix: int, settings: Settings
    ) -> tuple[int, float, int, list[Any]]:
        """The lane's steps, seconds and samples of the warm-up, and first losses."""
        from weitiao.bench.measure import Lane

        make = self._maker(folder)
        lane = self.lane = Lane(self.module, self._system(), samples, prefix, settings, self.device)
        lane.warm_up(make)
        return lane.steps, lane.warm_up_seconds, lane.warm_up_samples, [loss.cpu() for loss in lane.losses]

    def block(self, seconds: float) -> Block:
        assert self.lane is not None, "a block comes after a warm-up"
        self.lane.block(seconds)
        return self.lane.blocks[-1]

    def drop(self) -> None:
        self.lane = None

    def _system(self) -> System:
        system: System = importlib.import_module(self.module).SYSTEM()
        return system

    def _maker(self, folder: Path) -> ModelMaker:
        from weitiao.bench.shapes import saved_maker

        make = saved_maker(self.shape, folder, self.device)
        if not self._system().loads_itself:
            # The warm-up's clock is not to see the disk, for it does not with the systems in the bench's own process.
            _ = make.master
        return make


def answer(bench: Orders, order: str, arguments: Sequence[Any]) -> tuple[str, Any]:
    import torch

    from weitiao.bench.measure import free

    told: tuple[str, Any]
    try:
        told = DONE, getattr(bench, order)(*arguments)
    except torch.cuda.OutOfMemoryError:
        told = OUT_OF_MEMORY, None
    except Exception as error:
        traceback.print_exc()
        told = FAILED, f"{type(error).__name__}: {error}"
    # Outside of the handler, whose traceback would keep tensors alive.
    if told[0] != DONE:
        bench.drop()
    free()
    return told


def serve(orders: BinaryIO, answers: BinaryIO, bench: Orders) -> None:
    while True:
        try:
            order, arguments = pickle.load(orders)
        except EOFError:
            return
        pickle.dump(answer(bench, order, arguments), answers)
        answers.flush()


def own_output() -> BinaryIO:
    """This process's standard output, which nothing that is printed from now on reaches."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def main(module: str, shape: str, device: str, first_import: str | None = None) -> None:
    answers = own_output()
    if first_import is not None:
        importlib.import_module(first_import)
    serve(sys.stdin.buffer, answers, Bench(module, shape, device))


if __name__ == "__main__":
    main(*sys.argv[1:])
