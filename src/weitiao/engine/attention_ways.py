"""Three ways to compute the attention of a pack, each called with query [1, H, T, D], key and value [1, Hk, T, D] →
[1, T, H, D]. What they look up by is made when it is first needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from weitiao.engine.grouped import grouped_bias
from weitiao.engine.row_products import RowProducts

Parents = Sequence[Sequence[int] | None]
LONGER = 1.25
"""Times as long as its shortest row a group's longest may be: each is computed as if it were the longest."""


class Rows:
    """Every row a batch entry, with rows of about its length: keys and values of the prefix and its own gathered, one
    bottom-right causal mask. The prefix is one row more, with nothing before it."""

    def __init__(self, prefix: int, lengths: Sequence[int], parents: Parents, device: torch.device) -> None:
        starts = [prefix + before for before in accumulate(lengths, initial=0)]
        self.groups = [Alike(0, [0], [prefix], [None], device)] if prefix else []
        for rows in of_one_length(lengths):
            where, sizes = [starts[i] for i in rows], [lengths[i] for i in rows]
            self.groups.append(Alike(prefix, where, sizes, [parents[i] for i in rows], device))
        padded = torch.cat([group.places for group in self.groups])
        self._order = padded.argsort(stable=True)[(padded < 0).sum() :].to(device)
        """Where the pack's tokens are in what the groups give, one behind the other."""

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        if query.device.type == "cpu" and not torch.is_grad_enabled():
            return self._products(q, k, v, scaling)[None]
        whole = torch.cat([group(q, k, v, scaling) for group in self.groups])
        return whole.index_select(0, self._order).view(1, -1, query.shape[1], query.shape[3])

    @cached_property
    def _products(self) -> RowProducts:
        return RowProducts(self.groups, self._order)


def of_one_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of rows in groups, each in order; a group's longest row is at most `LONGER` times its shortest."""
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        if not groups or lengths[groups[-1][0]] > LONGER * lengths[at]:
            groups.append([])
        groups[-1].append(at)
    return [sorted(group) for group in groups]


class Alike:
    """Rows of about the same length. starts: of each in the pack, whose tokens lie one behind the other."""

    def __init__(
        self, prefix: int, starts: Sequence[int], lengths: Sequence[int], parents: Parents, device: torch.device
    ) -> None:
        self.prefix, self.width, self.parents, self.device = prefix, max(lengths), parents, device
        begins, sizes = (torch.tensor(values)[:, None] for values in (starts, lengths))
        at = torch.arange(self.width)
        # Padding takes some token; it stands behind all of its row, so that none sees it.
        own = begins + torch.minimum(at, sizes - 1)
        self.places = torch.where(at < sizes, own, -1).flatten()
        """Of the tokens that come out, in the pack; -1 for padding."""
        self.own = own.to(device)
        """Tokens of each row, [R, S], in the pack; of a shorter one the last stands for its padding."""
        self.seen = torch.cat([torch.arange(prefix).expand(len(own), -1), own], dim=1).to(device)
        self._biases: dict[torch.dtype, torch.Tensor] = {}

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """query [T, H, D]; key, value [T, Hk, D] → [R × S, H × D] of these rows, padding included."""
        heads = key.shape[1]
        # Query heads of a key stand as queries beside each other, so that no key is copied for each of them.
        q = _tokens(query, self.own).unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        k, v = (_tokens(x, self.seen).transpose(1, 2) for x in (key, value))
        bias = self.bias(query.dtype, query.shape[1] // heads)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling)
        return out.unflatten(2, (-1, self.width)).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1)

    def bias(self, dtype: torch.dtype, groups: int) -> torch.Tensor:
        """[groups × S, prefix + S], or [R, 1, groups × S, prefix + S] with trees; 0 where a token may look."""
        if dtype not in self._biases:
            own = torch.ones(self.width, self.width, dtype=torch.bool).tril()
            if any(parents is not None for parents in self.parents):
                own = torch.stack([_tree_mask(parents, self.width) for parents in self.parents])[:, None]
            seen = torch.ones(*own.shape[:-1], self.prefix, dtype=torch.bool)
            self._biases[dtype] = grouped_bias(torch.cat([seen, own], dim=-1), dtype, groups).to(self.device)
        return self._biases[dtype]


def _tokens(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """[T, heads, D] → [R, S, heads, D]: a token's heads, which lie beside each other, are copied at once."""
    return x.flatten(1).index_select(0, index.flatten()).view(*index.shape, *x.shape[1:])


class Varlen:
    """torch's variable-length kernel over gathered [prefix | row] K/V. It knows causal rows only."""

    def __init__(self, prefix: int, lengths: Sequence[int], device: torch.device) -> None:
        self.prefix, self.lengths, self.device = prefix, lengths, device

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn

        index, starts_q, starts_k, longest_q, longest_k = self._layout
        keys = key[0].transpose(0, 1).index_select(0, index)
        values = value[0].transpose(0, 1).index_select(0, index)
        out: Any = varlen_attn(
            query[0].transpose(0, 1).contiguous(),
            keys,
            values,
            starts_q,
            starts_k,
            longest_q,
            longest_k,
            scale=scaling,
            window_size=(-1, 0),  # causal, aligned at the bottom right
            **_grouped(varlen_attn),
        )
        return out[None]

    @cached_property
    def _layout(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]:
        """Gather index of K/V; cumulative lengths of queries and keys (int32); their maxima."""
        queries = ([self.prefix] if self.prefix else []) + list(self.lengths)
        shared = torch.arange(self.prefix)
        index = [shared] if self.prefix else []
        start = self.prefix
        for length in self.lengths:
            index += [shared, torch.arange(start, start + length)]
            start += length
        keys = ([self.prefix] if self.prefix else []) + [self.prefix + length for length in self.lengths]
        return (
            torch.cat(index).to(self.device),
            _starts(queries, self.device),
            _starts(keys, self.device),
            max(queries),
            max(keys),
        )


class Dense:
    """One T × T mask."""

    def __init__(self, prefix: int, lengths: Sequence[int], parents: Parents, device: torch.device) -> None:
        self.prefix, self.lengths, self.parents, self.device = prefix, lengths, parents, device

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        groups = query.shape[1] // key.shape[1]
        heads = query, _repeat(key, groups), _repeat(value, groups)
        out = F.scaled_dot_product_attention(*heads, attn_mask=self._bias.to(query.dtype), scale=scaling)
        return out.transpose(1, 2)

    @cached_property
    def _bias(self) -> torch.Tensor:
        total = self.prefix + sum(self.lengths)
        mask = torch.zeros(total, total, dtype=torch.bool)
        mask[: self.prefix, : self.prefix] = torch.ones(self.prefix, self.prefix, dtype=torch.bool).tril()
        mask[self.prefix :, : self.prefix] = True
        start = self.prefix
        for length, parents in zip(self.lengths, self.parents, strict=True):
            mask[start : start + length, start : start + length] = _tree_mask(parents, length)
            start += length
        return torch.zeros(total, total).masked_fill_(~mask, torch.finfo(torch.float32).min).to(self.device)


@cache
def _grouped(kernel: Any) -> dict[str, Any]:
    """torch 2.11 takes grouped heads as they are; later releases want to be told."""
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(kernel).parameters else {}


def _repeat(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Key and value heads, once for every query head of their group."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _tree_mask(parents: Sequence[int] | None, width: int) -> torch.Tensor:
    """bool [width, width]: each token sees its ancestors and itself; padding sees everything before it."""
    mask = np.tri(width, dtype=bool)
    after = list(parents or ())
    # Up to the first branch, a token's ancestors are all that stand before it.
    branch = next((at for at, parent in enumerate(after) if parent != at - 1), len(after))
    for at in range(branch, len(after)):
        mask[at] = mask[after[at]] if after[at] >= 0 else False
        mask[at, at] = True
    return torch.from_numpy(mask)


def _starts(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.cat([torch.zeros(1), torch.tensor(lengths).cumsum(0)]).to(torch.int32).to(device)
