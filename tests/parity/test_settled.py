"""Predictions on a CPU with weights and adapters as one matrix are those with both apart, for as long as they stay."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import settled
from weitiao.engine.forward import Forward
from weitiao.families.base import families

BATCH = packed_batch(Pack(tuple(range(5)), (PackRow(tuple(range(20, 60)), (30, 31, 39), (1, 2, 3)),)))


def apart(forward: Forward) -> torch.Tensor:
    assert forward.fast is not None
    with torch.inference_mode():
        found = forward.hidden(BATCH)
    assert not any(group.instead for group in forward.fast.groups)
    return found


def together(forward: Forward) -> torch.Tensor:
    assert forward.fast is not None
    with torch.inference_mode(), forward.steady(rows=2048):
        found = forward.hidden(BATCH)
        assert all(group.instead for group in forward.fast.groups)
        assert torch.equal(found, forward.hidden(BATCH))
    return found


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("family", sorted(families()))
def test_as_apart(family: str, packing: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the adapters were trained, and without them."""
    if packing and not settled.packing(rows=1):
        pytest.skip("oneDNN is not here")
    monkeypatch.setattr(settled, "packing", lambda rows: packing)
    model = lora_model(request.getfixturevalue(f"{family}_folder")).eval()
    forward = Forward(model.get_base_model(), fast=True)
    first = apart(forward)
    torch.testing.assert_close(together(forward), first, atol=2e-5, rtol=2e-5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-2)
    second = apart(forward)
    assert (second - first).abs().max() > 1e-3
    torch.testing.assert_close(together(forward), second, atol=2e-5, rtol=2e-5)
    with model.disable_adapter():
        base = apart(forward)
        assert (second - base).abs().max() > 1e-3
        torch.testing.assert_close(together(forward), base, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(together(forward), second, atol=2e-5, rtol=2e-5)


def test_kept_while_nothing_changes(qwen2_folder: Path) -> None:
    forward = Forward(lora_model(qwen2_folder).get_base_model(), fast=True)
    assert forward.fast is not None
    together(forward)
    kept = forward.fast._settled
    together(forward)
    assert forward.fast._settled is kept
    apart(forward)
    assert not forward.fast._settled, "training needs the memory"


@pytest.mark.skipif(not settled.packing(rows=1), reason="oneDNN is not here")
@pytest.mark.parametrize(("processor", "always"), [("Intel(R) Xeon(R) Processor", False), ("AMD EPYC 7763", True)])
def test_by_the_faster_library(processor: str, always: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settled._intel.cache_clear()
    monkeypatch.setattr(settled, "processor", lambda: processor)
    assert settled.packing(settled.FEW - 1)
    assert settled.packing(settled.FEW) == always
    settled._intel.cache_clear()


def test_not_where_memory_is_short(qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Forward(lora_model(qwen2_folder).get_base_model(), fast=True)
    assert forward.fast is not None
    needed = sum(group.buffer.nbytes for group in forward.fast.groups)
    for free, there in ((2 * needed - 1, False), (2 * needed, True)):
        monkeypatch.setattr(settled.psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        with forward.steady(rows=2048):
            assert all(bool(group.instead) == there for group in forward.fast.groups)


def test_gradients_after_predictions(qwen2_folder: Path) -> None:
    found = []
    for predicts in (True, False):
        model = lora_model(qwen2_folder)
        forward = Forward(model.get_base_model(), fast=True)
        if predicts:
            together(forward)
        forward.loss(BATCH).backward()
        found.append(gradients(model))
    assert worst_error(*found)[0] <= TOLERANCE


def test_not_for_few(qwen2_folder: Path) -> None:
    """Whatever was before: the same call has the same bits."""
    forward = Forward(lora_model(qwen2_folder).get_base_model(), fast=True)
    first = apart(forward)
    together(forward)
    with torch.inference_mode(), forward.steady():
        assert torch.equal(forward.hidden(BATCH), first)


def test_what_is_too_large_or_rounded_stays(qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(model: nn.Module):
        return Forward(model.get_base_model(), fast=True).fast.groups

    assert settled.can_settle(groups(lora_model(qwen2_folder)))
    assert not settled.can_settle(groups(lora_model(qwen2_folder).to(torch.bfloat16)))
    monkeypatch.setattr(settled, "BYTES", 1000)
    assert not settled.can_settle(groups(lora_model(qwen2_folder)))
