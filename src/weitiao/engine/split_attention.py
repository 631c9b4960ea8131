"""Attention of a pack on a card. Packs of short rows, of trees, and in float32 go to kernels of our own
(`row_attention`); else the flash kernel is called twice: each row over itself, and all rows over the prefix.

    own      the prefix and the rows as sequences of their own, causal
    shared   the rows' queries, in chunks of equal size, over the prefix's keys

Softmax is of both together: outputs are weighted by the log-sum-exps. The kernel's backward pass takes the output and
log-sum-exp of the whole, and from these it finds each part's own share of the probabilities, so that its gradients are
exact and need no correction. No key is gathered once for every row, and no gradient is scattered back.

Where sequences lie is a tensor of fixed size, of which the end is unused: one CUDA graph serves all packs of a size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HALF = (torch.bfloat16, torch.float16)
POWERS = (16, 32, 64, 128)
"""Sizes of a head that our own kernels take; wider ones want more shared memory than smaller cards have."""
CHUNK = 256
"""Most queries in a chunk: enough chunks fill a card, whose kernel walks along a chunk in one place."""
SHORT = 512
"""Tokens of the longest row up to which our own kernels are faster."""
LONGEST_TREE = 8192
"""Tokens of the longest row with a tree: what each token sees are so many bits, in a table that the host makes."""
BLOCK = 64
"""Queries that a program of theirs takes."""
SECOND_CALL = 0.05
"""Share of a step's time that the call for the prefix takes where rows are long: of the attention of Qwen2-1.5B, which
is a quarter of a step with rows of 1,000 to 4,000 tokens, a fifth (docs/decisions/0012)."""


@dataclass(frozen=True)
class SplitLayout:
    prefix: int
    starts: torch.Tensor
    """int32 [sequences + 1]: where the prefix (if any) and each row begin, and the end, which unused ones repeat."""
    longest: int
    """No sequence is longer."""
    blocks: torch.Tensor
    """int32 [n, 3], of each block of a sequence its first token, and where the sequence begins and ends; unused ones
    are zeros."""
    trees: torch.Tensor | None = None
    """int64 [words, T], where a row is a tree: bit j % 64 of word j // 64 says whether a token sees token j of its row
    (or of the prefix, for one of its own). None: each sees all up to itself."""
    flash: bool = True
    """Whether the flash kernel takes it, which knows no trees."""

    def own(self, dtype: torch.dtype, heads: Heads, kernels: ModuleType) -> bool:
        """Whether our own kernels take it: what is short, and what the flash kernel does not know."""
        able = kernels.row_attention is not None and heads.size in POWERS
        return able and (self.longest <= SHORT or not self._flash(dtype))

    def takes(self, dtype: torch.dtype, heads: Heads, kernels: ModuleType) -> bool:
        """Whether it can be computed here."""
        return self._flash(dtype) or self.own(dtype, heads, kernels)

    def _flash(self, dtype: torch.dtype) -> bool:
        """It knows 16 bits only."""
        return self.flash and dtype in HALF

    def to(self, device: torch.device) -> SplitLayout:
        def moved(x: torch.Tensor) -> torch.Tensor:
            # From memory that is not pinned a card copies only when it is idle, and the host waits for it.
            return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)

        trees = None if self.trees is None else moved(self.trees)
        return replace(self, starts=moved(self.starts), blocks=moved(self.blocks), trees=trees)


Parents = Sequence[int] | None
"""Of a tree's tokens: the index of each one's predecessor, which stands before it, or -1. None: a plain sequence."""


def split_layout(
    prefix: int, lengths: Sequence[int], sequences: int = 0, longest: int = 0, parents: Sequence[Parents] = ()
) -> SplitLayout:
    """For a prefix and rows of these lengths, on the host; room for so many sequences of at most so many tokens.
    parents: of each row, where there are trees."""
    sizes = [prefix, *lengths] if prefix else list(lengths)
    sequences, longest = max(sequences, len(sizes)), max([longest, *sizes])
    ends = list(accumulate(sizes))
    starts = [0, *ends, *[ends[-1]] * (sequences - len(sizes))]
    blocks: list[tuple[int, int, int]] = []
    for size, end in zip(sizes, ends, strict=True):
        blocks += [(first, end - size, end) for first in range(end - size, end, BLOCK)]
    blocks += [(0, 0, 0)] * (ends[-1] // BLOCK + sequences - len(blocks))
    tree, trees = any(row is not None for row in parents), None
    if tree:
        rows = [range(-1, size - 1) if row is None else row for size, row in zip(lengths, parents, strict=True)]
        trees = _seen([range(-1, prefix - 1), *rows] if prefix else rows)
    begins, of_blocks = (torch.tensor(values, dtype=torch.int32) for values in (starts, blocks))
    return SplitLayout(prefix, begins, longest, of_blocks, trees, flash=not tree)


def _seen(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Words of bits as `SplitLayout.trees` has them, from the parents of each sequence's tokens."""
    total, most = sum(map(len, sequences)), max(map(len, sequences))
    words = -(-most // 64)
    table, chains = np.zeros((words, total), np.int64), _chains(words)
    start = 0
    for parents in sequences:
        # Most of a row is no fork.
        chain = next((at for at, parent in enumerate(parents) if parent != at - 1), len(parents))
        table[:, start : start + chain] = chains[:, :chain]
        # Numbers of any length, for it is quicker than numpy for a token's few words.
        seen: list[int] = []
        for at, parent in enumerate(parents[chain:], chain):
            before = seen[parent - chain] if parent >= chain else (1 << parent + 1) - 1
            seen.append(before | 1 << at)
        found = b"".join([token.to_bytes(words * 8, "little") for token in seen])
        table[:, start + chain : start + len(parents)] = np.frombuffer(found, "<i8").reshape(-1, words).T
        start += len(parents)
    return torch.from_numpy(table)


@lru_cache(maxsize=8)
def _chains(words: int) -> NDArray[np.int64]:
    """[words, 64 words]: what each token of a plain sequence sees, itself included."""
    bits = np.tri(64 * words, dtype=np.uint8)
    return np.packbits(bits, axis=1, bitorder="little").view("<i8").T.astype(np.int64)


def worth_sharing(prefix: int, lengths: Sequence[int]) -> bool:
    """Whether rows of these lengths behind a prefix take less time when they share it: in the kernels for long rows it
    is a call of its own."""
    return prefix * len(lengths) >= SECOND_CALL * sum(length for length in lengths if length > SHORT)


@dataclass(frozen=True)
class Heads:
    query: int
    key: int
    size: int
    scaling: float
    interleaved: bool
    """Whether neighbours are rotated against each other, or the halves of a head."""

    def parts(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[T, (H + 2 Hk) D] → [T, H, D], [T, Hk, D], [T, Hk, D]."""
        q, k, v = qkv.unflatten(1, (-1, self.size)).split([self.query, self.key, self.key], dim=1)
        return q, k, v


class SplitAttention(torch.autograd.Function):
    """qkv [T, (H + 2 Hk) D] of one product, rotated in place here → [T, H D + pad]."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        heads: Heads,
        layout: SplitLayout,
        pad: int,
        kernels: ModuleType,
    ) -> torch.Tensor:
        qkv = qkv.detach()
        kernels.rotate_(
            qkv.unflatten(1, (-1, heads.size))[:, : heads.query + heads.key], cos, sin, heads.interleaved, 1
        )
        ctx.heads, ctx.layout, ctx.kernels = heads, layout, kernels
        ctx.own = layout.own(qkv.dtype, heads, kernels)
        if ctx.own:
            counts = (heads.query, heads.key, heads.size)
            told = (layout.blocks, layout.prefix, counts, heads.scaling, pad, layout.trees)
            out, lse = kernels.row_attention.forward(qkv, *told)
            ctx.save_for_backward(qkv, cos, sin, out, lse)
            return out
        q, k, v = heads.parts(qkv)
        first, first_lse = flash_forward(q, k, v, layout, heads.scaling)
        second_lse = None
        if layout.prefix:
            second, second_lse = flash_forward(*_shared(q, k, v, layout.prefix), None, heads.scaling)
            out, first_lse, second_lse = kernels.merge(first, first_lse, second.flatten(0, 1), second_lse, pad)
        else:
            out = first.new_empty(len(first), heads.query * heads.size + pad)
            out[:, : heads.query * heads.size] = first.flatten(1)
        ctx.save_for_backward(qkv, cos, sin, out, first_lse, second_lse)
        return out

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        heads, layout = ctx.heads, ctx.layout
        if layout.trees is not None:
            raise NotImplementedError("attention of the way `split` has no gradient through trees; `rows` has")
        if ctx.own:
            qkv, cos, sin, out, lse = ctx.saved_tensors
            counts = (heads.query, heads.key, heads.size)
            told = (layout.blocks, layout.prefix, counts, heads.scaling)
            whole = ctx.kernels.row_attention.backward(g, qkv, out, lse, *told)
            turned = whole.unflatten(1, (-1, heads.size))[:, : heads.query + heads.key]
            ctx.kernels.rotate_(turned, cos, sin, heads.interleaved, -1)
            return whole, *[None] * 6
        qkv, cos, sin, out, first_lse, second_lse = ctx.saved_tensors
        width, prefix = heads.query * heads.size, layout.prefix
        q, k, v = heads.parts(qkv)
        g, out = (x[:, :width].unflatten(1, (heads.query, heads.size)) for x in (g, out))
        own = flash_backward(g, q, k, v, out, first_lse, layout, heads.scaling)
        shared = None
        if prefix:
            g, out = (x[prefix:].unflatten(0, (-1, second_lse.shape[-1])) for x in (g, out))
            dq, dk, dv = flash_backward(g, *_shared(q, k, v, prefix), out, second_lse, None, heads.scaling)
            shared = dq.flatten(0, 1), dk.sum(0, dtype=torch.float32), dv.sum(0, dtype=torch.float32)
        return ctx.kernels.heads_gradient(own, shared, cos, sin, heads.interleaved), *[None] * 6


def _shared(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, prefix: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows' queries in chunks [chunks, C, H, D]; the prefix's keys and values for each [chunks, prefix, Hk, D]."""
    own = len(q) - prefix
    q = q[prefix:].unflatten(0, (-1, math.gcd(own, CHUNK)))
    return q, k[:prefix].expand(len(q), -1, -1, -1), v[:prefix].expand(len(q), -1, -1, -1)


def flash_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: SplitLayout | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output like q and log-sum-exp float32, [H, T] of causal sequences, [B, H, C] of a batch that sees all keys."""
    starts, longest_q, longest_k = _bounds(q, k, layout)
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        *(q, k, v, starts, starts, longest_q, longest_k, 0.0, layout is not None, False), scale=scaling
    )
    return out, lse


def flash_backward(
    g: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    layout: SplitLayout | None,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v. `out` and `lse` may be those of more keys than these."""
    starts, longest_q, longest_k = _bounds(q, k, layout)
    unused = torch.zeros(2, dtype=torch.uint64, device=q.device)
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        *(g, q, k, v, out, lse, starts, starts, longest_q, longest_k, 0.0, layout is not None, unused, unused),
        scale=scaling,
    )
    return dq, dk, dv


def _bounds(q: torch.Tensor, k: torch.Tensor, layout: SplitLayout | None) -> tuple[torch.Tensor | None, int, int]:
    if layout is None:
        return None, q.shape[1], k.shape[1]
    return layout.starts, layout.longest, layout.longest
