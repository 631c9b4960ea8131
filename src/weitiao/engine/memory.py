"""How many tokens a pack may have, and what is computed again in the backward pass, so that a step fits on the card.

Layers of our own are measured: two small passes tell what a token takes. Of transformers' layers it is estimated.
Smaller packs cost the shared prefix once more for each; computing gate and up again costs a fifth of a step, computing
whole layers again a third. So nothing is computed again as long as a pack holds a few rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine.forward import Forward
from weitiao.engine.supervised_loss import CHUNK

Recompute = Literal["nothing", "gate_up", "layer"]

SAFETY = 0.85
"""Share of the free memory that activations may take."""
DEFAULT = {"cuda": 32_768, "cpu": 4096}
"""Tokens of a pack where memory allows more: a card's products get no faster beyond, a CPU's before."""
ENOUGH = 1024
"""Tokens of a pack that waste little on its prefix."""
PROBES = (256, 768)
"""Tokens of the passes that are measured."""
COPIES = 4
"""Of the adapters in float32, besides themselves: two gradients, two moments."""


@dataclass(frozen=True)
class Fit:
    tokens: int
    """Of a pack."""
    recompute: Recompute
    bytes_per_token: int = 0
    """Measured; 0 where nothing was."""


def fit(forward: Forward, setting: str, tokens: int | None, longest: int, reads: int) -> Fit:
    """For layers of our own. setting: `training.gradient_checkpointing`. tokens: asked for, or None. longest: tokens of
    the longest row with its prefix. reads: most answer tokens of a step."""
    assert forward.fast is not None
    wanted = tokens or DEFAULT.get(forward.device.type, DEFAULT["cpu"])
    if setting != "auto" or forward.device.type != "cuda":
        return Fit(wanted, "layer" if setting == "on" else "nothing")
    least = max(longest, min(tokens or ENOUGH, ENOUGH * 16))
    found = Fit(wanted, "nothing")
    kinds: tuple[Recompute, ...] = ("nothing", "gate_up", "layer")
    for kind in kinds:
        forward.fast.recompute = kind
        each = _bytes_per_token(forward)
        room = int(_free(forward, reads) / each)
        found = Fit(max(min(wanted, room), min(wanted, 256)), kind, each)
        if room >= least:
            break
    return found


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
    return SAFETY * (free - 4 * COPIES * trained - 2 * logits)


def activation_bytes(config: Any, tokens: int) -> int:
    """Estimated bytes that transformers' forward pass over `tokens` keeps for the backward pass, in 16 bits."""
    config = config.get_text_config()
    hidden, inner = config.hidden_size, config.intermediate_size
    # 12 tensors as wide as the model (three of them float32 in norms), 5 as wide as the MLP.
    per_layer = 2 * (12 * hidden + 3 * hidden + 5 * inner)
    return int(tokens * per_layer * config.num_hidden_layers)


def wants_recompute(setting: str, config: Any, tokens: int | None, device: torch.device) -> bool:
    """For transformers' layers: on, off, or on a GPU when `tokens` would not fit."""
    if setting != "auto":
        return setting == "on"
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return activation_bytes(config, tokens or DEFAULT["cpu"]) > SAFETY * free
