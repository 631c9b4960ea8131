"""A gradient that is not finite never reaches the weights.

The flag lives on the device: fused AdamW reads it and leaves weights and moments untouched, and no step waits for it.
It is read at the log interval; then training stops and names the rows. On Apple's GPU fused AdamW does not look at it,
so there each step waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from weitiao.errors import WeitiaoError

READ_ON = {"cpu", "cuda"}
"""Devices whose fused AdamW reads the flag; Metal's takes it and uses it nowhere (torch, FusedAdamWKernelImpl.mm)."""


class NonFiniteError(WeitiaoError):
    """The loss or gradient of a step was NaN or infinite."""


LARGEST = 2.0**16
"""Factor of the loss at the start, as torch's GradScaler has it."""
WITHOUT = 1_000
"""Steps in a row without an overflow after which the factor is doubled, up to LARGEST."""


class LossScale:
    """For weights in float16: gradients are computed of a larger loss, so that small ones do not become 0, and divided
    by the same power of two, which rounds nothing. Where they overflow, the step is computed again with half of it."""

    def __init__(self, value: float | None, without: int) -> None:
        """value: None for the first. without: steps since the last overflow."""
        self.value, self.without = value or LARGEST, without

    def unscale(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / self.value)

    def again(self, overflown: bool) -> bool:
        """Whether the step is to be computed again. Below 1 it is not the scale that is to blame."""
        if overflown:
            self.value, self.without = self.value / 2, 0
            return self.value >= 1
        self.without += 1
        if self.without >= WITHOUT:
            self.value, self.without = min(2 * self.value, LARGEST), 0
        return False


class GradientGuard:
    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self._flag = torch.zeros((), dtype=torch.float32, device=device)
        self._since: list[tuple[int, torch.Tensor]] = []
        self._optimizer, self._waits = optimizer, device.type not in READ_ON
        if not self._waits:
            optimizer.found_inf = self._flag  # type: ignore[attr-defined]

    def clip(self, parameters: Iterable[torch.nn.Parameter], limit: float) -> torch.Tensor:
        """Scale the gradients to the norm `limit`; their norm before that. Raises the flag when it is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(list(parameters), limit)
        self._flag.copy_(~torch.isfinite(norm))
        return norm

    def update(self) -> None:
        """The optimizer's step, which a raised flag leaves out."""
        if not (self._waits and self.raised):
            self._optimizer.step()

    @property
    def raised(self) -> bool:
        """Whether the last gradient was not finite. Waits for the device."""
        return bool(self._flag.item())

    def note(self, step: int) -> None:
        """Remember the flag of a step."""
        self._since.append((step, self._flag.clone()))

    def first_bad_step(self) -> int | None:
        """The first step since the last call whose gradient was not finite. Waits for the device."""
        bad = next((step for step, flag in self._since if flag.item()), None)
        self._since.clear()
        return bad
