"""Packs and rows → tensors. The first room that knows torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from weitiao.data.pack import Pack, PackRow


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes.

    input_ids, positions: int64 [B, T]. keep: int64 [N], into the flattened B × T. labels: int64 [N], or [0].
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    keep: torch.Tensor
    labels: torch.Tensor
    prefix_length: int
    lengths: tuple[int, ...]
    """Own tokens of each row."""
    parents: tuple[tuple[int, ...] | None, ...]
    packed: bool
    """True: B is 1 and rows lie behind one prefix. False: a row each, padded on the right."""

    def to(self, device: torch.device) -> Batch:
        tensors = ("input_ids", "positions", "keep", "labels")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in tensors}
        return replace(self, **moved)


def packed_batch(pack: Pack) -> Batch:
    """One pack as one sequence [1, T]."""
    prefix = len(pack.prefix)
    ids, positions = list(pack.prefix), list(range(prefix))
    keep: list[int] = []
    labels: list[int] = []
    for row in pack.rows:
        start = len(ids)
        ids.extend(row.ids)
        positions.extend(prefix + depth for depth in _depths(row))
        keep.extend(start + index for index in row.keep)
        labels.extend(row.labels)
    return Batch(
        _ints(ids)[None],
        _ints(positions)[None],
        _ints(keep),
        _ints(labels),
        prefix,
        tuple(len(row.ids) for row in pack.rows),
        tuple(row.parents for row in pack.rows),
        packed=True,
    )


def padded_batch(prefix: Sequence[int], rows: Sequence[PackRow]) -> Batch:
    """The plain path: every row with its own copy of the prefix, padded on the right to the longest, [B, T]."""
    width = len(prefix) + max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    keep: list[int] = []
    labels: list[int] = []
    for at, row in enumerate(rows):
        if row.parents is not None:
            raise ValueError("a tree of answers needs a packed batch")
        whole = [*prefix, *row.ids]
        ids[at, : len(whole)] = _ints(whole)
        keep.extend(at * width + len(prefix) + index for index in row.keep)
        labels.extend(row.labels)
    positions = torch.arange(width).expand(len(rows), width)
    lengths = tuple(len(row.ids) for row in rows)
    return Batch(ids, positions, _ints(keep), _ints(labels), len(prefix), lengths, (None,) * len(rows), packed=False)


def _depths(row: PackRow) -> list[int]:
    if row.parents is None:
        return list(range(len(row.ids)))
    depths: list[int] = []
    for parent in row.parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return depths


def _ints(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long)
