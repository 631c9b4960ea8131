"""Prompts are read into slots, behind a prefix that all of them share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weitiao.data.collate import image_places, row_positions
from weitiao.data.pack import PackRow, Prompt
from weitiao.engine.forward import Forward
from weitiao.engine.slots import SlotCache


class PromptReader:
    def __init__(self, forward: Forward, cache: SlotCache, chunk: int) -> None:
        """chunk: most tokens of a prompt that are read at once, if it has no images."""
        self.forward, self.cache, self.chunk = forward, cache, chunk
        self.prefix = 0
        """Tokens that stand before every prompt."""

    def read_prefix(self, prefix: Sequence[int]) -> None:
        """Into all slots."""
        for start in range(0, len(prefix), self.chunk):
            ids = self._ints(prefix[start : start + self.chunk])[None]
            places = start + torch.arange(ids.shape[1], device=self.forward.device)[None]
            self.cache.begin(places, self._ints([0]), len(prefix))
            self.forward.step(ids, places, self.cache, self._ints([0]))
        self.cache.share(len(prefix))
        self.prefix = len(prefix)

    def read(self, prompts: Sequence[Prompt], slots: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """Hidden states [B, H] of the last token of each, and the positions of what follows. slots: of each."""
        sizes = [len(prompt.ids) for prompt in prompts]
        width = max(sizes)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        places = torch.full((len(prompts), width), self.cache.scrap)
        positions = torch.zeros(3, len(prompts), width, dtype=torch.long)
        image_at: list[int] = []
        for at, (prompt, size) in enumerate(zip(prompts, sizes, strict=True)):
            ids[at, :size] = torch.tensor(prompt.ids)
            places[at, :size] = torch.arange(self.prefix, self.prefix + size)
            positions[:, at, :size] = self.prefix + row_positions(PackRow(prompt.ids, (), images=prompt.images))
            image_at += [at * width + place for place in image_places(prompt.images)]
        images = [image for prompt in prompts for image in prompt.images]
        # Without images, the three agree.
        where = positions if images else positions[0]
        last, into, device = torch.tensor(sizes) - 1, self._ints(slots), self.forward.device
        hidden: torch.Tensor | None = None
        # An image is seen whole.
        chunk = width if images else self.chunk
        for start in range(0, width, chunk):
            here = slice(start, min(start + chunk, width))
            inside = (last - start).clamp(0, here.stop - start - 1)
            keep = torch.arange(len(prompts)) * (here.stop - start) + inside
            self.cache.begin(places[:, here].to(device), into, self.prefix + here.stop)
            found = self.forward.step(
                ids[:, here].to(device),
                where[..., here].to(device),
                self.cache,
                keep.to(device),
                images,
                self._ints(image_at) if images else None,
            )
            ends = ((last >= start) & (last < here.stop)).to(found.device)[:, None]
            hidden = found if hidden is None else torch.where(ends, found, hidden)
        assert hidden is not None
        return hidden, (positions.amax((0, 2)) + 1).tolist()

    def _ints(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.forward.device)
