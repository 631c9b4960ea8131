"""A training step on a card started as a whole: what launches a thousand kernels is recorded once as a CUDA graph.

A graph computes on fixed addresses and fixed sizes. Packs of about the same size are brought to one by rows of filler
at their end, of which nothing is read, and by reads that no label wants; where the rows lie is data (see
`split_attention`). A size is recorded behind the first pack that needs it, which is computed kernel by kernel. All
graphs share one pool of memory, for none needs what another left there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from weitiao.data.collate import Batch, packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine.attention_plan import AttentionPlan
from weitiao.engine.forward import Forward
from weitiao.engine.room import GRAIN, recorded
from weitiao.engine.split_attention import SplitLayout, split_layout
from weitiao.engine.supervised_loss import UNSUPERVISED, answer_loss

PADDING = 0.4
"""Most filler that a pack gets, as a share of its own tokens. On average a long run has a few percent, for filler takes
time."""
RECORDING = 16_000
"""Tokens that are computed in the time in which a size is recorded: 0.2 s, of Qwen2-1.5B on an H100. Larger models
would gain by more sizes, smaller ones by fewer."""
MOST = 48
"""Sizes that are recorded; packs that fit none of them are computed kernel by kernel."""
READS = 64
"""Reads of a size are a multiple of this."""


@dataclass(frozen=True)
class Size:
    """What a pack holds, or what a recorded one may."""

    prefix: int
    own: int
    """Tokens behind the prefix, filler among them."""
    rows: int
    """Sequences, the prefix and filler among them."""
    longest: int
    reads: int

    @classmethod
    def of(cls, pack: Pack) -> Size:
        own, reads = sum(len(row.ids) for row in pack.rows), sum(len(row.keep) for row in pack.rows)
        longest = max(len(pack.prefix), *(len(row.ids) for row in pack.rows))
        return cls(len(pack.prefix), own, len(pack.rows) + bool(pack.prefix), longest, reads)

    @classmethod
    def around(cls, needs: Sequence[Size]) -> Size:
        """One that holds all of them, of one prefix, and a little more."""
        most = max(need.own for need in needs)
        own = recorded(most)
        longest = 1 << (max(need.longest for need in needs) - 1).bit_length()
        rows = max(need.rows + -(-(own - need.own) // longest) for need in needs)
        reads = max(need.reads for need in needs)
        return cls(needs[0].prefix, own, _rounded(rows + rows // 16, 8), longest, _rounded(reads + reads // 32, READS))

    def holdable(self, own: int) -> bool:
        """Whether a pack of this size may be brought to `own` tokens."""
        return own <= max(self.own * (1 + PADDING), _rounded(self.own, GRAIN))

    def holds(self, need: Size) -> bool:
        fillers = -(-(self.own - need.own) // self.longest)
        return (
            self.prefix == need.prefix
            and need.own <= self.own
            and need.holdable(self.own)
            and need.rows + fillers <= self.rows
            and need.longest <= self.longest
            and need.reads <= self.reads
        )

    def filled(self, pack: Pack) -> Pack:
        """The pack with rows of filler at its end."""
        left = self.own - sum(len(row.ids) for row in pack.rows)
        lengths = [min(self.longest, left - start) for start in range(0, left, self.longest)]
        return replace(pack, rows=(*pack.rows, *(PackRow((0,) * length, ()) for length in lengths)))

    def batch(self, pack: Pack) -> Batch:
        """The filled pack with as many reads as there are."""
        batch = packed_batch(self.filled(pack))
        more = (0, self.reads - len(batch.keep))
        return replace(batch, keep=F.pad(batch.keep, more), labels=F.pad(batch.labels, more, value=UNSUPERVISED))

    def layout(self, batch: Batch) -> SplitLayout:
        return split_layout(self.prefix, batch.lengths, self.rows, self.longest)


def planned(needs: Sequence[Size], packs: int) -> list[Size]:
    """Sizes for these packs and others like them, of which there will be `packs`; the largest first.

    Those that take the least time, to record them and to compute their filler.
    """
    by_prefix: dict[int, list[Size]] = defaultdict(list)
    for need in needs:
        by_prefix[need.prefix].append(need)
    repeated = packs / len(needs)
    sizes = [Size.around(near) for group in by_prefix.values() for near in _parted(group, repeated)]
    return sorted(sizes, key=lambda size: size.prefix + size.own, reverse=True)


def _parted(needs: Sequence[Size], repeated: float) -> list[list[Size]]:
    """In groups that share a size. repeated: packs that each of them stands for."""
    alike: dict[int, list[Size]] = defaultdict(list)
    for need in needs:
        alike[Size.around([need]).own].append(need)
    steps = sorted(alike)
    # Of the first so many steps, the least time, and where its last group begins.
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(steps) + 1):
        own, found, filler = steps[end - 1], [], 0.0
        for start in range(end - 1, -1, -1):
            members = alike[steps[start]]
            if start < end - 1 and not min(members, key=lambda need: need.own).holdable(own):
                break
            filler += sum(own - need.own for need in members) * repeated
            found.append((best[start][0] + RECORDING + filler, start))
        best.append(min(found))
    groups, end = [], len(steps)
    while end:
        start = best[end][1]
        groups.append([need for step in steps[start:end] for need in alike[step]])
        end = start
    return groups


class PackGraphs:
    """Adds the gradient of packs to that of the parameters, which stays where it is."""

    def __init__(
        self, forward: Forward, parameters: Sequence[torch.nn.Parameter], needs: Sequence[Size], packs: int
    ) -> None:
        """forward: with layers of our own, on a card, the attention `split`. needs: of some of the `packs` to come."""
        self.forward, self.parameters = forward, parameters
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.gradients: list[Any] = [parameter.grad for parameter in parameters]
        self.share = torch.zeros((), device=forward.device)
        self.loss = torch.zeros((), device=forward.device)
        """Sum over the packs since it was last set to zero."""
        self._sizes = planned(needs, packs)
        self._recorded: list[_SizedGraph] = []
        self._pool: Any = None

    def add(self, pack: Pack, share: float) -> None:
        """share: what the loss is multiplied with; one over the answer tokens of the step."""
        if not self._recorded:
            self._begin()
        need = Size.of(pack)
        recorded = self._fitting(need)
        self.share.fill_(share)
        recorded.load(self.forward, pack)
        if recorded.graph is None:
            self._compute(recorded)
        else:
            recorded.graph.replay()

    def rest(self) -> None:
        """Give the graphs' memory back; what is needed of them is recorded again."""
        self._recorded.clear()
        self._pool = None
        torch.cuda.empty_cache()

    def wake(self) -> None:
        """Record all planned sizes now."""
        if not self._recorded:
            self._begin()
        there = {recorded.size for recorded in self._recorded}
        for size in self._sizes[:MOST]:
            if size not in there:
                self._record(size)

    def _begin(self) -> None:
        """Build all kernels on a pack that counts for nothing, then record the largest size: the others find room in
        what it leaves."""
        small = Pack((), (PackRow((0,) * GRAIN, (0,), (0,)),))
        held = _SizedGraph(self.forward, Size.around([Size.of(small)]))
        held.load(self.forward, small)
        self.share.zero_()
        self._compute(held)
        # Between two steps there is no gradient yet; 0 × NaN would be one.
        torch._foreach_zero_(self.gradients)
        self.loss.zero_()
        del held
        self._record(self._sizes[0])

    def _fitting(self, need: Size) -> _SizedGraph:
        fitting = [recorded for recorded in self._recorded if recorded.size.holds(need)]
        sizes = [size for size in self._sizes if size.holds(need)]
        least = min((recorded.size.own for recorded in fitting), default=0)
        if fitting and (not sizes or least <= min(size.own for size in sizes)):
            return next(recorded for recorded in fitting if recorded.size.own == least)
        if len(self._recorded) >= MOST:
            return fitting[0] if fitting else _SizedGraph(self.forward, Size.around([need]))
        return self._record(min(sizes, key=lambda size: size.own) if sizes else Size.around([need]))

    def _record(self, size: Size) -> _SizedGraph:
        recorded = _SizedGraph(self.forward, size)
        recorded.graph = record(lambda: self._compute(recorded), self._pool)
        self._pool = recorded.graph.pool()
        self._recorded.append(recorded)
        return recorded

    def _compute(self, held: _SizedGraph) -> None:
        forward = self.forward
        assert forward.fast is not None
        hidden = forward.fast(held.embedded, held.positions, held.plan, held.keep)
        loss = answer_loss(hidden, forward.head, held.labels, forward.kernels) * self.share
        torch._foreach_add_(self.gradients, list(torch.autograd.grad(loss, self.parameters)))
        self.loss += loss.detach()


class _SizedGraph:
    """A graph and what it reads."""

    def __init__(self, forward: Forward, size: Size) -> None:
        self.size = size
        self.graph: torch.cuda.CUDAGraph | None = None
        device, total = forward.device, size.prefix + size.own
        weight = forward.model.get_input_embeddings().weight
        rope = getattr(forward.body.config, "rope_parameters", None) or {}
        kinds = (3,) if rope.get("mrope_section") else ()
        self.embedded = torch.zeros(total, weight.shape[1], dtype=weight.dtype, device=device)
        self.positions = torch.zeros(*kinds, 1, total, dtype=torch.long, device=device)
        self.keep, self.labels = (torch.zeros(size.reads, dtype=torch.long, device=device) for _ in range(2))
        # Any pack of this size gives tables of this size.
        whole, left = divmod(size.own, size.longest)
        lengths = [size.longest] * whole + [left] * bool(left)
        self.layout = split_layout(size.prefix, lengths, size.rows, size.longest).to(device)
        self.plan = AttentionPlan(size.prefix, (), (), device, "split")
        # What the plan would find from the lengths of one pack.
        self.plan.__dict__["split"] = self.layout

    def load(self, forward: Forward, pack: Pack) -> None:
        """Put a pack where the graph reads it. Nothing here waits for the card."""
        batch = self.size.batch(pack)
        layout = self.size.layout(batch)
        self.layout.starts.copy_(layout.starts.pin_memory(), non_blocking=True)
        self.layout.blocks.copy_(layout.blocks.pin_memory(), non_blocking=True)
        batch = batch.pinned().to(forward.device)
        with torch.no_grad():
            self.embedded.copy_(forward.embedded(batch)[0])
        for name in ("positions", "keep", "labels"):
            getattr(self, name).copy_(getattr(batch, name))


class RecordedCall:
    """A function of no arguments that computes on fixed addresses: at first kernel by kernel, then as a graph."""

    def __init__(self, function: Callable[[], None], pool: Any = None, plain: int = 1) -> None:
        """pool: memory of other graphs, to be shared, where none needs what another left there. plain: how many calls
        are no graph: none where its kernels are there."""
        self.function, self.pool, self.plain = function, pool, plain
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.plain > 0:
            self.function()
            self.plain -= 1
            return
        if self.graph is None:
            self.graph = record(self.function, self.pool)
        self.graph.replay()


def record(function: Callable[[], None], pool: Any = None) -> torch.cuda.CUDAGraph:
    """What the function starts on the card, which does not happen yet. pool: memory of other graphs, to be shared."""
    graph = torch.cuda.CUDAGraph()
    # Kernels that are not built yet are loaded meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="relaxed"):
        function()
    return graph


def _rounded(count: int, grain: int) -> int:
    return -(-count // grain) * grain
