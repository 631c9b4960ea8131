"""`Rows` on a CPU where no gradient is wanted.

What the tokens ask, see and get is gathered head by head, for all groups of rows at once, so that nothing has to be put
in order on the way. The scores of short rows are made, turned into shares and multiplied in one buffer, which takes
less time than torch's attention does with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from weitiao.engine.attention_ways import Alike

FEW = 2**17
"""Most scores of a row's heads with one key for which the buffer is faster: half a megabyte, which stays in caches."""


class RowProducts:
    def __init__(self, groups: Sequence[Alike], order: torch.Tensor) -> None:
        """order: where the pack's tokens are in the groups' rows, padding included, one behind the other."""
        self.groups, self.order = groups, order
        self._places: dict[tuple[int, ...], list[torch.Tensor]] = {}

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """query [T, H, D]; key, value [T, Hk, D] → [T, H, D]."""
        heads, keys, size = query.shape[1], key.shape[1], query.shape[2]
        sources, steps = zip(*map(_by_heads, (query, key, value)), strict=True)
        shape = heads, keys, *steps
        if shape not in self._places:
            self._places[shape] = self._placed(*shape)
        *places, back = self._places[shape]
        q, k, v = (source.index_select(0, place) for source, place in zip(sources, places, strict=True))
        out = torch.empty_like(q)
        asking = [group.own.numel() * heads for group in self.groups]
        seen = [group.seen.numel() * keys for group in self.groups]
        parts = q.split(asking), k.split(seen), v.split(seen), out.split(asking)
        for group, *of_rows in zip(self.groups, *parts, strict=True):
            one, two, three, result = (part.view(len(group.own), keys, -1, size) for part in of_rows)
            _attend_(one, two, three, result, group.bias(q.dtype, heads // keys), scaling)
        return out.index_select(0, back).view(-1, heads, size)

    def _placed(self, heads: int, keys: int, *steps: int) -> list[torch.Tensor]:
        """Where the groups' heads of q, of k and of v are in what `_by_heads` gives, of a group's rows [R, H, S] and
        [R, Hk, P + S], flat; and where the pack's heads are in what comes out, which is in the order of q."""
        each, each_key = torch.arange(heads)[:, None], torch.arange(keys)[:, None]
        q, k, v = steps
        asked = [(group.own[:, None] * q + each).flatten() for group in self.groups]
        seen = [[(group.seen[:, None] * step + each_key).flatten() for group in self.groups] for step in (k, v)]
        out, start = [], 0
        for group in self.groups:
            rows, width = group.own.shape
            places = start + torch.arange(rows * heads * width).view(rows, heads, width)
            out.append(places.transpose(1, 2).flatten(0, 1))
            start += places.numel()
        return [*map(torch.cat, (asked, *seen)), torch.cat(out)[self.order].flatten()]


def _by_heads(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """[T, n, D] → its heads one below the other, [.., D], and from how many of them to the next token's. Where tokens
    have other heads between, those are there, too, and nothing is copied."""
    tokens, heads, size = x.shape
    step, rest = divmod(x.stride(0), size)
    if rest or x.stride()[1:] != (size, 1):
        x, step = x.contiguous(), heads
    return x.as_strided(((tokens - 1) * step + heads, size), (size, 1)), step


def _attend_(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, bias: torch.Tensor, scaling: float
) -> None:
    """q, out [R, Hk, n, D]; k, v [R, Hk, K, D]; bias [n, K] or [R, 1, n, K]; all but the bias without gaps."""
    if q.dtype != torch.float32 or q.shape[2] * k.shape[2] > FEW:
        out.copy_(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling))
        return
    q, k, v, out = (x.flatten(0, 1) for x in (q, k, v, out))
    shares = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scaling)
    shares.unflatten(0, (len(bias) if bias.ndim > 2 else 1, -1)).add_(bias)
    torch.softmax(shares, -1, out=shares)
    torch.bmm(shares, v, out=out)
