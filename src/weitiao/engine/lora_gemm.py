"""A linear layer with its adapter in few kernels: y = x Wᵀ + bias + s · dropout(x) Aᵀ Bᵀ.

PEFT computes the same as layers one after another and copies every input to float32 for the adapters. Here A and B are
cast to the input's type instead, their product is added in place, and nothing but x and dropout's mask is kept for the
backward pass: a step of few samples waits for its host to start kernels, and each costs the same.

PEFT's modules keep their parameters, and their own forward pass where an adapter is switched off or merged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F


def use_lora_gemm(model: Any) -> bool:
    """Compute the adapted linear layers of a PeftModel so; whether that holds for all of its adapters.

    Layers that are stored in 4 bits or spread over cards, and adapters other than plain LoRA, are left to PEFT.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    fitting: list[Any] = [layer for layer in layers if _fits(layer)]
    for layer in fitting:
        layer.forward = _Forward(layer, layer.forward)
    return len(fitting) == len(layers)


def _fits(layer: Any) -> bool:
    plain = type(layer.base_layer) is torch.nn.Linear and not hasattr(layer.base_layer, "_hf_hook")
    return (
        plain
        and list(layer.lora_A) == ["default"]
        and not layer.lora_variant
        and not layer.fan_in_fan_out
        and layer.lora_B["default"].bias is None
    )


class _Forward:
    """In place of a layer's `forward`."""

    def __init__(self, layer: Any, theirs: Callable[..., torch.Tensor]) -> None:
        self.layer, self.theirs = layer, theirs
        self.a, self.b = layer.lora_A["default"], layer.lora_B["default"]
        self.dropout = layer.lora_dropout["default"]

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer = self.layer
        if layer.disable_adapters or layer.merged or args or kwargs:
            return self.theirs(x, *args, **kwargs)
        base = layer.base_layer
        rate = getattr(self.dropout, "p", 0.0) if self.dropout.training else 0.0
        a, b = self.a.weight, self.b.weight
        scaling = layer.scaling["default"]
        return _LoraLinear.apply(x, base.weight, base.bias, a, b, scaling, rate)  # type: ignore[no-any-return]


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        rate: float,
    ) -> torch.Tensor:
        """x [..., in], weight [out, in], a [r, in], b [out, r] → [..., out]; a and b in a type of their own."""
        cast_a, cast_b = a.to(x.dtype), b.to(x.dtype)
        flat = x.reshape(-1, x.shape[-1])
        seen, mask = torch.native_dropout(flat, rate, True) if rate else (flat, None)
        inner = seen @ cast_a.T
        out = F.linear(flat, weight, bias).addmm_(inner, cast_b.T, alpha=scaling)
        ctx.save_for_backward(flat, mask, inner, weight, cast_a, cast_b)
        ctx.scaling, ctx.rate, ctx.dtype = scaling, rate, a.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, mask, inner, weight, a, b = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1])
        keep = 1 / (1 - ctx.rate)
        g_inner = (g @ b).mul_(ctx.scaling)
        seen = flat if mask is None else torch.ops.aten.native_dropout_backward(flat, mask, keep)
        g_a = _product(g_inner.T, seen, ctx.dtype)
        g_b = _product(g.T, inner, ctx.dtype).mul_(ctx.scaling)
        g_x = None
        if ctx.needs_input_grad[0]:
            g_x = g @ weight
            if mask is None:
                g_x.addmm_(g_inner, a)
            else:
                g_x += torch.ops.aten.native_dropout_backward(g_inner @ a, mask, keep)
            g_x = g_x.view(*gradient.shape[:-1], -1)
        return g_x, None, None, g_a, g_b, None, None


def _product(first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """first @ second in the adapters' type: on a card the 16-bit product is written in it at once."""
    if first.dtype == dtype:
        return first @ second
    if first.is_cuda and dtype == torch.float32:
        return torch.mm(first, second, out_dtype=dtype)
    return (first @ second).to(dtype)
