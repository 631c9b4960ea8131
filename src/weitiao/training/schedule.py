"""What the learning rate is at each step, as a share of the one that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from transformers import get_scheduler


def learning_rate_shares(kind: str, warmup_steps: float, total: int) -> Callable[[int], float]:
    """A function of the step, counted from 0, by one of transformers' schedules.

    warmup_steps: below 1, the share of all steps, rounded up as in transformers.
    """
    warmup = int(warmup_steps) if warmup_steps >= 1 else math.ceil(warmup_steps * total)
    # transformers makes a schedule around an optimizer, which is not needed for its function.
    unused = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(kind, unused, warmup, total)
    share: Callable[[int], float] = schedule.lr_lambdas[0]
    return share
