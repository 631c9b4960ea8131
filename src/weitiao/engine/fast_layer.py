"""A decoder's layers, computed from the parameters of transformers' and PEFT's modules in few kernels.

    + and norm → q, k, v in one product → rotation, attention → o → + and norm → gate, up in one → SwiGLU → down

Covers Llama's build as Qwen2, Qwen3 (norms of q and k), GLM-4 (gate and up in one layer, half of each head rotated in
pairs; two more norms in the 0414 series) and the text model of Qwen2-VL (M-RoPE) have it. What it does not cover is
left to transformers' own forward pass, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from types import ModuleType
from typing import Any, Literal

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from weitiao.engine import plain
from weitiao.engine.attention_plan import AttentionPlan
from weitiao.engine.exact import Exact
from weitiao.engine.lora_gemm import FoldedMlp, LoraGroup, adapters_copied, foldable, groupable
from weitiao.engine.pieces import AddNorm, Rotate, Swiglu
from weitiao.engine.settled import Settled, can_settle, room_for
from weitiao.engine.slots import SlotPlan
from weitiao.engine.split_attention import Heads, SplitAttention

KNOWN = ("Qwen2Model", "Qwen3Model", "LlamaModel", "GlmModel", "Glm4Model", "Qwen2VLTextModel", "Qwen2_5_VLTextModel")
"""Classes of transformers whose layers are of this build."""
INTERLEAVED = ("GlmModel", "Glm4Model")
"""Those that rotate neighbours, not halves."""

Table = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines [T, R]."""


class FastDecoder:
    def __init__(self, body: Any, kernels: ModuleType = plain) -> None:
        """body: a decoder for which `unfit` finds nothing. Its weights are laid together where one input meets them.
        kernels: the module `plain` or, on a card, `kernels`."""
        self.body, self.kernels = body, kernels
        self.layers = [_Layer(layer, type(body).__name__ in INTERLEAVED, kernels) for layer in body.layers]
        groups = [group for layer in self.layers for group in layer.groups]
        self.groups = groups
        self.refresh = adapters_copied(groups, kernels)
        self.seed = torch.zeros((), dtype=torch.long, device=body.norm.weight.device)
        """Of dropout's masks, the same for a forward pass and its backward pass."""
        for place, group in enumerate(groups):
            group.seed, group.place = self.seed, place
        self.recompute: Literal["nothing", "gate_up", "layer"] = "nothing"
        """What is computed again in the backward pass instead of kept."""
        self._steady = False
        self._can_settle, self._settled = can_settle(groups), list[Settled]()

    @contextmanager
    def steady(self, rows: int = 0) -> Iterator[None]:
        """Meanwhile the adapters stay what they are now, and are brought up to date no more. rows: where enough is
        computed meanwhile that weights are worth to be `Settled`, if they can be, how many most products have."""
        self.refresh()
        if rows and self._can_settle:
            if not (self._settled and all(one.current() for one in self._settled)):
                self._settled = [Settled(group, rows) for group in self.groups] if room_for(self.groups) else []
            self._use(self._settled)
        self._steady = True
        try:
            yield
        finally:
            self._steady = False
            self._use(())

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Meanwhile 16-bit weights are computed with in float32, as the states that come have to be."""
        before = [group.instead for group in self.groups]
        self._use(list(map(Exact, self.groups)))
        try:
            yield
        finally:
            self._use(before)

    def _use(self, products: Sequence[Callable[[torch.Tensor], torch.Tensor] | None]) -> None:
        for group, product in zip_longest(self.groups, products):
            group.instead = product

    @property
    def random(self) -> bool:
        """Whether inputs of adapters are dropped in training."""
        rates = (g.layers[0].lora_dropout["default"] for layer in self.layers for g in layer.groups if g.layers)
        return any(getattr(dropout, "p", 0.0) for dropout in rates)

    def __call__(
        self,
        embedded: torch.Tensor,
        positions: torch.Tensor,
        plan: AttentionPlan | SlotPlan,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embedded [T, H], T = B · new; positions int64 [B, new] or [3, B, new]; keep int64 [N] → the last hidden
        states [N, H] of these tokens, normed; without `keep` of all. In the last layer, what is behind the attention
        is computed for them alone."""
        self.layers[0].qkv.check()
        if not self._steady:
            self._settled = []  # training needs the memory
            self.refresh()
        table = self._rotation(embedded, positions)
        x, delta = embedded, None
        again = self._again if torch.is_grad_enabled() else _once
        whole, part = (again if self.recompute == kind else _once for kind in ("layer", "gate_up"))
        for at, layer in enumerate(self.layers):
            here = keep if layer is self.layers[-1] else None
            x, delta = whole(layer, x, delta, table, plan.layer(at), here, part)
        _, normed = _add_norm(x, delta, self.body.norm, 0, self.kernels)
        return normed

    def _again(self, function: Callable[..., Any], *args: Any) -> Any:
        # No generator is asked in a layer.
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)

    def _rotation(self, embedded: torch.Tensor, positions: torch.Tensor) -> Table:
        """As the model's own module gives them."""
        sections = (getattr(self.body.config, "rope_parameters", None) or {}).get("mrope_section")
        if sections and positions.ndim == 2:
            positions = positions.expand(3, *positions.shape)
        cos, sin = self.body.rotary_emb(embedded[None], positions)
        if (
            cos.ndim == 4 and sections
        ):  # until transformers 5.2x the three kinds of position are put together by the layers
            cos, sin = (_sections(table, sections) for table in (cos, sin))
        return cos.flatten(0, 1), sin.flatten(0, 1)


def unfit(body: Any) -> str | None:
    """Why a decoder cannot be computed here; None when it can."""
    name = type(body).__name__
    if name not in KNOWN:
        return f"{name} is not known to it"
    if body.config.hidden_act != "silu":
        return f"its activation is {body.config.hidden_act}"
    if body.norm.weight.dtype == torch.float16:
        return "weights in float16"
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
    def __init__(self, layer: Any, interleaved: bool, kernels: ModuleType) -> None:
        self.layer, self.kernels = layer, kernels
        attention, mlp = layer.self_attn, layer.mlp
        qkv, gate_up = _groups(layer)
        self.qkv = LoraGroup(_linear(attention, *qkv), kernels)
        self.o = LoraGroup([attention.o_proj], kernels)
        self.gate_up = LoraGroup(_linear(mlp, *gate_up), kernels)
        self.down = LoraGroup([mlp.down_proj], kernels)
        query, key, _ = (width // attention.head_dim for width in self.qkv.sizes)
        self.heads = Heads(query, key, attention.head_dim, attention.scaling, interleaved)

    @property
    def groups(self) -> tuple[LoraGroup, ...]:
        return self.qkv, self.o, self.gate_up, self.down

    def __call__(
        self,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        table: Table,
        plan: AttentionPlan | SlotPlan,
        keep: torch.Tensor | None,
        part: Callable[..., torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [T, H] and what is still to be added to it → the same behind this layer, [T, H], or [N, H] at `keep`.
        part: calls the function that makes the MLP's widest tensors."""
        layer, kernels = self.layer, self.kernels
        x, normed = _add_norm(x, delta, layer.input_layernorm, self.qkv.tail, kernels)
        attended = self._attended(self.qkv(normed), table, plan)
        if keep is not None:
            x, attended = x.index_select(0, keep), attended.index_select(0, keep)
        delta = self.o(attended)
        if hasattr(layer, "post_self_attn_layernorm"):
            delta = _add_norm(delta, None, layer.post_self_attn_layernorm, 0, kernels)[1]
        x, normed = _add_norm(x, delta, layer.post_attention_layernorm, self.gate_up.tail, kernels)
        delta = self._mlp(normed, part)
        if hasattr(layer, "post_mlp_layernorm"):
            delta = _add_norm(delta, None, layer.post_mlp_layernorm, 0, kernels)[1]
        return x, delta

    def _mlp(self, normed: torch.Tensor, part: Callable[..., torch.Tensor]) -> torch.Tensor:
        if foldable(self.gate_up, self.down):
            parts = *self.gate_up.parts, *self.down.parts
            how = part is not _once, self.kernels, torch.is_grad_enabled()
            return FoldedMlp.apply(normed, self.gate_up, self.down, *how, *parts)  # type: ignore[no-any-return]
        return self.down(part(self._gated, normed))

    def _gated(self, normed: torch.Tensor) -> torch.Tensor:
        return Swiglu.apply(self.gate_up(normed), self.down.tail, self.kernels)  # type: ignore[no-any-return]

    def _attended(self, qkv: torch.Tensor, table: Table, plan: AttentionPlan | SlotPlan) -> torch.Tensor:
        """[T, (H + 2 Hk) D] → [T, H D + tail]."""
        heads, attention = self.heads, self.layer.self_attn
        if hasattr(attention, "q_norm"):
            q, k, v = heads.parts(qkv)
            q, k = (_head_norm(x, norm) for x, norm in ((q, attention.q_norm), (k, attention.k_norm)))
            qkv = torch.cat([q, k, v], dim=1).flatten(1)
        if isinstance(plan, SlotPlan) and plan.kernels is not None:
            return plan.attended(qkv, *table, heads, self.o.tail)
        if plan.split is not None and plan.split.takes(qkv.dtype, heads, self.kernels):
            return SplitAttention.apply(  # type: ignore[no-any-return]
                qkv, *table, heads, plan.split, self.o.tail, self.kernels
            )
        qk, v = qkv.unflatten(1, (-1, heads.size)).split([heads.query + heads.key, heads.key], dim=1)
        q, k = Rotate.apply(qk, *table, heads.interleaved, self.kernels).split([heads.query, heads.key], dim=1)
        q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
        out = plan.attend(q, k, v, heads.scaling)[0].flatten(1)
        return F.pad(out, (0, self.o.tail)) if self.o.tail else out


def _once(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, norm: Any, pad: int, kernels: ModuleType
) -> tuple[torch.Tensor, torch.Tensor]:
    function: Callable[..., tuple[torch.Tensor, torch.Tensor]] = AddNorm.apply
    return function(x, delta, norm.weight, norm.variance_epsilon, pad, kernels)


def _head_norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight.to(x.dtype), norm.variance_epsilon)


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
