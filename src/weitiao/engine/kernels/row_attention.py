"""Attention of a pack of short rows, in Triton: each row over the shared prefix and itself up to the query.

A program takes a block of a row's queries, and walks over the prefix's keys and then over the row's own. In a tree of
answers, words of bits say what a query sees of its row; the forward pass alone knows trees. The kernels for long
sequences (`split_attention`) waste most of their blocks on such rows, need three passes more for what heads share, and
copy what is not contiguous. Softmax and its gradient as in FlashAttention-2 (Dao 2023, arXiv:2307.08691).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.split_attention import BLOCK

CHUNKS = (64, 256)
"""Queries over which one program sums the gradient of the prefix: in small packs, and in large ones."""
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(x, rows, there, stride, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(x + rows.to(tl.int64)[:, None] * stride + tl.arange(0, SIZE)[None, :], there[:, None], 0.0)


@triton.jit
def _scores(q, k, seen, scale, HOW: tl.constexpr):  # type: ignore[no-untyped-def]
    """Scores in base 2, [queries, keys]. HOW: the `input_precision` of float32."""
    return tl.where(seen, tl.dot(q, tl.trans(k), input_precision=HOW) * (scale * LOG2E), -1e30)


@triton.jit
def weighed(q, k, v, seen, scale, top, weight, value, HOW: tl.constexpr):  # type: ignore[no-untyped-def]
    """Softmax so far, with the keys of a tile: the highest score, the sum of weights, the weighed values."""
    s = _scores(q, k, seen, scale, HOW)
    new = tl.maximum(top, tl.max(s, 1))
    p, less = tl.exp2(s - new[:, None]), tl.exp2(top - new)
    weight = weight * less + tl.sum(p, 1)
    value = value * less[:, None] + tl.dot(p.to(v.dtype), v, input_precision=HOW)
    return new, weight, value


@triton.jit
def _of_scores(q, k, v, go, level, delta, seen, scale):  # type: ignore[no-untyped-def]
    """Probabilities, and the gradient of the scores but for the scale, [queries, keys]."""
    p = tl.exp2(_scores(q, k, seen, scale, "ieee") - level[:, None])
    return p, p * (tl.dot(go, tl.trans(v), input_precision="ieee") - delta[:, None])


@triton.jit
def _of_keys(  # type: ignore[no-untyped-def]
    qkv,
    lse,
    g,
    delta,
    which,
    rows,
    here,
    seen,
    k,
    v,
    dk,
    dv,
    total,
    scale,
    stride,
    stride_g,
    SIZE: tl.constexpr,
):
    """Gradients of keys and values, with what the queries `rows` of head `which` add."""
    q = _tile(qkv + which * SIZE, rows, here, stride, SIZE)
    go = _tile(g + which * SIZE, rows, here, stride_g, SIZE)
    level = tl.load(lse + which * total + rows, here, 0.0)
    both = tl.load(delta + which * total + rows, here, 0.0)
    p, ds = _of_scores(q, k, v, go, level, both, seen, scale)
    dv += tl.dot(tl.trans(p.to(go.dtype)), go, input_precision="ieee")
    dk += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision="ieee")
    return dk, dv


@triton.jit
def _keys(places, shared, start):  # type: ignore[no-untyped-def]
    """Where in the pack the tokens of a row stand that are counted from the prefix's first one."""
    return tl.where(places < shared, places, places - shared + start)


@triton.jit
def _word(trees, low, length, total, rows, here):  # type: ignore[no-untyped-def]
    """What queries see of 64 tokens of their row from `low` on, which before 0 are the prefix's: a bit each."""
    low = tl.maximum(low, -64) + 64
    word, bit = low // 64 - 1, low % 64
    first = tl.load(trees + word * total + rows, here & (word >= 0) & (word * 64 < length), 0)
    second = tl.load(trees + (word + 1) * total + rows, here & (bit > 0) & (word * 64 + 64 < length), 0)
    early = tl.where(word < 0, -1, first).to(tl.uint64) >> bit.to(tl.uint64)
    return early | tl.where(bit > 0, second.to(tl.uint64) << ((64 - bit) % 64).to(tl.uint64), 0)


@triton.jit(do_not_specialize=["prefix", "total"])
def _forward(  # type: ignore[no-untyped-def]
    qkv,
    blocks,
    trees,
    out,
    lse,
    prefix,
    total,
    query,
    key,
    scale,
    stride,
    stride_out,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    block, head = tl.program_id(0), tl.program_id(1)
    first, start, end = tl.load(blocks + block * 3), tl.load(blocks + block * 3 + 1), tl.load(blocks + block * 3 + 2)
    if first < end:
        at, rows = tl.arange(0, STEP), first + tl.arange(0, BLOCK)
        here = rows < end
        q = _tile(qkv + head * SIZE, rows, here, stride, SIZE)
        ks = qkv + (query + head // (query // key)) * SIZE
        vs = ks + key * SIZE
        top = tl.full((BLOCK,), -1e30, tl.float32)
        weight = tl.zeros((BLOCK,), tl.float32)
        value = tl.zeros((BLOCK, SIZE), tl.float32)
        shared = tl.where(start >= prefix, prefix, 0)
        for low in range(0, shared + tl.minimum(first + BLOCK, end) - start, STEP):
            keys = _keys(low + at, shared, start)
            k, v = _tile(ks, keys, keys < end, stride, SIZE), _tile(vs, keys, keys < end, stride, SIZE)
            if trees is None:
                seen = (keys < end)[None, :] & (keys[None, :] <= rows[:, None])
            else:
                word = _word(trees, low - shared, end - start, total, rows, here)
                # In halves: numbers of 64 bits by query and key take so many registers that fewer programs run at once.
                half = tl.where(at[None, :] < 32, word.to(tl.int32)[:, None], (word >> 32).to(tl.int32)[:, None])
                seen = ((half >> (at % 32)[None, :]) & 1) != 0
            top, weight, value = weighed(q, k, v, seen, scale, top, weight, value, "tf32x3")
        place = out + rows.to(tl.int64)[:, None] * stride_out + head * SIZE + tl.arange(0, SIZE)[None, :]
        tl.store(place, (value / weight[:, None]).to(out.dtype.element_ty), here[:, None])
        tl.store(lse + head * total + rows, top + tl.log2(weight), here)


@triton.jit(do_not_specialize=["prefix", "total"])
def _gradient_of_queries(  # type: ignore[no-untyped-def]
    qkv,
    blocks,
    out,
    lse,
    g,
    delta,
    dqkv,
    prefix,
    total,
    query,
    key,
    scale,
    stride,
    stride_out,
    stride_g,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    block, head = tl.program_id(0), tl.program_id(1)
    first, start, end = tl.load(blocks + block * 3), tl.load(blocks + block * 3 + 1), tl.load(blocks + block * 3 + 2)
    if first < end:
        at, rows = tl.arange(0, STEP), first + tl.arange(0, BLOCK)
        here = rows < end
        q = _tile(qkv + head * SIZE, rows, here, stride, SIZE)
        go = _tile(g + head * SIZE, rows, here, stride_g, SIZE)
        o = _tile(out + head * SIZE, rows, here, stride_out, SIZE)
        both = tl.sum(go.to(tl.float32) * o.to(tl.float32), 1)
        tl.store(delta + head * total + rows, both, here)
        level = tl.load(lse + head * total + rows, here, 0.0)
        ks = qkv + (query + head // (query // key)) * SIZE
        vs = ks + key * SIZE
        dq = tl.zeros((BLOCK, SIZE), tl.float32)
        shared = tl.where(start >= prefix, prefix, 0)
        for low in range(0, shared + tl.minimum(first + BLOCK, end) - start, STEP):
            keys = _keys(low + at, shared, start)
            k, v = _tile(ks, keys, keys < end, stride, SIZE), _tile(vs, keys, keys < end, stride, SIZE)
            seen = (keys < end)[None, :] & (keys[None, :] <= rows[:, None])
            _, ds = _of_scores(q, k, v, go, level, both, seen, scale)
            dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
        place = dqkv + rows.to(tl.int64)[:, None] * stride + head * SIZE + tl.arange(0, SIZE)[None, :]
        tl.store(place, (dq * scale).to(dqkv.dtype.element_ty), here[:, None])


@triton.jit(do_not_specialize=["total"])
def _gradient_of_keys(  # type: ignore[no-untyped-def]
    qkv,
    blocks,
    lse,
    g,
    delta,
    dqkv,
    total,
    query,
    key,
    scale,
    stride,
    stride_g,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Of each row's own."""
    block, head = tl.program_id(0), tl.program_id(1)
    first, end = tl.load(blocks + block * 3), tl.load(blocks + block * 3 + 2)
    if first < end:
        at, keys = tl.arange(0, STEP), first + tl.arange(0, BLOCK)
        ks = qkv + (query + head) * SIZE
        k = _tile(ks, keys, keys < end, stride, SIZE)
        v = _tile(ks + key * SIZE, keys, keys < end, stride, SIZE)
        dk, dv = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
        group = query // key
        for one in range(group):
            which = head * group + one
            for low in range(first, end, STEP):
                rows = low + at
                here = rows < end
                seen = here[:, None] & (keys < end)[None, :] & (keys[None, :] <= rows[:, None])
                dk, dv = _of_keys(
                    qkv, lse, g, delta, which, rows, here, seen, k, v, dk, dv, total, scale, stride, stride_g, SIZE
                )
        place = dqkv + keys.to(tl.int64)[:, None] * stride + (query + head) * SIZE + tl.arange(0, SIZE)[None, :]
        tl.store(place, (dk * scale).to(dqkv.dtype.element_ty), (keys < end)[:, None])
        tl.store(place + key * SIZE, dv.to(dqkv.dtype.element_ty), (keys < end)[:, None])


@triton.jit(do_not_specialize=["prefix", "total"])
def _gradient_of_prefix(  # type: ignore[no-untyped-def]
    qkv,
    lse,
    g,
    delta,
    sums,
    prefix,
    total,
    query,
    key,
    scale,
    stride,
    stride_g,
    CHUNK: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Of the prefix's keys and values, from a chunk of the rows' queries: sums float32 [chunks, prefix, 2 Hk, D]."""
    block, head, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    at, keys = tl.arange(0, STEP), block * BLOCK + tl.arange(0, BLOCK)
    ks = qkv + (query + head) * SIZE
    k = _tile(ks, keys, keys < prefix, stride, SIZE)
    v = _tile(ks + key * SIZE, keys, keys < prefix, stride, SIZE)
    dk, dv = tl.zeros((BLOCK, SIZE), tl.float32), tl.zeros((BLOCK, SIZE), tl.float32)
    group = query // key
    for one in range(group):
        which = head * group + one
        for low in range(prefix + chunk * CHUNK, tl.minimum(prefix + (chunk + 1) * CHUNK, total), STEP):
            rows = low + at
            here = rows < total
            seen = here[:, None] & (keys < prefix)[None, :]
            dk, dv = _of_keys(
                qkv, lse, g, delta, which, rows, here, seen, k, v, dk, dv, total, scale, stride, stride_g, SIZE
            )
    place = sums + ((chunk.to(tl.int64) * prefix + keys[:, None]) * 2 * key + head) * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(place, dk * scale, (keys < prefix)[:, None])
    tl.store(place + key * SIZE, dv, (keys < prefix)[:, None])


def tile(dtype: torch.dtype, cores: bool = False) -> tuple[int, int]:
    """Rows that a loop of products takes at a time, and the warps that share them. cores: whether float32 is multiplied
    on tensor cores.

    There a product is the sum of three of numbers of 11 bits (`tf32x3`), nearly as exact, and takes much shared memory:
    for gradients more than smaller cards have. Elsewhere each thread's multiplications are written out one by one. In
    loops of 64 rows and 4 warps they are 16,000 to 25,000 a kernel, which is built for 10 to 25 seconds and then keeps
    its numbers in tens of KiB of slow memory for each thread.
    """
    if dtype.itemsize == 2:
        return BLOCK, 4
    return (32, 4) if cores else (16, 8)


def forward(
    qkv: torch.Tensor,
    blocks: torch.Tensor,
    prefix: int,
    heads: tuple[int, int, int],
    scaling: float,
    pad: int,
    trees: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """qkv [T, (H + 2 Hk) D], of which the first `prefix` tokens are shared; heads: H, Hk, D.

    blocks: int32 [n, 3], of each block of a row's (or the prefix's) queries the first token, and where the row begins
    and ends; an unused one is all the same. trees: what each token sees of its row, as in a `SplitLayout`; None: all
    up to itself. Gives [T, H D + pad], and the base-2 log-sum-exp, float32 [H, T].
    """
    query, key, size = heads
    total, width = len(qkv), query * size + pad
    out, lse = qkv.new_empty(total, width), qkv.new_empty(query, total, dtype=torch.float32)
    step, warps = tile(qkv.dtype, cores=True)
    _forward[(len(blocks), query)](
        *(qkv, blocks, trees, out, lse, prefix, total, query, key, scaling, qkv.stride(0), width),
        *(size, BLOCK, step),
        num_warps=warps,
        num_stages=1,
    )
    return out, lse


def backward(
    g: torch.Tensor,
    qkv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    blocks: torch.Tensor,
    prefix: int,
    heads: tuple[int, int, int],
    scaling: float,
) -> torch.Tensor:
    """Gradient like qkv, of rows that are no trees. g: of `out`, whose padding is not read."""
    query, key, size = heads
    step, warps = tile(qkv.dtype)
    total, rest = len(qkv), (size, BLOCK, step)
    delta, dqkv = torch.empty_like(lse), torch.empty_like(qkv)
    stride, stride_g = qkv.stride(0), g.stride(0)
    _gradient_of_queries[(len(blocks), query)](
        *(qkv, blocks, out, lse, g, delta, dqkv, prefix, total, query, key, scaling, stride, out.stride(0), stride_g),
        *rest,
        num_warps=warps,
        num_stages=2,
    )
    _gradient_of_keys[(len(blocks), key)](
        *(qkv, blocks, lse, g, delta, dqkv, total, query, key, scaling, stride, stride_g),
        *rest,
        num_warps=warps,
        num_stages=1,
    )
    if prefix:
        own = total - prefix
        chunk = CHUNKS[own > 4096]
        sums = qkv.new_empty(-(-own // chunk), prefix, 2 * key * size, dtype=torch.float32)
        _gradient_of_prefix[(-(-prefix // BLOCK), key, len(sums))](
            *(qkv, lse, g, delta, sums, prefix, total, query, key, scaling, stride, stride_g, chunk),
            *rest,
            num_warps=warps,
            num_stages=2 if step == BLOCK else 1,  # a second stage of float32 would spill
        )
        dqkv[:prefix, query * size :] += sums.sum(0)
    return dqkv
