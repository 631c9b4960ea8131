"""What the Triton kernels compute, in torch: for a CPU, and to compare with.

A buffer with `pad` columns more than it has values leaves room for what a `LoraGroup` writes there. All [rows, width]
tensors may have gaps between their rows, none in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

Noise = tuple[float, torch.Tensor, int]
"""Rate, seed and place of `dropped`; rate 0: nothing is."""

row_attention = slot_attention = None
"""There is none: see `attention_plan` and `slots`."""

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float, pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, delta [rows, H] → x + delta (or x itself); its RMS norm times the weight, with `pad` columns of anything
    behind; 1 / RMS, float32 [rows]."""
    summed = x if delta is None else x + delta
    width = summed.shape[-1]
    normed = summed.new_empty(*summed.shape[:-1], width + pad)
    wide = summed.float()
    rstd = torch.linalg.vector_norm(wide, dim=-1).square_().div_(width).add_(eps).rsqrt_()
    # Written where it belongs at once: on a CPU each tensor between costs as much as what is computed.
    torch.mul(wide, rstd[:, None], out=normed[:, :width]).mul_(weight)
    return summed, normed, rstd


def add_norm_backward(
    g: torch.Tensor, more: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor, rstd: torch.Tensor
) -> torch.Tensor:
    """Gradient [rows, H] of x and delta. g: of the normed (the padding's is not read). more: of the sum. x: the sum."""
    unit = x.float() * rstd[:, None]
    weighted = g[:, : x.shape[-1]].float() * weight.float()
    result = torch.addcmul(weighted, unit, (weighted * unit).mean(-1, keepdim=True), value=-1).mul_(rstd[:, None])
    return result.to(x.dtype) if more is None else result.add_(more).to(x.dtype)


def swiglu(both: torch.Tensor, pad: int) -> torch.Tensor:
    """silu(gate) · up of [rows, 2 I], gate and up side by side: [rows, I + pad]."""
    gate, up = both.chunk(2, -1)
    out = both.new_empty(len(both), gate.shape[1] + pad)
    torch.ops.aten.silu.out(gate, out=out[:, : gate.shape[1]]).mul_(up)
    return out


def swiglu_backward(g: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
    """g [rows, I + pad] → [rows, 2 I]."""
    gate, up = both.chunk(2, -1)
    g = g[:, : gate.shape[1]]
    out = torch.empty_like(both)
    out_gate, out_up = out.chunk(2, -1)
    torch.mul(g, F.silu(gate), out=out_up)
    torch.ops.aten.silu_backward.grad_input(g * up, gate, grad_input=out_gate)
    return out


def low_rank_(x: torch.Tensor, a: torch.Tensor, out: torch.Tensor) -> None:
    """x [rows, in] · aᵀ of a [P, in] into out [rows, P]. On a card a row gets the same bits among any others."""
    torch.mm(x, a.T, out=out)


def halves(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x float32 [rows, width] as a sum of two of 16 bits, [2, rows, width]."""
    high = x.to(dtype)
    return torch.stack([high, (x - high).to(dtype)])


def mlp_backward(
    g: torch.Tensor, both: torch.Tensor, a: torch.Tensor, inner: torch.Tensor, rank: int, up: int, noise: Noise
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`swiglu_backward`, with what the adapters on both sides of it have of the same tensors.

    g [rows, I + P]: the gradient of silu(gate) · up but for the share of the adapter behind it, whose own is in the
    last columns; a [P, I]: that adapter's A; noise: of its input; inner [rows, Q]: of the adapter before it, in its
    first `rank` columns for gate and from column `up` on for up. Gives the gradient [rows, 2 I] of `both`, and in
    float32 (or wider) that of a [P, I] and of the B of gate and up [2, I, rank].
    """
    width = a.shape[1]
    late = g[:, width:]
    share, seen = late @ a, swiglu(both, 0)
    if noise[0]:
        share, seen = dropped(share, *noise), dropped(seen, *noise)
    g_both = swiglu_backward(g[:, :width] + share, both)
    wide = torch.promote_types(g.dtype, torch.float32)
    g_a = (late.T @ seen).to(wide)
    g_b = [g_both[:, at * width :][:, :width].T @ inner[:, first : first + rank] for at, first in ((0, 0), (1, up))]
    return g_both, g_a, torch.stack(g_b).to(wide)


def rotate_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool, sign: int) -> None:
    """Turn pairs of each head's elements, in place: (a, b) → (a cos − b sin, b cos + a sin); sign −1 turns back.

    x [T, heads, D]; cos, sin [T, R], of whose first half each belongs to a pair; the head's first R elements are paired
    as neighbours, or each with the one R / 2 further.
    """
    half = cos.shape[-1] // 2
    if interleaved:
        a, b = x[..., : 2 * half : 2], x[..., 1 : 2 * half : 2]
    else:
        a, b = x[..., :half], x[..., half : 2 * half]
    c, s = cos[:, None, :half], sign * sin[:, None, :half]
    turned = (a * c).addcmul_(b, s, value=-1)
    b.mul_(c).addcmul_(a, s)
    a.copy_(turned)


def merge(
    first: torch.Tensor, first_lse: torch.Tensor, second: torch.Tensor, second_lse: torch.Tensor, pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention over two sets of keys from that over each: softmax is of both together.

    first [T, H, D] with its log-sum-exp float32 [H, T]; second [own, H, D], of the last tokens, with [own / C, H, C].
    Gives [T, H D + pad], and the log-sum-exp of the whole in both shapes.
    """
    total, own = len(first), len(second)
    out = first.new_empty(total, first[0].numel() + pad)
    whole = out[:, : first[0].numel()].view(total, *first.shape[1:])
    whole.copy_(first)
    one, two = first_lse[:, -own:].T, second_lse.transpose(1, 2).flatten(0, 1)
    both = torch.logaddexp(one, two)
    parts = zip((first[-own:], second), (one, two), strict=True)
    whole[-own:] = sum(part * (lse - both).exp()[..., None] for part, lse in parts)
    merged = torch.cat([first_lse[:, :-own], both.T], dim=1)
    return out, merged, both.unflatten(0, (-1, second_lse.shape[-1])).transpose(1, 2).contiguous()


def dropped(x: torch.Tensor, rate: float, seed: torch.Tensor, place: int) -> torch.Tensor:
    """x [rows, width] with a share `rate` of its elements set to 0, the others divided by what is left.

    Which ones is a function of seed (int64 scalar), place, row and column: the same mask is there again when it is
    wanted again, whatever was drawn in between.
    """
    # Made anew each time, which a CUDA graph cannot do: there, Triton's version is wanted.
    draw = torch.Generator(x.device).manual_seed((int(seed) * 1_000_003 + place) % 2**63)
    mask = torch.empty(x.shape, device=x.device).bernoulli_(1 - rate, generator=draw)
    return (x * mask).div_(1 - rate).to(x.dtype)


def add_dropped_(out: torch.Tensor, more: torch.Tensor, rate: float, seed: torch.Tensor, place: int) -> None:
    """out += dropped(more): the gradient of `dropped` by its mask."""
    out += dropped(more, rate, seed, place)


def heads_gradient(
    own: Three, shared: Three | None, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """Gradient [T, (H + 2 Hk) D] of q, k and v before the rotation.

    own: dq [T, H, D], dk and dv [T, Hk, D]. shared: what is to be added to dq of the last tokens, and to dk and dv of
    the first.
    """
    whole = torch.cat(own, dim=1)
    query, key = own[0].shape[1], own[1].shape[1]
    if shared is not None:
        dq, dk, dv = shared
        whole[-len(dq) :, :query] += dq
        whole[: len(dk), query : query + key] += dk
        whole[: len(dv), query + key :] += dv
    rotate_(whole[:, : query + key], cos, sin, interleaved, -1)
    return whole.flatten(1)


def row_copier(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> Callable[[], None]:
    """What copies each [rows, r] to where its target is, a view with gaps, in its type; neither may move."""
    targets, sources = list(targets), list(sources)
    return lambda: torch._foreach_copy_(targets, sources)


def cross_entropy_(logits: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    """Cross-entropies float32 [N] of int64 `labels`, 0 for an `ignored`; `logits` [N, V] become their gradient."""
    counted = labels != ignored
    wanted = labels.where(counted, 0)[:, None]
    logs = logits.float().log_softmax(-1)
    losses = -logs.gather(1, wanted)[:, 0] * counted
    share = logs.exp_()
    share.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=share.dtype))
    logits.copy_(share.mul_(counted[:, None]))
    return losses


def log_sums(logits: torch.Tensor) -> torch.Tensor:
    """Log-sum-exp of each row of logits [N, V], float32 [N], in nats."""
    return torch.cat([part.float().logsumexp(-1) for part in logits.split(TOGETHER)])


TOGETHER = 64
"""Rows of logits that are looked at together, in float32: on a CPU, more of them leave its caches."""


def chosen(logits: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of logits [N, V], the likeliest allowed token of each, int64 [N], and its log-probability among the allowed ones,
    float32 [N], in nats.

    allowed: int32 [N, words], or [1, words] for all of them; bit t % 32 of word t // 32 is that of token t. Where none
    is allowed, neither result means anything.
    """
    each = torch.arange(32, dtype=torch.int32, device=logits.device)
    tokens, chances = [], []
    for start in range(0, len(logits), TOGETHER):
        part = slice(start, start + TOGETHER)
        words = allowed[part] if len(allowed) > 1 else allowed
        may = ((words[:, :, None] >> each) & 1).bool().flatten(1)[:, : logits.shape[1]]
        chance, token = logits[part].float().masked_fill(~may, -torch.inf).log_softmax(-1).max(-1)
        tokens.append(token)
        chances.append(chance)
    return torch.cat(tokens), torch.cat(chances)
