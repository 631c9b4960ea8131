"""Lanes at work by turns: one that fails says why and leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch

from weitiao.bench.measure import interleaved
from weitiao.bench.remote import WorkerFailed
from weitiao.bench.request import Asked
from weitiao.tracking.screen import Screen


class AnyLane(Protocol):
    """Of training steps or of predictions."""

    name: str
    note: str | None
    """Why there are no blocks."""
    blocks: list[Any]

    def block(self, seconds: float) -> None: ...

    def drop(self) -> None:
        """Free its memory, or end its process."""


LaneT = TypeVar("LaneT", bound=AnyLane)


def guarded(lane: LaneT, work: Callable[[LaneT], None]) -> bool:
    """Do it; where the card's memory is too small or the lane's process fails, the lane says so and is dropped."""
    try:
        work(lane)
        return True
    except torch.cuda.OutOfMemoryError:
        lane.note = "out of memory"
    except WorkerFailed as failed:
        lane.note = str(failed)
    # Outside of the handler, whose traceback would keep tensors alive.
    lane.blocks.clear()
    lane.drop()
    return False


def blocks_in_turn(lanes: Sequence[AnyLane], request: Asked, screen: Screen) -> None:
    """The blocks of all lanes that have not failed, each told of."""

    def block(lane: AnyLane) -> None:
        if lane.note is not None:
            return
        if guarded(lane, lambda lane: lane.block(request.seconds)):
            last = lane.blocks[-1]
            screen.note(f"{lane.name}: {last.samples / last.seconds:.2f} samples/s")
        else:
            screen.note(f"{lane.name}: {lane.note}")

    interleaved(lanes, request.repeats, block)
