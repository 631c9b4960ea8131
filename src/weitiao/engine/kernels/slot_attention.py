"""Attention of tokens that are written into slots, in Triton: of each, over all that its slot holds up to itself.

`keep` rotates queries and keys, and puts keys and values into the slots; `attend` walks over a slot's keys, no further
than its last new token. Which slots a step is about is data, and so is how full they are: one CUDA graph serves all
steps of as many sequences and tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.row_attention import tile, weighed

ROWS = 64
"""Most queries, of all heads that share a key, that a program takes."""
LEAST = 16
"""Of a matrix product on tensor cores."""


@triton.jit(do_not_specialize=["new", "scrap"])
def _keep(  # type: ignore[no-untyped-def]
    qkv,
    cos,
    sin,
    places,
    slots,
    keys,
    values,
    new,
    scrap,
    query,
    key,
    half,
    stride,
    stride_table,
    SIZE: tl.constexpr,
    BY: tl.constexpr,
    SECOND: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    KEYS: tl.constexpr,
):
    token = tl.program_id(0)
    slot, place = tl.load(slots + token // new).to(tl.int64), tl.load(places + token)
    kept = (slot * (scrap + 1) + place) * key * SIZE
    x = qkv + token.to(tl.int64) * stride
    head, at = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < query + key) & (at < half)
    first = head * SIZE + at * BY
    second = first + (half if SECOND == 0 else SECOND)
    one, two = tl.load(x + first, inside, 0.0).to(tl.float32), tl.load(x + second, inside, 0.0).to(tl.float32)
    c = tl.load(cos + token * stride_table + at, at < half, 0.0).to(tl.float32)
    s = tl.load(sin + token * stride_table + at, at < half, 0.0).to(tl.float32)
    turned_one, turned_two = (one * c - two * s).to(qkv.dtype.element_ty), (two * c + one * s).to(qkv.dtype.element_ty)
    tl.debug_barrier()  # several threads may hold the same element
    is_query = inside & (head < query)
    tl.store(x + first, turned_one, is_query)
    tl.store(x + second, turned_two, is_query)
    is_key, to_key = inside & (head >= query), keys + kept - query * SIZE
    tl.store(to_key + first, turned_one, is_key)
    tl.store(to_key + second, turned_two, is_key)
    whole, dimension = tl.arange(0, KEYS)[:, None], tl.arange(0, SIZE)[None, :]
    at_key = whole * SIZE + dimension
    there = whole < key
    still = there & (dimension >= 2 * half)
    tl.store(keys + kept + at_key, tl.load(x + query * SIZE + at_key, still, 0.0), still)
    tl.store(values + kept + at_key, tl.load(x + (query + key) * SIZE + at_key, there, 0.0), there)


@triton.jit(do_not_specialize=["new", "scrap"])
def _attend(  # type: ignore[no-untyped-def]
    qkv,
    places,
    slots,
    keys,
    values,
    out,
    new,
    scrap,
    scale,
    stride,
    stride_out,
    key,
    SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
):
    sequence, head, block = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    row, at, dimension = block * ROWS + tl.arange(0, ROWS), tl.arange(0, STEP), tl.arange(0, SIZE)
    token, which = sequence * new + row // GROUP, head * GROUP + row % GROUP
    here = row < new * GROUP
    place = tl.load(places + token, here, -1)
    # Padding looks at nothing, and nothing looks at it.
    place = tl.where(place == scrap, -1, place)
    last = tl.max(place)
    q = tl.load(qkv + (token * stride + which * SIZE)[:, None] + dimension[None, :], here[:, None], 0.0)
    begin = (tl.load(slots + sequence).to(tl.int64) * (scrap + 1) * key + head) * SIZE
    top = tl.full((ROWS,), -1e30, tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)
    value = tl.zeros((ROWS, SIZE), tl.float32)
    for low in range(0, last + 1, STEP):
        seen = low + at
        where = begin + (seen * key * SIZE)[:, None] + dimension[None, :]
        there = (seen <= last)[:, None]
        k, v = tl.load(keys + where, there, 0.0), tl.load(values + where, there, 0.0)
        top, weight, value = weighed(q, k, v, seen[None, :] <= place[:, None], scale, top, weight, value, "ieee")
    weight = tl.where(weight == 0, 1.0, weight)
    target = out + (token * stride_out + which * SIZE)[:, None] + dimension[None, :]
    tl.store(target, (value / weight[:, None]).to(out.dtype.element_ty), here[:, None])


def keep(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    interleaved: bool,
    places: torch.Tensor,
    slots: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> None:
    """qkv [B · n, (H + 2 Hk) D], whose queries are rotated where they are; cos, sin [B · n, R].

    places: int64 [B, n], of each token in its slot; slots: int64 [B]. keys, values [slots, length, Hk, D] get the
    tokens'. The last place of a slot is for padding.
    """
    _, length, key, size = keys.shape
    query, half = qkv.shape[1] // size - 2 * key, cos.shape[-1] // 2
    by, second = (2, 1) if interleaved else (1, 0)
    _keep[(len(qkv),)](
        *(qkv, cos, sin, places, slots, keys, values, places.shape[1], length - 1, query, key, half),
        *(qkv.stride(0), cos.stride(0), size, by, second),
        *(triton.next_power_of_2(query + key), triton.next_power_of_2(half), triton.next_power_of_2(key)),
    )


def attend(
    qkv: torch.Tensor,
    places: torch.Tensor,
    slots: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scaling: float,
    pad: int,
) -> torch.Tensor:
    """What `keep` has rotated and kept → [B · n, H D + pad], of which the last columns are not written."""
    _, length, key, size = keys.shape
    sequences, new = places.shape
    query = qkv.shape[1] // size - 2 * key
    group = query // key
    out = qkv.new_empty(len(qkv), query * size + pad)
    step, warps = tile(qkv.dtype)
    rows = max(LEAST, min(ROWS, triton.next_power_of_2(new * group)))
    _attend[(sequences, key, triton.cdiv(new * group, rows))](
        *(qkv, places, slots, keys, values, out, new, length - 1, scaling, qkv.stride(0), out.stride(0), key),
        *(size, group, rows, step),
        num_warps=warps,
        num_stages=2,
    )
    return out
