"""A decoder's layers, computed from the parameters of transformers' and PEFT's modules in few kernels.

    norm → q, k, v in one product → rotation → attention plan → o → + → norm → gate, up in one → SwiGLU → down → +

Covers Llama's build as Qwen2, Qwen3 (norms of q and k), GLM-4 (gate and up in one layer, half of each head rotated in
pairs; two more norms in the 0414 series) and the text model of Qwen2-VL (M-RoPE) have it. What it does not cover is
left to transformers' own forward pass, with the reason.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from weitiao.engine.attention_plan import AttentionPlan
from weitiao.engine.lora_gemm import LoraGroup, groupable, keep_casts

KNOWN = ("Qwen2Model", "Qwen3Model", "LlamaModel", "GlmModel", "Glm4Model", "Qwen2VLTextModel", "Qwen2_5_VLTextModel")
"""Classes of transformers whose layers are of this build."""
INTERLEAVED = ("GlmModel", "Glm4Model")
"""Those that rotate neighbours, not halves."""


class FastDecoder:
    def __init__(self, body: Any, triton: bool = False) -> None:
        """body: a decoder for which `unfit` finds nothing. Its weights are laid together where one input meets them.
        triton: with the kernels of `kernels.py` in place of torch's."""
        self.body = body
        self.layers = [_Layer(layer, type(body).__name__ in INTERLEAVED, triton) for layer in body.layers]
        groups = [group for layer in self.layers for group in layer.groups if group.adapted]
        self._refresh = keep_casts(groups, body.norm.weight.dtype) if groups else lambda: None

    def __call__(self, embedded: torch.Tensor, positions: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """embedded [1, T, H]; positions int64 [1, T] or [3, 1, T] → the last hidden states [1, T, H], normed."""
        self.layers[0].qkv.check()
        self._refresh()
        cos, sin = self._rotation(embedded, positions)
        x = embedded[0]
        for layer in self.layers:
            if layer.recomputed:
                x = checkpoint(layer, x, cos, sin, plan, use_reentrant=False)
            else:
                x = layer(x, cos, sin, plan)
        return _norm(x, self.body.norm)[None]

    def _rotation(self, embedded: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [1, T, D], as the model's own module gives them."""
        sections = (getattr(self.body.config, "rope_parameters", None) or {}).get("mrope_section")
        if sections and positions.ndim == 2:
            positions = positions.expand(3, *positions.shape)
        cos, sin = self.body.rotary_emb(embedded, positions)
        if (
            cos.ndim == 4 and sections
        ):  # until transformers 5.2x the three kinds of position are put together by the layers
            cos, sin = (_sections(table, sections) for table in (cos, sin))
        return cos, sin


def unfit(body: Any) -> str | None:
    """Why a decoder cannot be computed here; None when it can."""
    name = type(body).__name__
    if name not in KNOWN:
        return f"{name} is not known to it"
    if body.config.hidden_act != "silu":
        return f"its activation is {body.config.hidden_act}"
    if getattr(body, "has_sliding_layers", False):
        return "some of its layers see a window"
    for layer in body.layers:
        qkv, gate_up = _groups(layer)
        groups = (qkv, ("o_proj",), gate_up, ("down_proj",))
        parts = (layer.self_attn, layer.self_attn, layer.mlp, layer.mlp)
        if not all(groupable(_linear(part, *names)) for part, names in zip(parts, groups, strict=True)):
            return "its linear layers are stored in 4 bits, spread over cards, or have adapters of different kinds"
    return None


class _Layer:
    def __init__(self, layer: Any, interleaved: bool, triton: bool) -> None:
        self.layer = layer
        self.swiglu: Any = Swiglu
        self.rotate: Any = Rotate
        if triton:
            from weitiao.engine import kernels

            self.swiglu, self.rotate = kernels.Swiglu, kernels.Rotate
        attention, mlp = layer.self_attn, layer.mlp
        qkv, gate_up = _groups(layer)
        self.qkv, self.o = LoraGroup(_linear(attention, *qkv)), LoraGroup([attention.o_proj])
        self.gate_up, self.down = LoraGroup(_linear(mlp, *gate_up)), LoraGroup([mlp.down_proj])
        self.scaling, self.size = attention.scaling, attention.head_dim
        self.theirs = sys.modules[type(attention).__module__].apply_rotary_pos_emb if interleaved else None

    @property
    def groups(self) -> tuple[LoraGroup, ...]:
        return self.qkv, self.o, self.gate_up, self.down

    @property
    def recomputed(self) -> bool:
        return bool(getattr(self.layer, "gradient_checkpointing", False) and self.layer.training)

    def __call__(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """x [T, H] → [T, H]."""
        layer = self.layer
        added = self.o(self._attended(_norm(x, layer.input_layernorm), cos, sin, plan))
        if hasattr(layer, "post_self_attn_layernorm"):
            added = _norm(added, layer.post_self_attn_layernorm)
        x = x + added
        added = self.down(self.swiglu.apply(self.gate_up(_norm(x, layer.post_attention_layernorm))))
        if hasattr(layer, "post_mlp_layernorm"):
            added = _norm(added, layer.post_mlp_layernorm)
        return x + added

    def _attended(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        attention = self.layer.self_attn
        heads = [width // self.size for width in self.qkv.sizes]
        qk, v = self.qkv(x).view(len(x), -1, self.size).split([heads[0] + heads[1], heads[2]], dim=1)
        if hasattr(attention, "q_norm"):
            q, k = qk.split(heads[:2], dim=1)
            qk = torch.cat([_norm(q, attention.q_norm), _norm(k, attention.k_norm)], dim=1)
        if self.theirs is None:
            qk = self.rotate.apply(qk, cos[0, :, None], sin[0, :, None])
        q, k = qk.split(heads[:2], dim=1)
        q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
        if self.theirs is not None:
            q, k = self.theirs(q, k, cos, sin)
        return plan.attend(q, k, v, self.scaling)[0].flatten(1)


class Rotate(torch.autograd.Function):
    """Each head's halves turned against each other (RoPE): x cos + (−x₂, x₁) sin."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """x [T, heads, D]; cos, sin [T, 1, D]."""
        ctx.save_for_backward(cos, sin)
        (x1, x2), (s1, s2) = x.chunk(2, -1), sin.chunk(2, -1)
        out = x * cos
        out1, out2 = out.chunk(2, -1)
        out1.addcmul_(x2, s1, value=-1)
        out2.addcmul_(x1, s2)
        return out

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (g1, g2), (s1, s2) = g.chunk(2, -1), sin.chunk(2, -1)
        out = g * cos
        out1, out2 = out.chunk(2, -1)
        out1.addcmul_(g2, s2)
        out2.addcmul_(g1, s1, value=-1)
        return out, None, None


class Swiglu(torch.autograd.Function):
    """silu(gate) · up, gate and up side by side in the last dimension."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        out = torch.empty_like(both)
        out_gate, out_up = out.chunk(2, -1)
        torch.mul(g, F.silu(gate), out=out_up)
        torch.ops.aten.silu_backward.grad_input(g * up, gate, grad_input=out_gate)
        return out


def _norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _groups(layer: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the linear layers that read the same input, in attention and in the MLP."""
    fused = hasattr(layer.mlp, "gate_up_proj")
    return ("q_proj", "k_proj", "v_proj"), ("gate_up_proj",) if fused else ("gate_proj", "up_proj")


def _linear(part: Any, *names: str) -> list[Any]:
    return [getattr(part, name) for name in names]


def _sections(table: torch.Tensor, sections: list[int]) -> torch.Tensor:
    """[3, 1, T, D] → [1, T, D]: which of time, row and column each pair of dimensions goes by."""
    pieces = table.split([*sections, *sections], dim=-1)
    return torch.cat([piece[at % 3] for at, piece in enumerate(pieces)], dim=-1)
