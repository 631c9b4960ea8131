"""What the learning rate is at each step, as a share of the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import get_scheduler


def learning_rate_shares(kind: str, warmup_steps: int, total: int) -> Callable[[int], float]:
    """A function of the step, counted from 0, by one of transformers' schedules."""
    # transformers makes a schedule around an optimizer, which is not needed for its function.
    unused = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(kind, unused, warmup_steps, total)
    share: Callable[[int], float] = schedule.lr_lambdas[0]
    return share
