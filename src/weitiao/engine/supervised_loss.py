"""The vocabulary head and the loss, only at positions that predict an answer token, in chunks of bounded memory."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 1024
"""Positions whose logits exist at once: 1,024 × 151,936 × 4 bytes = 0.6 GiB at Qwen's vocabulary."""


def answer_loss(hidden: torch.Tensor, head: torch.nn.Module, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies of `labels` [N] given `hidden` [N, H], float32, in nats.

    With more than one chunk, logits are computed again in the backward pass instead of kept.
    """
    if len(labels) <= CHUNK:
        return _chunk_loss(hidden, head, labels)
    parts = zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True)
    losses = [checkpoint(_chunk_loss, part, head, wanted, use_reentrant=False) for part, wanted in parts]
    return torch.stack(losses).sum()


def _chunk_loss(hidden: torch.Tensor, head: torch.nn.Module, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), labels, reduction="sum")
