"""Rows that attend with rows of about their length, against one mask over the whole pack."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.engine import row_products
from weitiao.engine.attention_ways import LONGER, Dense, Parents, Rows, _tree_mask, of_one_length

CPU = torch.device("cpu")
HEADS, KEYS, SIZE = 4, 2, 8
SCALING = SIZE**-0.5
TOLERANCE = 1e-5


def attended(way: Rows | Dense, total: int) -> list[torch.Tensor]:
    """Output and gradients of query, key and value."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, heads, total, SIZE) for heads in (HEADS, KEYS, KEYS)]
    parts = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    out = way(*parts, SCALING)
    weight = torch.randn(out.shape, generator=draw)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), parts)]


def trees(lengths: Sequence[int], seed: int) -> Parents:
    draw = random.Random(seed)
    return [[draw.randrange(-1, at) for at in range(length)] if draw.random() < 0.5 else None for length in lengths]


@pytest.mark.parametrize("prefix", [0, 7])
@pytest.mark.parametrize("lengths", [(5,), (3, 3, 4), (40, 1, 9, 2, 13, 1, 30, 12)])
@pytest.mark.parametrize("branched", [False, True])
def test_as_one_mask(prefix: int, lengths: tuple[int, ...], branched: bool) -> None:
    parents = trees(lengths, 1) if branched else [None] * len(lengths)
    total = prefix + sum(lengths)
    found = attended(Rows(prefix, lengths, parents, CPU), total)
    for ours, wanted in zip(found, attended(Dense(prefix, lengths, parents, CPU), total), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("few", [0, 2**17], ids=["by torch", "in one buffer"])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("prefix", [0, 7])
@pytest.mark.parametrize("branched", [False, True])
def test_without_gradients(prefix: int, branched: bool, apart: bool, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """apart: heads as transformers' layers give them; else those of one product, with others between two tokens'."""
    monkeypatch.setattr(row_products, "FEW", few)
    lengths = (40, 1, 9, 2, 13, 1, 30, 12)
    parents = trees(lengths, 1) if branched else [None] * len(lengths)
    whole = torch.randn(prefix + sum(lengths), HEADS + 2 * KEYS, SIZE, generator=torch.Generator().manual_seed(0))
    parts = [x.transpose(0, 1)[None] for x in whole.split([HEADS, KEYS, KEYS], dim=1)]
    wanted = Dense(prefix, lengths, parents, CPU)(*parts, SCALING)
    with torch.no_grad():
        found = Rows(prefix, lengths, parents, CPU)(*([x.contiguous() for x in parts] if apart else parts), SCALING)
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


def test_the_order_of_rows_matters() -> None:
    """What the comparison above would find if tokens came back in another order."""
    lengths = (2, 9)
    wanted, other = (attended(Dense(3, rows, [None] * 2, CPU), 14)[0] for rows in (lengths, lengths[::-1]))
    assert (wanted - other).abs().max() > 100 * TOLERANCE


@given(st.lists(st.integers(1, 300), max_size=40))
def test_groups_hold_rows_of_one_length(lengths: list[int]) -> None:
    groups = of_one_length(lengths)
    assert all(group == sorted(group) for group in groups)
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    for group in groups:
        members = [lengths[at] for at in group]
        assert max(members) <= LONGER * min(members)


@settings(max_examples=50)
@given(st.integers(0, 12), st.integers(1, 20), st.integers(0, 2**16))
def test_a_token_sees_its_ancestors(stem: int, more: int, seed: int) -> None:
    draw = random.Random(seed)
    parents = [at - 1 if at < stem else draw.randrange(-1, at) for at in range(stem + more)]
    mask = _tree_mask(parents, len(parents) + 3)
    for at, _ in enumerate(parents):
        seen, up = set(), at
        while up >= 0:
            seen.add(up)
            up = parents[up]
        assert set(mask[at].nonzero()[:, 0].tolist()) == seen
    assert mask[len(parents) :].equal(torch.ones(len(mask), len(mask), dtype=torch.bool).tril()[len(parents) :])
