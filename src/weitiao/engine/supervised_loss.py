"""The vocabulary head and the loss, only at positions that predict an answer token, in chunks of bounded memory."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from weitiao.engine import plain
from weitiao.engine.pieces import HeadLoss
from weitiao.engine.room import CHUNK

UNSUPERVISED = -100
"""Label of a position that is read for nothing."""


def answer_loss(hidden: torch.Tensor, head: Any, labels: torch.Tensor, kernels: ModuleType = plain) -> torch.Tensor:
    """Sum of the cross-entropies of `labels` [N] given `hidden` [N, H], float32, in nats."""
    loss: torch.Tensor = HeadLoss.apply(hidden, head.weight, head.bias, labels, UNSUPERVISED, CHUNK, kernels)
    return loss
