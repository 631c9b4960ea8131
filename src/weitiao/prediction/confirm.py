"""Whether answers are those that the model writes, as it computes now: each is read whole behind its prompt, in packs.

That takes one pass over prompts and answers, without padding, where writing takes a step for each token or guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow, Prompt, pack
from weitiao.engine.forward import Forward
from weitiao.prediction.grammar import Asked, Guide, News, words
from weitiao.prediction.slot_state import Chosen, Decoded

LOGITS = 1024
"""Tokens whose logits are computed at once."""


@torch.inference_mode()
def confirmed(
    forward: Forward,
    prefix: tuple[int, ...],
    prompts: Sequence[Prompt],
    answers: Sequence[Decoded],
    guide: Guide,
    stop: int,
    pack_tokens: int,
) -> list[Decoded | None]:
    """Of each answer to a prompt behind the prefix the same with the chances that it has now; None where another token
    would be chosen somewhere. guide: what the grammars allow, of the answers by their indices."""
    wholes = [(*answer.ids, stop) if answer.complete else (*answer.ids,) for answer in answers]
    rows = [
        PackRow(
            (*prompt.ids, *whole[:-1]),
            tuple(range(len(prompt.ids) - 1, len(prompt.ids) + len(whole) - 1)),
            images=prompt.images,
        )
        for prompt, whole in zip(prompts, wholes, strict=True)
    ]
    packs = pack(prefix, rows, pack_tokens)
    guide.expect(member for _, members in packs for member in members)
    found: list[Decoded | None] = [None] * len(answers)
    for packed, members in packs:
        tokens, chances = _chosen(forward, packed, [(m, wholes[m][:-1]) for m in members], guide)
        ends = [*accumulate(len(wholes[m]) for m in members)]
        for member, end in zip(members, ends, strict=True):
            whole = wholes[member]
            here = slice(end - len(whole), end)
            if tuple(tokens[here]) == whole:
                found[member] = _with_chances(answers[member], chances[here].tolist())
        guide.take(News([], members))
    return found


def _chosen(
    forward: Forward, packed: Pack, asked: Sequence[tuple[int, tuple[int, ...]]], guide: Guide
) -> tuple[np.ndarray, np.ndarray]:
    """Of each place that the pack keeps, the likeliest allowed token and its log-probability. asked: of each row its
    answer's index, and the tokens behind the first place."""
    hidden = forward.hidden(packed_batch(packed))
    # While a card computes them, the grammars are asked.
    firsts = [0, *accumulate(1 + len(tokens) for _, tokens in asked)]
    wanted: list[Asked] = [(at, first, tokens) for (at, tokens), first in zip(asked, firsts, strict=False)]
    bits = torch.zeros(firsts[-1], words(forward.head.weight.shape[0]), dtype=torch.int32, pin_memory=hidden.is_cuda)
    guide.fill(wanted, bits.numpy())
    parts = [
        forward.kernels.chosen(forward.logits(states), masks.to(states.device, non_blocking=True))
        for states, masks in zip(hidden.split(LOGITS), bits.split(LOGITS), strict=True)
    ]
    tokens, chances = Chosen(*map(torch.cat, zip(*parts, strict=True))).told(1)
    return tokens[:, 0], chances[:, 0]


def _with_chances(answer: Decoded, chances: Sequence[float]) -> Decoded:
    """chances: of its tokens, and of the stop where it is complete."""
    own = chances[: len(answer.ids)]
    return Decoded(answer.ids, sum(chances), answer.complete, list(own))
