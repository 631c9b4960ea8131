"""Whether a pack's activations fit on the card, and what to do when they do not.

The estimate counts what autograd keeps of one decoder layer, per token, in 16-bit: inputs of the norms, of the linear
layers and of their adapters, q/k/v, attention output, gate and up before and after the activation.
"""

from __future__ import annotations

from typing import Any

import torch

SAFETY = 0.85
"""Share of the free memory that activations may take."""


def activation_bytes(config: Any, tokens: int) -> int:
    """Estimated bytes that a forward pass over `tokens` keeps for the backward pass, without recomputation."""
    config = config.get_text_config()
    hidden, inner = config.hidden_size, config.intermediate_size
    # 12 tensors as wide as the model (three of them float32 in norms), 5 as wide as the MLP.
    per_layer = 2 * (12 * hidden + 3 * hidden + 5 * inner)
    return tokens * per_layer * config.num_hidden_layers


def wants_recompute(setting: str, config: Any, tokens: int, device: torch.device) -> bool:
    """`training.gradient_checkpointing`: on, off, or on a GPU when `tokens` would not fit."""
    if setting != "auto":
        return setting == "on"
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return activation_bytes(config, tokens) > SAFETY * free
