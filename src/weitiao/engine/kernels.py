"""Triton kernels for what torch computes in several: sum and norm, SwiGLU, the rotation of heads, two parts of an
attention, the cross-entropy and its gradient.

`plain.py` has the same functions in torch, with what they take and give. Here they compute in float32 and round once,
where torch rounds to 16 bits behind each of its own. The shapes of programs are fixed and never tuned: the same
machine, the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl

from weitiao.engine import row_attention as row_attention
from weitiao.engine import slot_attention as slot_attention

Noise = tuple[float, torch.Tensor, int]
Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

WIDTH = 1024
"""Elements that a program of the SwiGLU kernels computes at a time."""
# Numbers that change from pack to pack or from layer to layer are `do_not_specialize`: Triton would build a kernel anew
# for 1, for multiples of 16 and for the rest.

COPIED = 128
"""Rows that a program copies."""
MLP_CHUNK, MLP_ROWS, MLP_COLUMNS = 1024, 32, 64
"""Rows over which a program sums gradients of adapters, and the columns that it holds; see `tile` for the rows."""
VOCABULARY = 4096
"""Logits that a program of the cross-entropy holds at a time."""


@triton.jit
def _add_norm(x, delta, weight, summed, normed, rstd, width, stride, eps, DELTA: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * width + at, inside, 0.0).to(tl.float32)
    if DELTA:
        value += tl.load(delta + row * width + at, inside, 0.0).to(tl.float32)
        rounded = value.to(summed.dtype.element_ty)
        tl.store(summed + row * width + at, rounded, inside)
        value = rounded.to(tl.float32)
    scale = 1 / tl.sqrt(tl.sum(value * value) / width + eps)
    tl.store(rstd + row, scale)
    result = value * scale * tl.load(weight + at, inside, 0.0).to(tl.float32)
    tl.store(normed + row * stride + at, result.to(normed.dtype.element_ty), inside)


def add_norm(
    x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float, pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows, width = x.shape
    x = x.contiguous()
    delta = None if delta is None else delta.contiguous()
    summed = x if delta is None else torch.empty_like(x)
    normed, rstd = x.new_empty(rows, width + pad), x.new_empty(rows, dtype=torch.float32)
    _add_norm[(rows,)](
        x, delta, weight, summed, normed, rstd, width, width + pad, eps, delta is not None, _power(width), num_warps=8
    )
    return summed, normed, rstd


@triton.jit
def _add_norm_backward(
    g, more, x, weight, rstd, out, width, stride, stride_more, MORE: tl.constexpr, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = at < width
    scale = tl.load(rstd + row)
    unit = tl.load(x + row * width + at, inside, 0.0).to(tl.float32) * scale
    weighted = tl.load(g + row * stride + at, inside, 0.0).to(tl.float32)
    weighted *= tl.load(weight + at, inside, 0.0).to(tl.float32)
    result = scale * (weighted - unit * (tl.sum(weighted * unit) / width))
    if MORE:
        result += tl.load(more + row * stride_more + at, inside, 0.0).to(tl.float32)
    tl.store(out + row * width + at, result.to(out.dtype.element_ty), inside)


def add_norm_backward(
    g: torch.Tensor, more: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor, rstd: torch.Tensor
) -> torch.Tensor:
    rows, width = x.shape
    g, out = _rows(g), torch.empty_like(x)
    more = None if more is None else _rows(more)
    stride_more = 0 if more is None else more.stride(0)
    _add_norm_backward[(rows,)](
        g, more, x, weight, rstd, out, width, g.stride(0), stride_more, more is not None, _power(width), num_warps=8
    )
    return out


@triton.jit
def _swiglu(both, out, inner, stride, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    gate = tl.load(both + row * 2 * inner + column, inside).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + column, inside).to(tl.float32)
    result = gate / (1 + tl.exp(-gate)) * up
    tl.store(out + row * stride + column, result.to(out.dtype.element_ty), inside)


def swiglu(both: torch.Tensor, pad: int) -> torch.Tensor:
    rows, inner = both.shape[0], both.shape[1] // 2
    out = both.new_empty(rows, inner + pad)
    _swiglu[(rows, triton.cdiv(inner, WIDTH))](both, out, inner, inner + pad, WIDTH)
    return out


@triton.jit
def _swiglu_backward(both, gradient, out, inner, stride, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    gate = tl.load(both + row * 2 * inner + column, inside).to(tl.float32)
    up = tl.load(both + row * 2 * inner + inner + column, inside).to(tl.float32)
    g = tl.load(gradient + row * stride + column, inside).to(tl.float32)
    share = 1 / (1 + tl.exp(-gate))
    of_gate = g * up * share * (1 + gate * (1 - share))
    of_up = g * gate * share
    tl.store(out + row * 2 * inner + column, of_gate.to(out.dtype.element_ty), inside)
    tl.store(out + row * 2 * inner + inner + column, of_up.to(out.dtype.element_ty), inside)


def swiglu_backward(g: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
    rows, inner = both.shape[0], both.shape[1] // 2
    g, out = _rows(g), torch.empty_like(both)
    _swiglu_backward[(rows, triton.cdiv(inner, WIDTH))](both, g, out, inner, g.stride(0), WIDTH)
    return out


@triton.jit(do_not_specialize=["rows", "place_of_mask", "limit"])
def _mlp_backward(  # type: ignore[no-untyped-def]
    g,
    both,
    a,
    inner,
    out,
    sum_a,
    sum_b,
    rows,
    width,
    stride,
    stride_inner,
    rank,
    up_from,
    seed,
    place_of_mask,
    limit,
    scale,
    DROP: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    chunk = tl.program_id(1)
    inside = (column < width)[None, :]
    of_p, of_q = tl.arange(0, P), tl.arange(0, Q)
    factor = tl.load(a + of_p[:, None] * width + column[None, :], inside, 0.0)
    total_a = tl.zeros((P, COLUMNS), tl.float32)
    total_gate, total_up = tl.zeros((Q, COLUMNS), tl.float32), tl.zeros((Q, COLUMNS), tl.float32)
    for low in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, rows), ROWS):
        row = (low + tl.arange(0, ROWS)).to(tl.int64)
        here = (row < rows)[:, None]
        late = tl.load(g + row[:, None] * stride + width + of_p[None, :], here, 0.0)
        value = tl.load(g + row[:, None] * stride + column[None, :], here & inside, 0.0).to(tl.float32)
        more = tl.dot(late, factor, input_precision="ieee")
        if DROP:
            kept = _kept(row[:, None] * width + column[None, :], seed, place_of_mask, limit)
            more = tl.where(kept, more * scale, 0.0)
        value += more
        place = row[:, None] * 2 * width + column[None, :]
        gate = tl.load(both + place, here & inside, 0.0).to(tl.float32)
        up = tl.load(both + place + width, here & inside, 0.0).to(tl.float32)
        share = 1 / (1 + tl.exp(-gate))
        of_gate = (value * up * share * (1 + gate * (1 - share))).to(out.dtype.element_ty)
        of_up = (value * gate * share).to(out.dtype.element_ty)
        tl.store(out + place, of_gate, here & inside)
        tl.store(out + place + width, of_up, here & inside)
        low_rank = tl.trans(tl.load(inner + row[:, None] * stride_inner + of_q[None, :], here, 0.0))
        total_gate += tl.dot(low_rank, of_gate, input_precision="ieee")
        total_up += tl.dot(low_rank, of_up, input_precision="ieee")
        seen = gate * share * up
        if DROP:
            seen = tl.where(kept, seen * scale, 0.0)
        total_a += tl.dot(tl.trans(late), seen.to(late.dtype), input_precision="ieee")
    tl.store(sum_a + (chunk * P + of_p[:, None]) * width + column[None, :], total_a, inside)
    there = sum_b + (chunk * 2 * rank + of_q[:, None]) * width + column[None, :]
    tl.store(there, total_gate, inside & (of_q < rank)[:, None])
    of_rank = (of_q >= up_from) & (of_q < up_from + rank)
    tl.store(there + (rank - up_from) * width, total_up, inside & of_rank[:, None])


def mlp_backward(
    g: torch.Tensor, both: torch.Tensor, a: torch.Tensor, inner: torch.Tensor, rank: int, up: int, noise: Noise
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rate, seed, place = noise
    rows, width, pad = len(g), a.shape[1], len(a)
    out = torch.empty_like(both)
    chunks = triton.cdiv(rows, MLP_CHUNK)
    step, warps = row_attention.tile(both.dtype)
    sum_a = both.new_empty(chunks, pad, width, dtype=torch.float32)
    sum_b = both.new_empty(chunks, 2, rank, width, dtype=torch.float32)
    _mlp_backward[(triton.cdiv(width, MLP_COLUMNS), chunks)](
        *(g, both, a, inner, out, sum_a, sum_b, rows, width, g.stride(0), inner.stride(0), rank, up),
        *(seed, place, _limit(rate), 1 / (1 - rate), rate > 0),
        *(MLP_CHUNK, min(step, MLP_ROWS), MLP_COLUMNS, pad, inner.shape[1]),
        num_warps=warps,
        num_stages=2,
    )
    return out, sum_a.sum(0), sum_b.sum(0).transpose(1, 2).contiguous()


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
        *(by, second, _power(heads), _power(half)),
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
        *(heads * size + pad, _power(heads), _power(size)),
    )
    return out, *merged


@triton.jit(do_not_specialize=["place", "limit"])
def _dropped(  # type: ignore[no-untyped-def]
    x, out, seed, place, limit, scale, width, stride, stride_out, ADD: tl.constexpr, WIDTH: tl.constexpr
):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < width
    kept = _kept(row * width + column, seed, place, limit)
    value = tl.load(x + row * stride + column, inside, 0.0).to(tl.float32)
    value = tl.where(kept, value * scale, 0.0)
    there = out + row * stride_out + column
    if ADD:
        value += tl.load(there, inside, 0.0).to(tl.float32)
    tl.store(there, value.to(out.dtype.element_ty), inside)


@triton.jit
def _kept(number, seed, place, limit):  # type: ignore[no-untyped-def]
    key = _mixed((tl.load(seed) * 8191 + place).to(tl.uint32))
    return _mixed(_mixed(number.to(tl.uint32) ^ key) ^ key) >= limit.to(tl.uint32)


@triton.jit
def _mixed(x):  # type: ignore[no-untyped-def]
    """The last step of MurmurHash3 (Appleby): every bit of uint32 depends on every bit."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


def dropped(x: torch.Tensor, rate: float, seed: torch.Tensor, place: int) -> torch.Tensor:
    out = x.new_empty(x.shape)
    _drop(x, out, rate, seed, place, False)
    return out


def add_dropped_(out: torch.Tensor, more: torch.Tensor, rate: float, seed: torch.Tensor, place: int) -> None:
    _drop(more, out, rate, seed, place, True)


def _drop(x: torch.Tensor, out: torch.Tensor, rate: float, seed: torch.Tensor, place: int, add: bool) -> None:
    rows, width = x.shape
    _dropped[(rows, triton.cdiv(width, WIDTH))](
        *(x, out, seed, place, _limit(rate), 1 / (1 - rate), width, x.stride(0), out.stride(0)),
        *(add, WIDTH),
    )


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
        *(by, second, shared is not None, _power(query + 2 * key), _power(size), _power(half)),
    )
    return out


@triton.jit
def _copy_rows(targets, sources, rows, strides, like, rank, ROWS: tl.constexpr, RANK: tl.constexpr):  # type: ignore[no-untyped-def]
    piece, first = tl.program_id(0), tl.program_id(1) * ROWS
    count = tl.load(rows + piece)
    if first < count:
        row, column = first + tl.arange(0, ROWS)[:, None], tl.arange(0, RANK)[None, :]
        inside = (row < count) & (column < rank)
        source = tl.load(sources + piece).to(tl.pointer_type(tl.float32))
        target = tl.load(targets + piece).to(tl.pointer_type(like.dtype.element_ty))
        value = tl.load(source + row * rank + column, inside, 0.0)
        there = target + row.to(tl.int64) * tl.load(strides + piece) + column
        tl.store(there, value.to(like.dtype.element_ty), inside)


def row_copier(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> Callable[[], None]:
    first, rank = targets[0], sources[0].shape[1]
    tables = [
        torch.tensor(values, device=first.device)
        for values in (
            [target.data_ptr() for target in targets],
            [source.data_ptr() for source in sources],
            [len(source) for source in sources],
            [target.stride(0) for target in targets],
        )
    ]
    grid = (len(targets), triton.cdiv(max(map(len, sources)), COPIED))

    def copy() -> None:
        _copy_rows[grid](*tables, first, rank, COPIED, _power(rank))

    return copy


@triton.jit
def _cross_entropy(logits, labels, losses, vocabulary, ignored, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    here, label = logits + row * vocabulary, tl.load(labels + row)
    counted = label != ignored
    # Before the sums below, in which all threads wait for each other: it will be written over.
    wanted = tl.load(here + label, counted, 0.0).to(tl.float32)
    top, total = tl.full((BLOCK,), -1e30, tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        value = tl.load(here + start + at, start + at < vocabulary, -1e30).to(tl.float32)
        higher = tl.maximum(top, value)
        total = total * tl.exp(top - higher) + tl.exp(value - higher)
        top = higher
    highest = tl.max(top)
    log_sum = highest + tl.log(tl.sum(total * tl.exp(top - highest)))
    tl.store(losses + row, tl.where(counted, log_sum - wanted, 0.0))
    for start in range(0, vocabulary, BLOCK):
        inside = start + at < vocabulary
        value = tl.load(here + start + at, inside, -1e30).to(tl.float32)
        share = tl.exp(value - log_sum) - tl.where(start + at == label, 1.0, 0.0)
        tl.store(here + start + at, tl.where(counted, share, 0.0).to(logits.dtype.element_ty), inside)


def cross_entropy_(logits: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    losses = logits.new_empty(len(labels), dtype=torch.float32)
    _cross_entropy[(len(labels),)](logits, labels, losses, logits.shape[1], ignored, VOCABULARY, num_warps=8)
    return losses


@triton.jit
def _chosen(logits, allowed, tokens, chances, vocabulary, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    here, words = logits + row * vocabulary, allowed + row * stride
    top, total = tl.full((BLOCK,), -1e30, tl.float32), tl.zeros((BLOCK,), tl.float32)
    best = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, vocabulary, BLOCK):
        token = start + at
        inside = token < vocabulary
        may = (tl.load(words + token // 32, inside, 0) >> (token % 32)) & 1
        value = tl.where(may == 1, tl.load(here + token, inside, -1e30).to(tl.float32), -1e30)
        higher = tl.maximum(top, value)
        total = total * tl.exp(top - higher) + tl.where(may == 1, tl.exp(value - higher), 0.0)
        best = tl.where(value > top, token, best)
        top = higher
    highest = tl.max(top)
    tl.store(chances + row, -tl.log(tl.sum(total * tl.exp(top - highest))))
    # Of equal ones the first, whatever the block.
    tl.store(tokens + row, tl.min(tl.where(top == highest, best, vocabulary)).to(tl.int64))


def chosen(logits: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = _rows(logits)
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    chances = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    stride = allowed.stride(0) if len(allowed) > 1 else 0
    _chosen[(len(logits),)](logits, allowed, tokens, chances, logits.shape[1], stride, VOCABULARY, num_warps=8)
    return tokens, chances


def _limit(rate: float) -> int:
    """Never a number that Triton would compile in."""
    return max(16, round(rate * (2**32 - 1)))


def _rows(x: torch.Tensor) -> torch.Tensor:
    """With rows that have no gaps in themselves."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _power(size: int) -> int:
    return int(triton.next_power_of_2(size))
