"""The parts of a layer that are no linear layer, with their gradients. `kernels`: the module `kernels` or `plain`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch


class AddNorm(torch.autograd.Function):
    """x, delta [T, H] → x + delta, and its RMS norm times the weight, [T, H + pad]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        weight: torch.Tensor,
        eps: float,
        pad: int,
        kernels: ModuleType,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        summed, normed, rstd = kernels.add_norm(x, delta, weight, eps, pad)
        ctx.save_for_backward(summed, weight, rstd)
        ctx.kernels, ctx.both = kernels, delta is not None
        ctx.set_materialize_grads(False)
        return summed, normed

    @staticmethod
    def backward(ctx: Any, g_sum: torch.Tensor | None, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        summed, weight, rstd = ctx.saved_tensors
        out = ctx.kernels.add_norm_backward(g, g_sum, summed, weight, rstd)
        return out, out if ctx.both else None, *[None] * 4


class Swiglu(torch.autograd.Function):
    """silu(gate) · up [T, I + pad] of [T, 2 I], gate and up side by side."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor, pad: int, kernels: ModuleType) -> torch.Tensor:
        ctx.save_for_backward(both)
        ctx.kernels = kernels
        return kernels.swiglu(both, pad)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (both,) = ctx.saved_tensors
        return ctx.kernels.swiglu_backward(g, both), None, None


class Rotate(torch.autograd.Function):
    """Heads [T, heads, D], rotated; cos, sin [T, R]."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool, kernels: ModuleType
    ) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved, ctx.kernels = interleaved, kernels
        out = x.clone(memory_format=torch.contiguous_format)
        kernels.rotate_(out, cos, sin, interleaved, 1)
        return out

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        cos, sin = ctx.saved_tensors
        out = g.clone(memory_format=torch.contiguous_format)
        ctx.kernels.rotate_(out, cos, sin, ctx.interleaved, -1)
        return out, None, None, None, None


class HeadLoss(torch.autograd.Function):
    """Sum of cross-entropies of `labels` [N] given hidden states [N, H] and the head's weight [V, H], float32, in nats.

    The gradient of the states is found in the forward pass, chunk by chunk, so that the logits of no more than `chunk`
    states ever exist.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        ignored: int,
        chunk: int,
        kernels: ModuleType,
    ) -> torch.Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = torch.nn.functional.linear(hidden[part], weight, bias)
            total += kernels.cross_entropy_(logits, labels[part], ignored).sum()
            if gradient is not None:
                torch.mm(logits, weight, out=gradient[part])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # In float32: the factor is one over the step's answer tokens.
        return (gradient.float() * g).to(gradient.dtype), *[None] * 6
