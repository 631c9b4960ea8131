"""Greedy decoding of a batch under a grammar, behind one shared prefix whose K/V is computed once.

Rows of a batch are padded on the right; a mask over the cache hides the padding, so a row's answer does not depend on
its neighbours. Rows that have ended leave the batch when half of it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from weitiao.data.collate import image_places, row_positions
from weitiao.data.pack import PackRow, Prompt
from weitiao.engine.forward import Forward
from weitiao.prediction.grammar import Allowed

LOOK = 16
"""Tokens between two looks at whether a row repeats itself."""


@dataclass
class Decoded:
    ids: list[int]
    """Tokens of the answer, without the stop."""
    log_probability: float
    """Of the answer and its stop among the tokens that the grammar allowed, in nats."""
    complete: bool
    """Whether it ended by itself within the budget."""


class Decoder:
    def __init__(self, forward: Forward, stop: int, budget: int) -> None:
        """budget: most tokens of an answer."""
        self.forward, self.stop, self.budget = forward, stop, budget

    @torch.inference_mode()
    def prefix_cache(self, prefix: Sequence[int]) -> DynamicCache:
        """K/V of the shared prefix, for one row."""
        cache = DynamicCache()
        if prefix:
            size = len(prefix)
            self.forward.step(
                torch.tensor([list(prefix)]),
                torch.arange(size)[None],
                torch.ones(size, size, dtype=torch.bool).tril()[None, None],
                cache,
            )
        return cache

    @torch.inference_mode()
    def decode(
        self,
        prefix: DynamicCache,
        prompts: Sequence[Prompt],
        matchers: Allowed,
        spent: Callable[[int, list[int]], bool] = lambda row, ids: False,
        advance: Callable[[int], None] = lambda rows: None,
    ) -> list[Decoded]:
        """Answers to `prompts`, in order.

        spent: told now and then of a row's tokens; a row for which it is true gets no more. advance: told of rows done.
        """
        shared = prefix.get_seq_length()
        cache = _repeated(prefix, len(prompts))
        logits, seen, after = self._prefill(prompts, shared, cache)
        out = [Decoded([], 0.0, complete=False) for _ in prompts]
        rows = list(range(len(prompts)))
        ended: set[int] = set()
        for count in range(self.budget + 1):
            tokens, chances = _choose(logits, matchers.allowed())
            running = []
            for at, (row, token, chance) in enumerate(zip(rows, tokens, chances, strict=True)):
                if row in ended:
                    continue
                out[row].log_probability += chance
                if token == self.stop:
                    out[row].complete = True
                elif count < self.budget:
                    out[row].ids.append(token)
                if out[row].complete or count == self.budget or (count % LOOK == LOOK - 1 and spent(row, out[row].ids)):
                    ended.add(row)
                    advance(1)
                else:
                    running.append(at)
            if not running:
                break
            matchers.take([self.stop if row in ended else t for row, t in zip(rows, tokens, strict=True)])
            if len(running) * 2 <= len(rows):
                rows = [rows[at] for at in running]
                tokens = [tokens[at] for at in running]
                after, seen = after[running], seen[running]
                matchers.keep(running)
                cache.batch_select_indices(torch.tensor(running))
            seen = torch.cat([seen, torch.ones(len(rows), 1, dtype=torch.bool)], dim=1)
            positions = (after + count)[:, None]
            states = self.forward.step(torch.tensor(tokens)[:, None], positions, seen[:, None, None], cache)
            logits = self.forward.head(states[:, -1]).float()
        return out

    def _prefill(
        self, prompts: Sequence[Prompt], shared: int, cache: DynamicCache
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits behind each prompt [B, V]; which cached tokens each row may see, bool [B, shared + S]; the position of
        the token behind each prompt, int64 [B]."""
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
        width = int(lengths.max())
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        positions = torch.zeros(3, len(prompts), width, dtype=torch.long)
        places: list[int] = []
        for at, prompt in enumerate(prompts):
            ids[at, : len(prompt.ids)] = torch.tensor(prompt.ids)
            positions[:, at, : len(prompt.ids)] = shared + row_positions(PackRow(prompt.ids, (), images=prompt.images))
            places += [at * width + place for place in image_places(prompt.images)]
        after = positions.amax((0, 2)) + 1
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        mask = torch.cat([torch.ones(width, shared, dtype=torch.bool), causal], dim=1)[None, None]
        images = [image for prompt in prompts for image in prompt.images]
        # Without images, the three agree.
        where = positions if images else positions[0]
        states = self.forward.step(ids, where, mask, cache, images, torch.tensor(places, dtype=torch.long))
        last = states[torch.arange(len(prompts)), (lengths - 1).to(states.device)]
        real = torch.arange(width) < lengths[:, None]
        seen = torch.cat([torch.ones(len(prompts), shared, dtype=torch.bool), real], dim=1)
        return self.forward.head(last).float(), seen, after


def _repeated(prefix: DynamicCache, rows: int) -> DynamicCache:
    cache = DynamicCache()
    layer: Any
    for index, layer in enumerate(prefix.layers):
        cache.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
    return cache


def _choose(logits: torch.Tensor, allowed: torch.Tensor) -> tuple[list[int], list[float]]:
    """Likeliest allowed token of each row, and its log-probability among the allowed ones."""
    masked = logits.masked_fill(~allowed.to(logits.device), float("-inf"))
    chances, tokens = masked.log_softmax(-1).max(-1)
    return tokens.tolist(), chances.tolist()
