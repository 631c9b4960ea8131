"""Attention in two parts is attention over the whole, and so are its gradients. The flash kernel needs a card: here its
two functions are written out in torch, which leaves what is made of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import plain, split_attention
from weitiao.engine.attention_plan import AttentionPlan, choose_way
from weitiao.engine.fast_layer import FastDecoder
from weitiao.engine.forward import Forward
from weitiao.engine.split_attention import LONGEST_TREE, Heads, split_layout, worth_sharing
from weitiao.errors import ConfigError


def written_out(q, k, v, layout, scaling):
    """Of each sequence: queries, keys and values of every query head, and scores [H, queries, keys]."""
    groups = q.shape[-2] // k.shape[-2]
    if layout is None:
        pieces = [(q[at], k[at], v[at]) for at in range(len(q))]
    else:
        bounds = layout.starts.tolist()
        assert max(b - a for a, b in pairwise(bounds)) <= layout.longest
        pieces = [(q[a:b], k[a:b], v[a:b]) for a, b in pairwise(bounds)]
    for q1, k1, v1 in pieces:
        k1, v1 = (x.repeat_interleave(groups, dim=1) for x in (k1, v1))
        scores = torch.einsum("qhd,khd->hqk", q1, k1) * scaling
        if layout is not None:
            scores = scores.masked_fill(~torch.ones(len(q1), len(k1), dtype=torch.bool).tril(), -float("inf"))
        yield q1, k1, v1, scores


def forward(q, k, v, layout, scaling):
    outs, lses = [], []
    for _, _, v1, scores in written_out(q, k, v, layout, scaling):
        lses.append(scores.logsumexp(-1))
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v1))
    if layout is None:
        return torch.stack(outs), torch.stack(lses)
    return torch.cat(outs), torch.cat(lses, dim=1)


def backward(g, q, k, v, out, lse, layout, scaling):
    """As the kernel does it: probabilities from the log-sum-exp that it is given."""
    found = []
    sizes = [len(q1) for q1, *_ in written_out(q, k, v, layout, scaling)]
    if layout is None:
        gs, outs, lses = list(g), list(out), list(lse)
    else:
        gs, outs, lses = g.split(sizes), out.split(sizes), lse.split(sizes, dim=1)
    pieces = zip(written_out(q, k, v, layout, scaling), gs, outs, lses, strict=True)
    for (q1, k1, v1, scores), g1, out1, lse1 in pieces:
        shares = (scores - lse1[..., None]).exp()
        ds = shares * (torch.einsum("qhd,khd->hqk", g1, v1) - (g1 * out1).sum(-1).T[..., None]) * scaling
        groups = q.shape[-2] // k.shape[-2]
        dk, dv = torch.einsum("hqk,qhd->khd", ds, q1), torch.einsum("hqk,qhd->khd", shares, g1)
        dk, dv = (x.unflatten(1, (-1, groups)).sum(2) for x in (dk, dv))
        found.append((torch.einsum("hqk,khd->qhd", ds, k1), dk, dv))
    join = torch.stack if layout is None else torch.cat
    return tuple(join([piece[at] for piece in found]) for at in range(3))


@pytest.fixture(autouse=True)
def _flash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_attention, "flash_forward", forward)
    monkeypatch.setattr(split_attention, "flash_backward", backward)
    monkeypatch.setattr(split_attention, "HALF", (torch.float32,))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "glm4", "llama"])
@pytest.mark.parametrize("prefix", [0, 1, 9])
def test_a_model(family: str, prefix: int, request: pytest.FixtureRequest) -> None:
    lengths = (40, 3, 20, 1)
    rows = [
        PackRow(tuple(range(at, at + n)), tuple(range(n))[-2:], (7, 9)[-min(n, 2) :]) for at, n in enumerate(lengths)
    ]
    batch = packed_batch(Pack(tuple(range(100, 100 + prefix)), tuple(rows)))
    found = []
    for way in ("split", "rows"):
        model = lora_model(request.getfixturevalue(f"{family}_folder"))
        engine = Forward(model.get_base_model(), way, fast=True)  # type: ignore[arg-type]
        assert (AttentionPlan.of(batch, engine.way).split is not None) == (way == "split")
        loss = engine.loss(batch)
        loss.backward()
        found.append((loss.item(), gradients(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=TOLERANCE)
    error, name = worst_error(found[0][1], found[1][1])
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def test_packs_that_it_does_not_take() -> None:
    """Of a size that is no multiple, and trees, where our own kernels are not there; very long trees."""
    device = torch.device("cpu")
    heads = Heads(2, 1, 16, 1.0, False)

    def plan(*lengths: int, prefix: int = 5, trees: bool = False, way: str = "split") -> AttentionPlan:
        rows = (PackRow((0,) * n, (), parents=(-1, *range(n - 1)) if trees else None) for n in lengths)
        return AttentionPlan.of(packed_batch(Pack((0,) * prefix, tuple(rows))), way)  # type: ignore[arg-type]

    assert AttentionPlan(5, (64, 64), (None, None), device, "rows").split is None
    assert plan(64, 64).split.takes(torch.float32, heads, plain)
    assert plan(513, 127).split.takes(torch.float32, heads, plain)
    for other in (plan(64, 63), plan(513, 128), plan(64, 64, trees=True), plan(513, 3, prefix=600, trees=True)):
        assert other.way == "split"
        assert not other.split.takes(torch.float32, heads, plain)
        assert other.split.takes(torch.float32, heads, SimpleNamespace(row_attention=1))  # type: ignore[arg-type]
    assert plan(64, 64).split.trees is None
    assert plan(64, 64, trees=True).split.trees is not None
    for long in (plan(LONGEST_TREE + 1, trees=True), plan(64, 64, prefix=LONGEST_TREE + 1, trees=True)):
        assert (long.way, long.split) == ("rows", None)
    assert [plan(64, trees=True, way=way).way for way in ("rows", "varlen", "dense")] == ["rows", "rows", "dense"]


def test_who_takes_what() -> None:
    """Of what the flash kernel knows, our own take short rows alone."""
    heads, kernels = Heads(2, 1, 16, 1.0, False), SimpleNamespace(row_attention=1)
    short, long = split_layout(5, (512, 64)), split_layout(5, (513, 63))
    # `HALF` is float32 here.
    for dtype, wanted in ((torch.float32, (True, False)), (torch.float64, (True, True))):
        assert tuple(one.own(dtype, heads, kernels) for one in (short, long)) == wanted  # type: ignore[arg-type]
    assert not short.own(torch.float32, replace(heads, size=80), kernels)  # type: ignore[arg-type]


@given(st.integers(0, 70), st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=150), min_size=1, max_size=4))
def test_words_of_bits(prefix: int, back: list[list[int]]) -> None:
    """Of each token, how far before the token in front of it its parent stands; a tree may begin anew."""
    parents = [tuple(max(at - 1 - n, -1) for at, n in enumerate(row)) for row in back]
    words = split_layout(prefix, [len(row) for row in back], parents=parents).trees
    sequences = [range(-1, prefix - 1), *parents]
    assert words.shape == (-(-max(map(len, sequences)) // 64), prefix + sum(map(len, back)))
    found = [
        {64 * word + bit for word, n in enumerate(token) for bit in range(64) if n >> bit & 1}
        for token in words.T.tolist()
    ]
    wanted = []
    for row in sequences:
        first = len(wanted)
        for at, parent in enumerate(row):
            wanted.append({at} | (wanted[first + parent] if parent >= 0 else set()))
    assert found == wanted


def test_no_gradient_of_trees(qwen2_folder: Path) -> None:
    pytest.importorskip("triton")
    from weitiao.engine import kernels

    forward = Forward(lora_model(qwen2_folder).get_base_model(), "split")
    forward.kernels, forward.fast = kernels, FastDecoder(forward.body, kernels)
    tree = PackRow(tuple(range(4)), (2, 3), (7, 9), parents=(-1, 0, 0, 1))
    loss = forward.loss(packed_batch(Pack((1, 2), (tree,))))
    with pytest.raises(NotImplementedError, match="through trees"):
        loss.backward()


def test_sequences_of_no_tokens(qwen2_folder: Path) -> None:
    """The end of a table of fixed size repeats the last bound."""
    batch = packed_batch(Pack((1, 2, 3), (PackRow(tuple(range(50)), (49,), (4,)), PackRow(tuple(range(14)), ()))))
    forward = Forward(lora_model(qwen2_folder).get_base_model(), "split", fast=True)
    plan = AttentionPlan.of(batch, "split")
    wanted = forward.fast(forward.embedded(batch)[0], batch.positions, plan, batch.keep)
    plan.__dict__["split"] = split_layout(3, batch.lengths, sequences=6)
    assert plan.split.starts.tolist() == [0, 3, 53, 67, 67, 67, 67]
    found = forward.fast(forward.embedded(batch)[0], batch.positions, plan, batch.keep)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("capability", "way"), [((7, 5), "rows"), ((8, 0), "split"), ((9, 0), "split")])
def test_cards_that_the_flash_kernel_runs_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], way: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    card = torch.device("cuda")
    assert choose_way("auto", card, torch.bfloat16) == way
    assert choose_way("auto", torch.device("cpu"), torch.float32) == "rows"
    if way == "rows":
        with pytest.raises(ConfigError, match="Ampere"):
            choose_way("split", card, torch.float16)


@pytest.mark.parametrize(
    ("prefix", "lengths", "worth"),
    [
        (20, [1000, 4000], False),
        (400, [1000, 4000], True),
        (1, [30] * 16, True),  # our own kernels read it beside the row
        (20, [600] + [30] * 99, True),
        (0, [1000], False),
        (1000, [40] * 3, True),
    ],
)
def test_a_prefix_that_long_rows_share(prefix: int, lengths: list[int], worth: bool) -> None:
    assert worth_sharing(prefix, lengths) is worth
