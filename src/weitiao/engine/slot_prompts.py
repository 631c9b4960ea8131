"""Prompts are read into slots, behind a prefix that all of them share.

Where steps are recorded, prompts are cut into pieces of a few tokens, the rows of a step of one of few sizes: a token
sees what its slot holds up to itself, whichever row wrote it. So a card's host starts one graph where it would start
hundreds of kernels. Prompts with images are read whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import ArrayLike

from weitiao.data.collate import image_places, row_positions
from weitiao.data.pack import PackRow, Prompt
from weitiao.engine.slot_steps import Steps

PIECE = 8
"""Tokens of a prompt in a row: few are padding."""
PIECES = (128, 512, 1024, 1536, 2048)
"""Rows of a recorded reading: from 1,024 tokens on a row gets the same bits whoever else is there."""


class PromptReader:
    def __init__(self, steps: Steps, chunk: int) -> None:
        """chunk: most tokens that are read at once, if there are no images."""
        self.steps, self.forward, self.cache, self.chunk = steps, steps.forward, steps.cache, chunk
        self.pieces = steps.recorded and steps.forward.slot_kernels is not None
        self.prefix = 0
        """Tokens that stand before every prompt."""

    def together(self, longest: int) -> int:
        """How many prompts of at most so many tokens are read at once."""
        return max(1, self.chunk // (-(-longest // PIECE) * PIECE))

    def read_prefix(self, prefix: Sequence[int]) -> None:
        """Into all slots."""
        for start in range(0, len(prefix), self.chunk):
            ids = self._there(prefix[start : start + self.chunk])[None]
            places = start + torch.arange(ids.shape[1], device=self.forward.device)[None]
            self.cache.begin(places, self._there([0]), len(prefix))
            self.forward.step(ids, places, self.cache, self._there([0]))
        self.cache.share(len(prefix))
        self.prefix = len(prefix)

    def read(self, prompts: Sequence[Prompt], slots: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """Hidden states [B, H] of the last token of each, and the positions of what follows. slots: of each."""
        sizes = np.array([len(prompt.ids) for prompt in prompts])
        rows = -(-sizes // PIECE)
        if self.pieces and rows.sum() <= PIECES[-1] and not any(prompt.images for prompt in prompts):
            return self._read_pieces(prompts, np.asarray(slots), sizes, rows), (self.prefix + sizes).tolist()
        width, inside = int(sizes.max()), np.arange(sizes.max()) < sizes[:, None]
        ids = np.zeros(inside.shape, dtype=np.int64)
        ids[inside] = np.fromiter(chain.from_iterable(prompt.ids for prompt in prompts), np.int64)
        counted = self.prefix + np.arange(width)
        places = np.where(inside, counted, self.cache.scrap)
        images = [image for prompt in prompts for image in prompt.images]
        # Without images, the three agree.
        positions = self._positions(prompts) if images else np.where(inside, counted, 0)
        last, into = sizes - 1, self._there(slots)
        image_at = self._there(_image_places(prompts, width)) if images else None
        hidden: torch.Tensor | None = None
        # An image is seen whole.
        chunk = width if images else self.chunk
        for start in range(0, width, chunk):
            here = slice(start, min(start + chunk, width))
            keep = np.arange(len(prompts)) * (here.stop - start) + (last - start).clip(0, here.stop - start - 1)
            self.cache.begin(self._there(places[:, here]), into, self.prefix + here.stop)
            found = self.forward.step(
                self._there(ids[:, here]),
                self._there(positions[..., here]),
                self.cache,
                self._there(keep),
                images,
                image_at,
            )
            if hidden is None:
                hidden = found
            else:
                hidden = torch.where(self._there((last >= start) & (last < here.stop))[:, None], found, hidden)
        assert hidden is not None
        ends = positions.max((0, 2)) if images else positions.max(1)
        return hidden, (ends + 1).tolist()

    def _read_pieces(
        self, prompts: Sequence[Prompt], slots: np.ndarray, sizes: np.ndarray, rows: np.ndarray
    ) -> torch.Tensor:
        """sizes, rows: tokens and pieces of each."""
        count = next(size for size in PIECES if size >= rows.sum())
        told = np.zeros((3, count, PIECE), np.int64)
        told[1] = self.cache.scrap
        # Of each token its prompt, and where it stands in it.
        whose = np.repeat(np.arange(len(sizes)), sizes)
        at = np.arange(len(whose)) - np.repeat(sizes.cumsum() - sizes, sizes)
        first = PIECE * (rows.cumsum() - rows)
        ids, places, positions = told.reshape(3, -1)
        where = first[whose] + at
        ids[where] = np.fromiter(chain.from_iterable(prompt.ids for prompt in prompts), np.int64)
        places[where] = positions[where] = self.prefix + at
        into, keep = np.zeros((2, count), np.int64)
        into[: rows.sum()] = np.repeat(slots, rows)
        keep[: len(sizes)] = first + sizes - 1
        return self.steps.read(*map(torch.from_numpy, (told, into, keep)))[: len(sizes)]

    def _positions(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """int64 [3, B, T], 0 behind the end of each."""
        positions = np.zeros((3, len(prompts), max(len(prompt.ids) for prompt in prompts)), dtype=np.int64)
        for at, prompt in enumerate(prompts):
            row = PackRow(prompt.ids, (), images=prompt.images)
            positions[:, at, : len(prompt.ids)] = self.prefix + row_positions(row).numpy()
        return positions

    def _there(self, values: ArrayLike) -> torch.Tensor:
        """On the device. From memory that is not pinned, the host would wait for what the card still computes."""
        there = torch.from_numpy(np.ascontiguousarray(values))
        if self.forward.device.type == "cuda":
            there = there.pin_memory()
        return there.to(self.forward.device, non_blocking=True)


def _image_places(prompts: Sequence[Prompt], width: int) -> list[int]:
    """In the flattened rows of this width."""
    return [at * width + place for at, prompt in enumerate(prompts) for place in image_places(prompt.images)]
