"""A pass in float32 over 16-bit weights is that of the same weights in float32, and decides what 16 bits leave open."""

from __future__ import annotations

import copy

import pytest
import torch

from parity.oracle import halved_model
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine.fast_layer import unfit
from weitiao.engine.forward import Forward
from weitiao.families.base import families

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = packed_batch(Pack(tuple(range(5)), tuple(PackRow(tuple(range(at, 60)), (30, 31, 39)) for at in (10, 17, 20))))


@pytest.mark.parametrize("family", sorted(families()))
def test_as_in_float32(family: str, request: pytest.FixtureRequest) -> None:
    model = halved_model(request.getfixturevalue(f"{family}_folder")).to(DEVICE)
    wide = Forward(copy.deepcopy(model).float().get_base_model(), fast=True)
    ours = Forward(model.get_base_model(), fast=True)
    assert unfit(ours.body) is None
    assert ours.rounds
    assert not wide.rounds
    at, tokens = torch.tensor([0, 4, 8]), torch.tensor([3, 1, 2])
    with torch.inference_mode():
        wanted, rounded = wide.hidden(BATCH), ours.hidden(BATCH)
        with ours.exactly():
            found = ours.hidden(BATCH)
            chances = ours.log_probabilities(found, at, tokens)
        again = ours.hidden(BATCH)
        torch.testing.assert_close(chances, wide.log_probabilities(wanted, at, tokens), atol=1e-4, rtol=0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=5e-5, rtol=5e-5)
    assert (rounded - wanted).abs().max() > 1e-3
    assert torch.equal(again, rounded)
