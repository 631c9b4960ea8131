"""Linear layers of one input with their adapters in few kernels: y_i = x W_iᵀ + bias_i + s · dropout(x) A_iᵀ B_iᵀ.

PEFT computes the same as layers one after another and copies every input to float32 for the adapters. Here the weights
of a group (q, k and v; gate and up) lie in one piece of memory and are one product, and so are their A. A and B are
cast to the input's type, and what they add is added in place. Only x and dropout's mask are kept for the backward
pass. A step of few samples waits for its host to start kernels, and each costs the same.

PEFT's modules keep their parameters, and their own forward pass where an adapter is switched off or merged. The layers
of a group share one dropout mask; in PEFT each has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Casts = tuple[torch.Tensor, ...]


def use_lora_gemm(model: Any) -> bool:
    """Compute each adapted linear layer of a PeftModel so; whether that holds for all of its adapters.

    Layers that are stored in 4 bits or spread over cards, and adapters other than plain LoRA, are left to PEFT.
    """
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    fitting = [layer for layer in layers if fits(layer)]
    for layer in fitting:
        layer.forward = _Forward(layer, layer.forward)
    return len(fitting) == len(layers)


def fits(layer: Any) -> bool:
    """Whether a linear layer, with or without an adapter, can be computed here."""
    base = getattr(layer, "base_layer", layer)
    plain = type(base) is nn.Linear and not hasattr(base, "_hf_hook") and not hasattr(layer, "_hf_hook")
    return plain and (
        base is layer
        or (
            list(layer.lora_A) == ["default"]
            and not layer.lora_variant
            and not layer.fan_in_fan_out
            and layer.lora_B["default"].bias is None
        )
    )


class LoraGroup:
    """Linear layers of one input, of which any may have an adapter; `groupable` holds for them."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """The layers' weights become pieces of one tensor, and stay what they are in all other ways."""
        bases = [getattr(layer, "base_layer", layer) for layer in layers]
        self.bases = bases
        self.which = [at for at, layer in enumerate(layers) if layer is not bases[at]]
        """Of the layers, those with an adapter."""
        self.layers = [layers[at] for at in self.which]
        """These."""
        self.sizes = [base.out_features for base in bases]
        self.weight = _joined(bases, "weight")
        self.bias = _joined(bases, "bias") if bases[0].bias is not None else None
        self.kept: Casts | None = None
        """A and B in the input's type, where `keep_casts` takes care of them."""

    @property
    def adapted(self) -> bool:
        return bool(self.layers) and not self.layers[0].disable_adapters and not self.layers[0].merged

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] → [..., sum of out], one layer's output behind the other's."""
        if not self.adapted:
            return F.linear(x, self.weight, self.bias)
        first = self.layers[0]
        dropout = first.lora_dropout["default"]
        rate = getattr(dropout, "p", 0.0) if dropout.training else 0.0
        parts = self.parts
        a, *bs = self.kept or _cast(parts, x.dtype)
        scaling = first.scaling["default"]
        return _LoraGroup.apply(  # type: ignore[no-any-return]
            x, self.weight, self.bias, scaling, rate, self.sizes, self.which, a, *bs, *parts
        )

    @property
    def parts(self) -> list[torch.Tensor]:
        """A [r, in] of each adapter, then B [out, r] of each: what is trained."""
        return [getattr(layer, name)["default"].weight for name in ("lora_A", "lora_B") for layer in self.layers]

    def check(self) -> None:
        """RuntimeError when the layers' weights are no longer pieces of the one that is computed with."""
        if self.bases[0].weight.data_ptr() != self.weight.data_ptr():
            raise RuntimeError("the weights were moved or copied after they were laid together")


def keep_casts(groups: Sequence[LoraGroup], dtype: torch.dtype) -> Callable[[], None]:
    """A and B of all groups in one type; what is returned brings them up to date, in few kernels for all of them.

    It has to be called before each forward pass, and never between one and its backward pass.
    """
    copies: list[torch.Tensor] = []
    sources: list[torch.Tensor] = []
    with torch.inference_mode(False), torch.no_grad():
        for group in groups:
            group.kept = _cast(group.parts, dtype, copy=True)
            count = len(group.which)
            copies += [*group.kept[0].chunk(count), *group.kept[1:]]
            sources += [part.detach() for part in group.parts]

    @torch.no_grad()
    def refresh() -> None:
        torch._foreach_copy_(copies, sources)

    return refresh


def groupable(layers: Sequence[Any]) -> bool:
    """Whether layers can be a `LoraGroup`."""
    if not all(map(fits, layers)):
        return False
    adapted = [layer for layer in layers if hasattr(layer, "base_layer")]
    return len({(layer.r["default"], layer.scaling["default"]) for layer in adapted}) <= 1


class _Forward:
    """In place of the `forward` of one layer."""

    def __init__(self, layer: Any, theirs: Callable[..., torch.Tensor]) -> None:
        self.group, self.theirs = LoraGroup([layer]), theirs

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        group = self.group
        if not group.adapted or args or kwargs:
            return self.theirs(x, *args, **kwargs)
        # Where other code laid its weight together with others, this is the same memory.
        group.weight, group.bias = group.bases[0].weight, group.bases[0].bias
        return group(x)


class _LoraGroup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scaling: float,
        rate: float,
        sizes: Sequence[int],
        which: Sequence[int],
        a: torch.Tensor,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """sizes: out of each layer; which: those with an adapter. a [adapters × r, in] and each B [out, r] in x's type;
        then A and B of each adapter, which get the gradients."""
        count = len(which)
        bs, dtype = parts[:count], parts[count].dtype
        flat = x.reshape(-1, x.shape[-1])
        seen, mask = torch.native_dropout(flat, rate, True) if rate else (flat, None)
        inner = seen @ a.T
        if scaling != 1:
            inner *= scaling
        out = F.linear(flat, weight, bias)
        pieces = out.split(list(sizes), 1)
        for at, low, b in zip(which, inner.chunk(count, 1), bs, strict=True):
            pieces[at].addmm_(low, b.T)
        ctx.save_for_backward(flat, mask, inner, weight, a, *bs)
        ctx.scaling, ctx.rate, ctx.sizes, ctx.which, ctx.dtype = scaling, rate, list(sizes), which, dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, mask, inner, weight, a, *bs = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1])
        count, keep = len(bs), 1 / (1 - ctx.rate)
        every = g.split(ctx.sizes, 1)
        pieces = [every[at] for at in ctx.which]
        g_inner = torch.empty_like(inner)
        for piece, b, low in zip(pieces, bs, g_inner.chunk(count, 1), strict=True):
            torch.mm(piece, b, out=low)
        if ctx.scaling != 1:
            g_inner *= ctx.scaling
        seen = flat if mask is None else torch.ops.aten.native_dropout_backward(flat, mask, keep)
        g_a = _product(g_inner.T, seen, ctx.dtype).chunk(count)
        g_b = [_product(p.T, low, ctx.dtype) for p, low in zip(pieces, inner.chunk(count, 1), strict=True)]
        g_x = None
        if ctx.needs_input_grad[0]:
            g_x = g @ weight
            if mask is None:
                g_x.addmm_(g_inner, a)
            else:
                g_x += torch.ops.aten.native_dropout_backward(g_inner @ a, mask, keep)
            g_x = g_x.view(*gradient.shape[:-1], -1)
        return g_x, *[None] * (7 + count), *g_a, *g_b


def _cast(parts: Sequence[torch.Tensor], dtype: torch.dtype, copy: bool = False) -> Casts:
    """All A as one tensor, then each B, in a type, without gradients."""
    count = len(parts) // 2
    whole = torch.cat([part.detach() for part in parts[:count]]) if count > 1 else parts[0].detach()
    return whole.to(dtype, copy=copy), *(part.detach().to(dtype, copy=copy) for part in parts[count:])


def _product(first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """first @ second in the adapters' type: on a card the 16-bit product is written in it at once."""
    if first.dtype == dtype:
        return first @ second
    if first.is_cuda and dtype == torch.float32:
        return torch.mm(first, second, out_dtype=dtype)
    return (first @ second).to(dtype)


def _joined(bases: Sequence[nn.Linear], name: str) -> torch.Tensor:
    """One tensor of which the layers' weights (or biases) are consecutive rows, from now on if not yet."""
    tensors = [getattr(base, name) for base in bases]
    if len(tensors) == 1:
        return tensors[0]
    step = tensors[0].element_size()
    ends = [tensor.data_ptr() + tensor.numel() * step for tensor in tensors]
    if [tensor.data_ptr() for tensor in tensors[1:]] == ends[:-1]:
        first = tensors[0].detach()
        size = (sum(tensor.shape[0] for tensor in tensors), *first.shape[1:])
        if first.untyped_storage().nbytes() >= (first.storage_offset() + torch.Size(size).numel()) * step:
            return first.as_strided(size, first.stride())
    whole = torch.cat([tensor.detach() for tensor in tensors])
    for base, piece in zip(bases, whole.split([tensor.shape[0] for tensor in tensors]), strict=True):
        setattr(base, name, nn.Parameter(piece, requires_grad=False))
    return whole
