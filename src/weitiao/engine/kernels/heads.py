"""Heads before and after an attention: their rotation, two parts merged, their gradient as one."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.shapes import power

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@triton.jit
def _rotate(
    x,
    cos,
    sin,
    stride_t,
    stride_h,
    stride_table,
    heads,
    half,
    sign,
    BY: tl.constexpr,
    SECOND: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):  # type: ignore[no-untyped-def]
    token = tl.program_id(0).to(tl.int64)
    head, at = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (at < half)
    first = x + token * stride_t + head * stride_h + at * BY
    second = first + (half if SECOND == 0 else SECOND)
    one, two = tl.load(first, inside, 0.0).to(tl.float32), tl.load(second, inside, 0.0).to(tl.float32)
    c = tl.load(cos + token * stride_table + at, at < half, 0.0).to(tl.float32)
    s = tl.load(sin + token * stride_table + at, at < half, 0.0).to(tl.float32) * sign
    tl.debug_barrier()  # several threads may hold the same element
    tl.store(first, (one * c - two * s).to(x.dtype.element_ty), inside)
    tl.store(second, (two * c + one * s).to(x.dtype.element_ty), inside)


def rotate_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool, sign: int) -> None:
    tokens, heads, _ = x.shape
    half = cos.shape[-1] // 2
    by, second = (2, 1) if interleaved else (1, 0)
    _rotate[(tokens,)](
        *(x, cos, sin, x.stride(0), x.stride(1), cos.stride(0), heads, half, float(sign)),
        *(by, second, power(heads), power(half)),
    )


@triton.jit(do_not_specialize=["prefix", "total"])
def _merge(
    first,
    first_lse,
    second,
    second_lse,
    out,
    merged_first,
    merged_second,
    prefix,
    total,
    heads,
    size,
    chunk,
    stride,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
):  # type: ignore[no-untyped-def]
    token, head, at = tl.program_id(0).to(tl.int64), tl.arange(0, HEADS), tl.arange(0, SIZE)
    there = head < heads
    inside = there[:, None] & (at < size)[None, :]
    place = head[:, None] * size + at[None, :]
    value = tl.load(first + token * heads * size + place, inside, 0.0).to(tl.float32)
    if token >= prefix:
        own = token - prefix
        other = tl.load(second + own * heads * size + place, inside, 0.0).to(tl.float32)
        one = tl.load(first_lse + head * total + token, there, 0.0)
        group = own // chunk
        where = second_lse + (group * heads + head) * chunk + (own - group * chunk)
        two = tl.load(where, there, 0.0)
        top = tl.maximum(one, two)
        e1, e2 = tl.exp(one - top), tl.exp(two - top)
        value = (value * e1[:, None] + other * e2[:, None]) / (e1 + e2)[:, None]
        merged = top + tl.log(e1 + e2)
        tl.store(merged_first + head * total + token, merged, there)
        tl.store(merged_second + (group * heads + head) * chunk + (own - group * chunk), merged, there)
    else:
        tl.store(merged_first + head * total + token, tl.load(first_lse + head * total + token, there, 0.0), there)
    tl.store(out + token * stride + place, value.to(out.dtype.element_ty), inside)


def merge(
    first: torch.Tensor, first_lse: torch.Tensor, second: torch.Tensor, second_lse: torch.Tensor, pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    total, heads, size = first.shape
    chunk = second_lse.shape[-1]
    out = first.new_empty(total, heads * size + pad)
    # Apart from what is read: several threads of a program hold the same element.
    merged = torch.empty_like(first_lse), torch.empty_like(second_lse)
    assert all(x.is_contiguous() for x in (first, first_lse, second, second_lse))
    _merge[(total,)](
        *(first, first_lse, second, second_lse, out, *merged, total - len(second), total, heads, size, chunk),
        *(heads * size + pad, power(heads), power(size)),
    )
    return out, *merged


@triton.jit(do_not_specialize=["prefix"])
def _heads_gradient(  # type: ignore[no-untyped-def]
    dq,
    dk,
    dv,
    dq2,
    dk2,
    dv2,
    cos,
    sin,
    out,
    stride_table,
    prefix,
    query,
    key,
    size,
    half,
    BY: tl.constexpr,
    SECOND: tl.constexpr,
    SHARED: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head, at = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    of_q, of_k = head < query, (head >= query) & (head < query + key)
    inside, second = at < half, (half if SECOND == 0 else SECOND)
    own, early = token >= prefix, token < prefix
    place = at * BY
    q, k = head * size + place, (head - query) * size + place
    here_q, here_k = dq + token * query * size + q, dk + token * key * size + k
    one = tl.load(here_q, of_q & inside, 0.0).to(tl.float32) + tl.load(here_k, of_k & inside, 0.0).to(tl.float32)
    two = tl.load(here_q + second, of_q & inside, 0.0).to(tl.float32)
    two += tl.load(here_k + second, of_k & inside, 0.0).to(tl.float32)
    if SHARED:
        more_q, more_k = dq2 + (token - prefix) * query * size + q, dk2 + token * key * size + k
        one += tl.load(more_q, of_q & inside & own, 0.0).to(tl.float32)
        one += tl.load(more_k, of_k & inside & early, 0.0).to(tl.float32)
        two += tl.load(more_q + second, of_q & inside & own, 0.0).to(tl.float32)
        two += tl.load(more_k + second, of_k & inside & early, 0.0).to(tl.float32)
    c = tl.load(cos + token * stride_table + at, inside, 0.0).to(tl.float32)
    s = -tl.load(sin + token * stride_table + at, inside, 0.0).to(tl.float32)
    there = out + token * (query + 2 * key) * size + q
    turned = (of_q | of_k) & inside
    tl.store(there, (one * c - two * s).to(out.dtype.element_ty), turned)
    tl.store(there + second, (two * c + one * s).to(out.dtype.element_ty), turned)
    # What is behind the turned part of each head, and all of v, passes as it is.
    every = tl.arange(0, SIZE)[None, :]
    rest, of_v = every < size, (head >= query + key) & (head < query + 2 * key)
    still = rest & (every >= 2 * half)
    q, k, v = head * size + every, (head - query) * size + every, (head - query - key) * size + every
    value = tl.load(dq + token * query * size + q, of_q & still, 0.0).to(tl.float32)
    value += tl.load(dk + token * key * size + k, of_k & still, 0.0).to(tl.float32)
    value += tl.load(dv + token * key * size + v, of_v & rest, 0.0).to(tl.float32)
    if SHARED:
        value += tl.load(dq2 + (token - prefix) * query * size + q, of_q & still & own, 0.0).to(tl.float32)
        value += tl.load(dk2 + token * key * size + k, of_k & still & early, 0.0).to(tl.float32)
        value += tl.load(dv2 + token * key * size + v, of_v & rest & early, 0.0).to(tl.float32)
    there = out + token * (query + 2 * key) * size + q
    tl.store(there, value.to(out.dtype.element_ty), ((of_q | of_k) & still) | (of_v & rest))


def heads_gradient(
    own: Three, shared: Three | None, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    dq, dk, dv = (x.contiguous() for x in own)
    tokens, query, size = dq.shape
    key, prefix = dk.shape[1], 0
    more: tuple[torch.Tensor | None, ...] = (None, None, None)
    if shared is not None:
        more = tuple(x.contiguous() for x in shared)
        prefix = len(shared[1])
    out = dq.new_empty(tokens, (query + 2 * key) * size)
    half = cos.shape[-1] // 2
    by, second = (2, 1) if interleaved else (1, 0)
    _heads_gradient[(tokens,)](
        *(dq, dk, dv, *more, cos, sin, out, cos.stride(0), prefix, query, key, size, half),
        *(by, second, shared is not None, power(query + 2 * key), power(size), power(half)),
    )
    return out
