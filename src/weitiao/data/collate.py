"""Packs and rows → tensors. The first room that knows torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from weitiao.data.pack import Pack, PackRow
from weitiao.types import PlacedImage


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes.

    input_ids: int64 [B, T]. positions: int64 [B, T], or [3, B, T] where there are images: by time, row and column.
    keep: int64 [N], into the flattened B × T. labels: int64 [N], or [0].
    images, and image_places: int64 [M], where their tokens stand in the flattened B × T, one image after another.
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
    images: tuple[PlacedImage, ...]
    image_places: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in TENSORS})

    def pinned(self) -> Batch:
        """In memory from which a card copies while the host goes on; from any other, it waits for the card first."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in TENSORS})


TENSORS = ("input_ids", "positions", "keep", "labels", "image_places")


def packed_batch(pack: Pack) -> Batch:
    """One pack as one sequence [1, T]."""
    prefix = len(pack.prefix)
    ids = list(pack.prefix)
    positions = [torch.arange(prefix)]
    keep: list[int] = []
    labels: list[int] = []
    places: list[int] = []
    for row in pack.rows:
        start = len(ids)
        ids.extend(row.ids)
        positions.append(prefix + row_positions(row))
        keep.extend(start + index for index in row.keep)
        labels.extend(row.labels)
        places.extend(start + index for index in image_places(row.images))
    return Batch(
        _ints(ids)[None],
        _joined(positions)[..., None, :],
        _ints(keep),
        _ints(labels),
        prefix,
        tuple(len(row.ids) for row in pack.rows),
        tuple(row.parents for row in pack.rows),
        packed=True,
        images=tuple(image for row in pack.rows for image in row.images),
        image_places=_ints(places),
    )


def padded_batch(prefix: Sequence[int], rows: Sequence[PackRow]) -> Batch:
    """The plain path: every row with its own copy of the prefix, padded on the right to the longest, [B, T]."""
    width = len(prefix) + max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions = []
    keep: list[int] = []
    labels: list[int] = []
    places: list[int] = []
    for at, row in enumerate(rows):
        if row.parents is not None:
            raise ValueError("a tree of answers needs a packed batch")
        whole = [*prefix, *row.ids]
        ids[at, : len(whole)] = _ints(whole)
        own = len(prefix) + row_positions(row)
        positions += [torch.arange(len(prefix)), own, torch.zeros(width - len(whole), dtype=torch.long)]
        keep.extend(at * width + len(prefix) + index for index in row.keep)
        labels.extend(row.labels)
        places.extend(at * width + len(prefix) + index for index in image_places(row.images))
    return Batch(
        ids,
        _joined(positions).reshape(*_joined(positions).shape[:-1], len(rows), width),
        _ints(keep),
        _ints(labels),
        len(prefix),
        tuple(len(row.ids) for row in rows),
        (None,) * len(rows),
        packed=False,
        images=tuple(image for row in rows for image in row.images),
        image_places=_ints(places),
    )


def row_positions(row: PackRow) -> torch.Tensor:
    """Positions of a row's tokens behind the prefix, from 0: int64 [T], or [3, T] where it has images.

    A text's tokens count on. All tokens of an image have its first one's time; their rows and columns count from there,
    and text goes on behind the longer side (M-RoPE; Wang et al. 2024, Qwen2-VL, section 2.1):

        text 0 1 2 · image of 2 × 3 · text      time 0 1 2 · 3 3 3 3 3 3 · 6    row 0 1 2 · 3 3 3 4 4 4 · 6
                                                column 0 1 2 · 3 4 5 3 4 5 · 6
    """
    if not row.images:
        return _ints(_depths(row.parents)) if row.parents else torch.arange(len(row.ids))
    pieces = []
    at = position = 0
    for image in row.images:
        before = image.start - at
        pieces.append(torch.arange(position, position + before).expand(3, -1))
        position += before
        grid = torch.cartesian_prod(torch.arange(image.rows), torch.arange(image.columns)).view(-1, 2)
        pieces.append(position + torch.cat([torch.zeros(image.tokens, 1, dtype=torch.long), grid], dim=1).T)
        position += max(image.rows, image.columns)
        at = image.start + image.tokens
    # Behind the last image, a tree counts as it would without any.
    own = tuple(parent - at for parent in row.parents[at:]) if row.parents else None
    rest = _ints(_depths(own)) if own else torch.arange(len(row.ids) - at)
    return torch.cat([*pieces, (position + rest).expand(3, -1)], dim=1)


def image_places(images: Sequence[PlacedImage]) -> list[int]:
    """Index of each image token in the ids of its row."""
    return [index for image in images for index in range(image.start, image.start + image.tokens)]


def _depths(parents: Sequence[int]) -> list[int]:
    # Most of a row is no fork.
    chain = next((at for at, parent in enumerate(parents) if parent != at - 1), len(parents))
    depths = list(range(chain))
    for parent in parents[chain:]:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return depths


def _joined(positions: Sequence[torch.Tensor]) -> torch.Tensor:
    """[T], or [3, T] as soon as a piece is so."""
    if any(piece.ndim == 2 for piece in positions):
        positions = [piece.expand(3, -1) for piece in positions]
    return torch.cat(list(positions), dim=-1)


def _ints(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long)
