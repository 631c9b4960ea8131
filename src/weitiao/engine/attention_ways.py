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

from weitiao.engine.grouped import grouped_bias, grouped_sdpa

Parents = Sequence[Sequence[int] | None]
LONGER = 1.5
"""Times as long as its shortest row a group's longest may be: each is computed as if it were the longest."""


class Rows:
    """Every row a batch entry, with rows of about its length: prefix K/V expanded, own K/V gathered, one bottom-right
    causal mask."""

    def __init__(self, prefix: int, lengths: Sequence[int], parents: Parents, device: torch.device) -> None:
        self.prefix, self.lengths, self.parents, self.device = prefix, lengths, parents, device
        self._prefix_bias: dict[torch.dtype, torch.Tensor] = {}

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        own = [alike(query, key, value, scaling) for alike in self._alike]
        out = torch.cat(own)[self._order] if len(own) > 1 else own[0]
        if not self.prefix:
            return out[None]
        q, k, v = (x[:, :, : self.prefix] for x in (query, key, value))
        if query.dtype not in self._prefix_bias:
            seen = torch.ones(self.prefix, self.prefix, dtype=torch.bool).tril()
            bias = grouped_bias(seen, query.dtype, query.shape[1] // key.shape[1])
            self._prefix_bias[query.dtype] = bias.to(self.device)
        shared = grouped_sdpa(q, k, v, self._prefix_bias[query.dtype], scaling)
        return torch.cat([shared.transpose(1, 2), out[None]], dim=1)

    @cached_property
    def _alike(self) -> list[_Alike]:
        starts = [self.prefix + before for before in accumulate(self.lengths, initial=0)]
        return [
            _Alike(
                self.prefix,
                [starts[i] for i in rows],
                [self.lengths[i] for i in rows],
                [self.parents[i] for i in rows],
                self.device,
            )
            for rows in of_one_length(self.lengths)
        ]

    @cached_property
    def _order(self) -> torch.Tensor:
        """Where the pack's tokens behind the prefix are in what the groups give, one behind the other."""
        return torch.cat([alike.places for alike in self._alike]).argsort().to(self.device)


def of_one_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of rows in groups, each in order; a group's longest row is at most `LONGER` times its shortest."""
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        if not groups or lengths[groups[-1][0]] > LONGER * lengths[at]:
            groups.append([])
        groups[-1].append(at)
    return [sorted(group) for group in groups]


class _Alike:
    """Rows of about the same length. starts: of each in the pack, whose tokens lie one behind the other."""

    def __init__(
        self, prefix: int, starts: Sequence[int], lengths: Sequence[int], parents: Parents, device: torch.device
    ) -> None:
        self.prefix, self.lengths, self.parents, self.device = prefix, lengths, parents, device
        width = max(lengths)
        index = torch.zeros(len(lengths), width, dtype=torch.long)
        for at, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            index[at, :length] = torch.arange(start, start + length)
        valid = torch.arange(width) < torch.tensor(lengths)[:, None]
        self.places = index[valid]
        """In the pack, of the tokens that come out."""
        self._index, self._valid = index.to(device), valid.flatten().nonzero()[:, 0].to(device)
        self._bias: dict[torch.dtype, torch.Tensor] = {}

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        """[tokens, H, D] of these rows."""
        bias = self._own_bias(query.dtype, query.shape[1] // key.shape[1])
        out = grouped_sdpa(self._gather(query), self._with_prefix(key), self._with_prefix(value), bias, scaling)
        return out.transpose(1, 2).flatten(0, 1)[self._valid]

    def _gather(self, x: torch.Tensor) -> torch.Tensor:
        """[1, H, T, D] → the rows' own tokens [R, H, S, D], padded with some token that nobody sees."""
        rows, width = self._index.shape
        return x[0].index_select(1, self._index.flatten()).unflatten(1, (rows, width)).transpose(0, 1)

    def _with_prefix(self, x: torch.Tensor) -> torch.Tensor:
        own = self._gather(x)
        shared = x[:, :, : self.prefix].expand(own.shape[0], -1, -1, -1)
        return torch.cat([shared, own], dim=2)

    def _own_bias(self, dtype: torch.dtype, groups: int) -> torch.Tensor:
        """[groups × S, prefix + S], or [R, 1, groups × S, prefix + S] with trees; 0 where a token may look.

        Padding needs no mask of its own: it stands behind every token of its row.
        """
        if dtype not in self._bias:
            width = max(self.lengths)
            own = torch.ones(width, width, dtype=torch.bool).tril()
            if any(parents is not None for parents in self.parents):
                own = torch.stack([_tree_mask(parents, width) for parents in self.parents])[:, None]
            seen = torch.ones(*own.shape[:-1], self.prefix, dtype=torch.bool)
            self._bias[dtype] = grouped_bias(torch.cat([seen, own], dim=-1), dtype, groups).to(self.device)
        return self._bias[dtype]


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
