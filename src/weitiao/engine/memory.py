"""How many tokens a pack may have, and what is computed again in the backward pass, so that a step fits on the card.

Layers of our own are measured: two small passes tell what a token takes. Of transformers' layers it is estimated.
Smaller packs cost the shared prefix once more for each; computing gate and up again costs a fifth of a step, computing
whole layers again a third. So nothing is computed again as long as a pack holds a few rows.
"""

from __future__ import annotations

from typing import Any

import torch

from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine.forward import Forward
from weitiao.engine.room import CHUNK, DEFAULT, SAFETY, Fit, Recompute, chosen, for_activations, left_to_transformers

PROBES = (256, 768)
"""Tokens of the passes that are measured."""


def fit(forward: Forward, setting: str, tokens: int | None, longest: int, reads: int) -> Fit:
    """For layers of our own. setting: `training.gradient_checkpointing`. tokens: asked for, or None. longest: tokens of
    the longest row with its prefix. reads: most answer tokens of a step."""
    assert forward.fast is not None
    wanted = tokens or DEFAULT.get(forward.device.type, DEFAULT["cpu"])
    if setting != "auto" or forward.device.type != "cuda":
        return Fit(wanted, "layer" if setting == "on" else "nothing")
    fast = forward.fast

    def told(kind: Recompute) -> tuple[int, float]:
        fast.recompute = kind
        return _bytes_per_token(forward), _free(forward, reads)

    return chosen(told, tokens, wanted, longest)


def _bytes_per_token(forward: Forward) -> int:
    peaks = []
    for tokens in PROBES:
        batch = packed_batch(Pack((), (PackRow((0,) * tokens, (0,), (0,)),)))
        forward.loss(batch).backward()  # builds kernels and workspaces
        _forget(forward)
        torch.cuda.reset_peak_memory_stats(forward.device)
        before = torch.cuda.memory_allocated(forward.device)
        forward.loss(batch).backward()
        peaks.append(torch.cuda.max_memory_allocated(forward.device) - before)
        _forget(forward)
    return max(1, (peaks[1] - peaks[0]) // (PROBES[1] - PROBES[0]))


def _forget(forward: Forward) -> None:
    for parameter in forward.model.parameters():
        parameter.grad = None


def _free(forward: Forward, reads: int) -> float:
    """Bytes for activations: what the card and torch's own limit leave, less the logits and the optimizer's tensors."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(forward.device)
    share = torch.cuda.get_per_process_memory_fraction(forward.device)
    free = min(free, int(share * total) - torch.cuda.memory_reserved(forward.device))
    trained = sum(p.numel() for p in forward.model.parameters() if p.requires_grad)
    logits = min(CHUNK, reads) * forward.head.weight.shape[0] * forward.head.weight.element_size()
    return for_activations(free, trained, logits)


def activation_bytes(config: Any, tokens: int) -> int:
    """Estimated bytes that transformers' forward pass over `tokens` keeps for the backward pass, in 16 bits."""
    config = config.get_text_config()
    return left_to_transformers(config.hidden_size, config.intermediate_size, config.num_hidden_layers, tokens)


def wants_recompute(setting: str, config: Any, tokens: int | None, device: torch.device) -> bool:
    """For transformers' layers: on, off, or on a GPU when `tokens` would not fit."""
    if setting != "auto":
        return setting == "on"
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return activation_bytes(config, tokens or DEFAULT["cpu"]) > SAFETY * free
