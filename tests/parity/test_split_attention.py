"""Attention in two parts is attention over the whole, and so are its gradients. The flash kernel needs a card: here its
two functions are written out in torch, which leaves what is made of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import split_attention
from weitiao.engine.attention_plan import AttentionPlan, choose_way
from weitiao.engine.forward import Forward
from weitiao.engine.split_attention import split_layout
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
    """Of a size that is no multiple, and trees."""
    device = torch.device("cpu")
    assert AttentionPlan(5, (64, 63), (None, None), device, "split").split is None
    assert AttentionPlan(5, (64, 64), (None, None), device, "rows").split is None
    tree = PackRow(tuple(range(64)), (0,), parents=(-1, *range(63)))
    assert AttentionPlan.of(packed_batch(Pack((1, 2), (tree,))), "split").way == "rows"


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
