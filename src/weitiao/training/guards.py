"""A gradient that is not finite never reaches the weights.

The flag lives on the device: fused AdamW reads it and leaves weights and moments untouched, and no step waits for it.
It is read at the log interval; then training stops and names the rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from weitiao.errors import WeitiaoError


class NonFiniteError(WeitiaoError):
    """The loss or gradient of a step was NaN or infinite."""


class GradientGuard:
    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self._flag = torch.zeros((), dtype=torch.float32, device=device)
        self._since: list[tuple[int, torch.Tensor]] = []
        optimizer.found_inf = self._flag  # type: ignore[attr-defined]

    def clip(self, parameters: Iterable[torch.nn.Parameter], limit: float) -> torch.Tensor:
        """Scale the gradients to the norm `limit`; their norm before that. Raises the flag when it is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(list(parameters), limit)
        self._flag.copy_(~torch.isfinite(norm))
        return norm

    def note(self, step: int) -> None:
        """Remember the flag of a step."""
        self._since.append((step, self._flag.clone()))

    def first_bad_step(self) -> int | None:
        """The first step since the last call whose gradient was not finite. Waits for the device."""
        bad = next((step for step, flag in self._since if flag.item()), None)
        self._since.clear()
        return bad
