"""Linear layers of one input with their adapters as one product: [x | x Aᵀ] · [W | B]ᵀ + bias.

The weights of a group (q, k and v; gate and up) lie in one buffer, in whose last columns stand the B of its adapters,
each in the rows of its own layer:

    [ W_q | B_q  0   0  ]        A is that of all adapters, one below the other, times α / r. The input's buffer has
    [ W_k |  0  B_k  0  ]        the same columns free, and gets x Aᵀ there. g · [W | B] is then the gradient of x but
    [ W_v |  0   0  B_v ]        for the adapters' share, and in the last columns that of x Aᵀ.

Weights and adapters cost one kernel forward and one backward that read and write what the weights alone would, where
PEFT reads and writes the output twice and copies every input to float32. PEFT's modules keep their parameters: their
weights are views of the buffer. The layers of a group share one dropout mask; in PEFT each has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from weitiao.engine import plain
from weitiao.engine.room import SUMMED, padded


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


def groupable(layers: Sequence[Any]) -> bool:
    """Whether layers can be a `LoraGroup`."""
    if not all(map(fits, layers)):
        return False
    adapted = [layer for layer in layers if hasattr(layer, "base_layer")]
    return len({(layer.r["default"], layer.scaling["default"]) for layer in adapted}) <= 1


class LoraGroup:
    """Linear layers of one input, of which any may have an adapter; `groupable` holds for them."""

    def __init__(self, layers: Sequence[Any], kernels: ModuleType = plain) -> None:
        """The layers' weights become pieces of one buffer, and stay what they are in all other ways."""
        self.kernels = kernels
        self.bases = [getattr(layer, "base_layer", layer) for layer in layers]
        which = [at for at, layer in enumerate(layers) if layer is not self.bases[at]]
        self.layers = [layers[at] for at in which]
        """Those with an adapter."""
        sizes = [base.out_features for base in self.bases]
        ends = torch.tensor(sizes).cumsum(0).tolist()
        self.rows = [slice(ends[at] - sizes[at], ends[at]) for at in which]
        """Of the buffer, for each adapter."""
        self.sizes, self.width = sizes, self.bases[0].in_features
        self.rank = self.layers[0].r["default"] if self.layers else 0
        self.pad = padded(self.rank * len(self.layers))
        self.buffer = _joined(self.bases, self.pad)
        """[sum of out, in + pad]: the weights and, once they were brought up to date, B."""
        first = self.bases[0]
        self.bias = torch.cat([base.bias.detach() for base in self.bases]) if first.bias is not None else None
        self.instead: Callable[[torch.Tensor], torch.Tensor] | None = None
        """Computes the product meanwhile, of x [T, in]: in predictions a `Settled` or an `Exact`."""
        with torch.inference_mode(False):
            self.a = self.buffer.new_zeros(self.pad, self.width)
            """α / r times A of each adapter, and zeros: what `adapters_copied` writes."""
            self.seed, self.place = torch.zeros((), dtype=torch.long, device=first.weight.device), 0
            """What dropout's mask depends on; the seed changes from step to step."""

    @property
    def adapted(self) -> bool:
        return bool(self.layers) and not self.layers[0].disable_adapters and not self.layers[0].merged

    @property
    def tail(self) -> int:
        """Columns that x needs behind its own now: `pad`, but for a product that is computed by another."""
        return self.pad if self.instead is None else 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, in + tail], whose last columns are written → [T, sum of out], one layer's output behind the other's."""
        if self.instead is not None:
            return self.instead(x[:, : self.width])
        if not self.adapted:
            return F.linear(x[:, : self.width], self.buffer[:, : self.width], self.bias)
        return _Folded.apply(x, self, self.rate, torch.is_grad_enabled(), *self.parts)  # type: ignore[no-any-return]

    @property
    def rate(self) -> float:
        """Share of the adapters' input that is dropped."""
        dropout = self.layers[0].lora_dropout["default"]
        return float(getattr(dropout, "p", 0.0)) if dropout.training else 0.0

    def seen(self, x: torch.Tensor, rate: float | None = None) -> torch.Tensor:
        """What the adapters see of x [T, in + pad]: [T, in], with the share `rate` dropped (by default, as now)."""
        rate = self.rate if rate is None else rate
        values = x[:, : self.width]
        return self.kernels.dropped(values, rate, self.seed, self.place) if rate else values

    def write_inner_(self, x: torch.Tensor, rate: float, trained: bool) -> None:
        """x Aᵀ into the last columns of x [T, in + pad]. trained: as fast as may be; else with the same bits for a row
        whoever else is in x."""
        # By `data`: whoever keeps x for its gradient has no part in these columns.
        seen, inner = self.seen(x, rate), x.data[:, self.width :]
        if trained:
            torch.mm(seen, self.a.T, out=inner)
        else:
            self.kernels.low_rank_(seen, self.a, inner)

    def add_share_(self, g: torch.Tensor, rate: float) -> None:
        """Add to the gradient of x, in g [T, in + pad], the adapters' share, of which the last columns are x Aᵀ's."""
        values, inner = g[:, : self.width], g[:, self.width :]
        if rate:
            self.kernels.add_dropped_(values, inner @ self.a, rate, self.seed, self.place)
        else:
            values.addmm_(inner, self.a)

    @property
    def parts(self) -> list[torch.Tensor]:
        """A [r, in] of each adapter, then B [out, r] of each: what is trained."""
        return [getattr(layer, name)["default"].weight for name in ("lora_A", "lora_B") for layer in self.layers]

    @property
    def scaling(self) -> float:
        return float(self.layers[0].scaling["default"])

    def columns(self, at: int) -> slice:
        """Of the last columns, those of adapter `at`."""
        return slice(at * self.rank, (at + 1) * self.rank)

    def check(self) -> None:
        """RuntimeError when the layers' weights are no longer pieces of the one that is computed with."""
        if self.bases[0].weight.data_ptr() != self.buffer.data_ptr():
            raise RuntimeError("the weights were moved or copied after they were laid together")


def adapters_copied(groups: Sequence[LoraGroup], kernels: ModuleType) -> Callable[[], None]:
    """What brings A and B of all groups up to date where they are computed with, in their type. It has to be called
    before each forward pass, and never between one and its backward pass."""
    groups = [group for group in groups if group.layers]
    if not groups:
        return lambda: None
    a_there, a_here, b_there, b_here, scaled = [], [], [], [], []
    for group in groups:
        count = len(group.layers)
        a_there += [group.a[group.columns(at)] for at in range(count)]
        a_here += [part.detach() for part in group.parts[:count]]
        last = group.buffer[:, group.width :]
        b_there += [last[rows, group.columns(at)] for at, rows in enumerate(group.rows)]
        b_here += [part.detach() for part in group.parts[count:]]
        scaled.append(group.a)

    copy_b = kernels.row_copier(b_there, b_here)

    @torch.no_grad()
    def refresh() -> None:
        torch._foreach_copy_(a_there, a_here)
        torch._foreach_mul_(scaled, [group.scaling for group in groups])
        copy_b()

    return refresh


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, group: LoraGroup, rate: float, trained: bool, *parts: torch.Tensor
    ) -> torch.Tensor:
        """parts: A and B of each adapter, which get the gradients. trained: whether they are wanted."""
        group.write_inner_(x, rate, trained)
        ctx.save_for_backward(x)
        ctx.group, ctx.rate, ctx.dtype = group, rate, parts[0].dtype
        return F.linear(x, group.buffer, group.bias)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        group: LoraGroup = ctx.group
        width = group.width
        wanted = ctx.needs_input_grad[0]
        whole = g @ group.buffer if wanted else g @ group.buffer[:, width:]
        g_inner = whole[:, -group.pad :]
        count = len(group.layers)
        used = group.rank * count
        g_a = _product(g_inner[:, :used].T, group.seen(x, ctx.rate), ctx.dtype)
        if group.scaling != 1:
            g_a *= group.scaling
        inner = x[:, width:]
        g_b = [_product(g[:, rows].T, inner[:, group.columns(at)], ctx.dtype) for at, rows in enumerate(group.rows)]
        if wanted:
            group.add_share_(whole, ctx.rate)
        return whole if wanted else None, *[None] * 3, *g_a.chunk(count), *g_b


class FoldedMlp(torch.autograd.Function):
    """down(silu(gate) · up) of [T, H + pad], all three with adapters, as `_Folded` computes them.

    What the adapters' gradients need of the widest tensors is summed where these are read for the MLP's own. The input
    of `down` is not kept, and gate and up neither where they are computed `again`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        gate_up: LoraGroup,
        down: LoraGroup,
        again: bool,
        kernels: ModuleType,
        trained: bool,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        """parts: of gate and up, then of down. trained: whether gradients are wanted."""
        gate_up.write_inner_(x, gate_up.rate, trained)
        both = F.linear(x, gate_up.buffer, gate_up.bias)
        gated = kernels.swiglu(both, down.pad)
        down.write_inner_(gated, down.rate, trained)
        if trained:
            ctx.save_for_backward(x, None if again else both, gated[:, down.width :].clone())
        ctx.groups, ctx.kernels, ctx.dtype = (gate_up, down), kernels, parts[0].dtype
        ctx.rates = gate_up.rate, down.rate
        return F.linear(gated, down.buffer, down.bias)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, both, inner = ctx.saved_tensors
        gate_up, down = ctx.groups
        if both is None:
            both = F.linear(x, gate_up.buffer, gate_up.bias)
        g_b_down = _product(g.T, inner[:, : down.rank], ctx.dtype)
        up = gate_up.rank * (len(gate_up.layers) - 1)
        g_both, g_a_down, g_b = ctx.kernels.mlp_backward(
            *(g @ down.buffer, both, down.a, x[:, gate_up.width :], gate_up.rank, up),
            (ctx.rates[1], down.seed, down.place),
        )
        whole = g_both @ gate_up.buffer
        used = gate_up.rank * len(gate_up.layers)
        g_a = _product(whole[:, gate_up.width :][:, :used].T, gate_up.seen(x, ctx.rates[0]), ctx.dtype)
        g_a_down = g_a_down[: down.rank].to(ctx.dtype)
        for value, group in ((g_a, gate_up), (g_a_down, down)):
            if group.scaling != 1:
                value *= group.scaling
        gate_up.add_share_(whole, ctx.rates[0])
        g_b = g_b.to(ctx.dtype)
        pieces = [g_b.flatten(0, 1)] if up == 0 else list(g_b)
        return whole, *[None] * 5, *g_a.chunk(len(gate_up.layers)), *pieces, g_a_down, g_b_down


def foldable(gate_up: LoraGroup, down: LoraGroup) -> bool:
    """Whether `FoldedMlp` takes them as they are now."""
    every = len(gate_up.layers) == len(gate_up.bases) and down.layers and gate_up.instead is None
    return bool(every and gate_up.adapted and down.adapted and max(gate_up.pad, down.pad) <= SUMMED)


def _product(first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """first @ second in the adapters' type: on a card the 16-bit product is written in it at once."""
    if first.dtype == dtype:
        return first @ second
    if first.is_cuda and dtype == torch.float32:
        return torch.mm(first, second, out_dtype=dtype)
    return (first @ second).to(dtype)


def _joined(bases: Sequence[nn.Linear], pad: int) -> torch.Tensor:
    """A buffer [sum of out, in + pad] of which the layers' weights are pieces, from now on if not yet."""
    sizes, width = [base.out_features for base in bases], bases[0].in_features
    weights = [base.weight.detach() for base in bases]
    first = weights[0]
    stride, step = width + pad, first.element_size()
    starts = [first.data_ptr() + sum(sizes[:at]) * stride * step for at in range(len(sizes))]
    end = (first.storage_offset() + sum(sizes) * stride) * step
    there = all(weight.stride() == (stride, 1) for weight in weights)
    if there and [w.data_ptr() for w in weights] == starts and first.untyped_storage().nbytes() >= end:
        return first.as_strided((sum(sizes), stride), (stride, 1))
    with torch.inference_mode(False):
        buffer = first.new_zeros(sum(sizes), stride)
    for base, weight, piece in zip(bases, weights, buffer[:, :width].split(sizes), strict=True):
        piece.copy_(weight)
        base.weight = nn.Parameter(piece, requires_grad=False)
    return buffer
