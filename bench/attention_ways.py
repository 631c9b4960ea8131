"""Equality and speed of the ways to compute the attention of a pack, forward and backward, for one layer.

    python bench/attention_ways.py --device cuda                    12 query and 2 key heads of 128, as Qwen2-1.5B has
    python bench/attention_ways.py --device cpu --tokens 1024
    python bench/attention_ways.py --long                           rows of 1,000 to 4,000 tokens

Of packs of about so many tokens behind prefixes of several lengths; rows are NER-like, 53 tokens on average. Error: of
output and gradients, ‖Δ‖/‖wanted‖ at most, against the whole matrix of scores in float32 (float64 on a CPU).

    rows    every row a batch entry, masked          varlen   torch's kernel over K/V gathered for each row
    flash   the flash kernel twice, rows and prefix  short    our own kernels for short rows
    flex    FlexAttention over rows of 1,024 tokens, each with the prefix's K/V, in masks made outside of the clock

Long rows by the flash kernel, with the prefix once and with a copy of it in each row (`apart`), and by our own kernels,
which are made for short ones, with several tiles: queries of a program, keys at a time, and warps.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from weitiao.engine import split_attention
from weitiao.engine.attention_plan import AttentionPlan
from weitiao.engine.room import GRAIN
from weitiao.engine.split_attention import Heads, SplitAttention, SplitLayout, split_layout

Qkv = Callable[[torch.Tensor], torch.Tensor]
"""[T, (H + 2 Hk) D] → [T, H D]."""
FLEX_ROW = 1024
TILES = ((64, 64, 4), (128, 64, 8), (128, 32, 8), (128, 64, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 16_384])
    parser.add_argument("--prefix", type=int, nargs="+", default=[0, 35, 104, 400])
    parser.add_argument("--heads", type=int, nargs=2, default=[12, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--long", action="store_true")
    told = parser.parse_args()
    heads = Heads(*told.heads, told.size, told.size**-0.5, interleaved=False)
    name = torch.cuda.get_device_name() if told.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {name}, heads {heads.query}/{heads.key} × {heads.size}")
    device = torch.device(told.device)
    for tokens in told.tokens:
        for prefix in told.prefix:
            lengths = rows_of(tokens - prefix, told.long)
            measured(device, prefix, lengths, heads, ("flash",) if told.long else ())
            if told.long and prefix:
                measured(device, 0, [prefix + length for length in lengths], heads, ("flash",), f", {prefix} apart")
            for tile in TILES if told.long else ():
                with tiled(*tile):
                    measured(device, prefix, lengths, heads, ("short",), f" {tile}")


@contextmanager
def tiled(queries: int, keys: int, warps: int) -> Iterator[None]:
    """Meanwhile, our own kernels take such tiles."""
    if not torch.cuda.is_available():
        yield
        return
    from weitiao.engine.kernels import row_attention

    with (
        mock.patch.object(split_attention, "BLOCK", queries),
        mock.patch.object(row_attention, "BLOCK", queries),
        mock.patch.object(row_attention, "tile", return_value=(keys, warps)),
    ):
        yield


def measured(
    device: torch.device, prefix: int, lengths: Sequence[int], heads: Heads, names: Sequence[str], called: str = ""
) -> None:
    """names: of the ways; none stands for all. called: behind the way's name."""
    total = prefix + sum(lengths)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    qkv = torch.randn(total, (heads.query + 2 * heads.key) * heads.size, device=device, dtype=dtype)
    g = torch.randn(total, heads.query * heads.size, device=device, dtype=dtype)
    wide = torch.float32 if device.type == "cuda" else torch.float64
    wanted = outcome(
        planned(AttentionPlan(prefix, tuple(lengths), (None,) * len(lengths), device, "dense"), heads),
        qkv.to(wide),
        g.to(wide),
    )
    for name, way in ways(device, prefix, lengths, heads).items():
        if names and name not in names:
            continue
        found = outcome(way, qkv, g)
        error = max(float((a.to(wide) - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))
        taken, shown = seconds(way, qkv, g) * 1e3, name + called
        print(f"{total:6} tokens, prefix {prefix:3}  {shown:20} {taken:8.3f} ms  error {error:.1e}", flush=True)


def ways(device: torch.device, prefix: int, lengths: Sequence[int], heads: Heads) -> dict[str, Qkv]:
    def plan(way: Any) -> Qkv:
        return planned(AttentionPlan(prefix, tuple(lengths), (None,) * len(lengths), device, way), heads)

    if device.type != "cuda":
        return {"rows": plan("rows")}
    from weitiao.engine import kernels

    total = prefix + sum(lengths)
    cos, sin = torch.ones(total, heads.size, device=device), torch.zeros(total, heads.size, device=device)
    layout = split_layout(prefix, lengths).to(device)
    long, own = replace(layout, longest=max(layout.longest, split_attention.SHORT + 1)), replace(layout, flash=False)

    def split(used: SplitLayout) -> Qkv:
        # Turned by no angle, in place: what comes in is what is computed with.
        return lambda qkv: SplitAttention.apply(qkv.clone(), cos, sin, heads, used, 0, kernels)

    found = {"rows": plan("rows"), "varlen": plan("varlen"), "flash": split(long), "short": split(own)}
    return found if max(lengths) > FLEX_ROW else found | {"flex": flex(device, prefix, lengths, heads)}


def planned(plan: AttentionPlan, heads: Heads) -> Qkv:
    def way(qkv: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in heads.parts(qkv))
        return plan.attend(q, k, v, heads.scaling)[0].flatten(1)

    return way


def flex(device: torch.device, prefix: int, lengths: Sequence[int], heads: Heads) -> Qkv:
    """Samples side by side in rows of `FLEX_ROW` tokens; none is cut."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    lines: list[list[int]] = [[]]
    for at, length in enumerate(lengths):
        if sum(lengths[i] for i in lines[-1]) + length > FLEX_ROW:
            lines.append([])
        lines[-1].append(at)
    starts = [prefix + sum(lengths[:at]) for at in range(len(lengths))]
    index = torch.full((len(lines), FLEX_ROW), 0)
    sample = torch.full((len(lines), FLEX_ROW), -1)
    for line, members in enumerate(lines):
        place = 0
        for at in members:
            index[line, place : place + lengths[at]] = torch.arange(starts[at], starts[at] + lengths[at])
            sample[line, place : place + lengths[at]] = at
            place += lengths[at]
    index, sample = index.to(device), sample.to(device)
    valid = sample.flatten() >= 0
    order = index.flatten()[valid]

    def seen(b: Any, h: Any, q: Any, k: Any) -> Any:
        own = k - prefix
        same = sample[b, q] == sample[b, own.clamp(min=0)]
        return (k < prefix) | ((own >= 0) & (own <= q) & same)

    mask = create_block_mask(seen, len(lines), None, FLEX_ROW, prefix + FLEX_ROW, device=device)
    # Each layout is a build of its own; beyond eight of them the plain operations would be measured.
    torch._dynamo.config.recompile_limit = 64
    compiled = torch.compile(flex_attention, dynamic=False)

    def way(qkv: torch.Tensor) -> torch.Tensor:
        q, k, v = heads.parts(qkv)
        lined = [x[index.flatten()].unflatten(0, index.shape).transpose(1, 2) for x in (q, k, v)]
        shared = [x[:prefix].transpose(0, 1).expand(len(lines), -1, -1, -1) for x in (k, v)]
        keys, values = (torch.cat([head, own], dim=2) for head, own in zip(shared, lined[1:], strict=True))
        out = compiled(lined[0], keys, values, block_mask=mask, scale=heads.scaling, enable_gqa=True)
        whole = qkv.new_zeros(len(qkv), heads.query * heads.size)
        whole = whole.index_copy(0, order, out.transpose(1, 2).flatten(0, 1)[valid].flatten(1))
        if prefix:
            head = torch.nn.functional.scaled_dot_product_attention(
                *(x[:prefix].transpose(0, 1)[None] for x in (q, k, v)),
                is_causal=True,
                scale=heads.scaling,
                enable_gqa=True,
            )
            whole = torch.cat([head[0].transpose(0, 1).flatten(1), whole[prefix:]])
        return whole

    return way


def rows_of(tokens: int, long: bool = False) -> tuple[int, ...]:
    """Lengths with a mean of 53, or from 1,000 to 4,000, together a multiple of the split's grain."""
    draw, lengths = random.Random(0), []
    left = tokens // GRAIN * GRAIN
    while left > 0:
        length = draw.randint(1000, 4000) if long else max(4, round(draw.lognormvariate(math.log(48), 0.45)))
        lengths.append(min(left, length))
        left -= lengths[-1]
    return tuple(lengths)


def outcome(way: Qkv, qkv: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
    """Output, and the gradients of q with k and v."""
    leaf = qkv.clone().requires_grad_()
    out = way(leaf)
    out.backward(g)
    assert leaf.grad is not None
    return [out.detach(), leaf.grad]


def seconds(way: Qkv, qkv: torch.Tensor, g: torch.Tensor, repeats: int = 20) -> float:
    """Of one forward and backward pass, the median."""
    import statistics
    import time

    leaf = qkv.clone().requires_grad_()
    times = []
    for _ in range(repeats if qkv.is_cuda else 5):
        if qkv.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        way(leaf).backward(g)
        if qkv.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
