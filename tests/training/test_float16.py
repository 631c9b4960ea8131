"""Weights in float16, as on cards before Ampere: small gradients are not lost, and an overflow costs no row."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from runs import adapter, lines, lively_model, run_config, same_bits, trained
from weitiao.engine.forward import Forward
from weitiao.model.load import choose_dtype
from weitiao.run_folder import RunFolder
from weitiao.training.guards import LARGEST, WITHOUT, LossScale, NonFiniteError

HALF = ("model.dtype=float16", "training.learning_rate=1e-3")


@pytest.fixture
def model(qwen2_folder: Path, tmp_path: Path) -> Path:
    return lively_model(tmp_path / "model", qwen2_folder)


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16), ((7, 0), torch.float16)],
)
def test_the_type_follows_the_card(
    capability: tuple[int, int], wanted: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert choose_dtype("auto", torch.device("cuda")) == wanted
    assert choose_dtype("float32", torch.device("cuda")) == torch.float32
    assert choose_dtype("auto", torch.device("mps")) == torch.float32


def test_it_goes_where_float32_goes(model: Path, classification_file: Path, tmp_path: Path) -> None:
    half = trained(run_config(tmp_path / "half", model, classification_file, *HALF))
    whole = trained(run_config(tmp_path / "whole", model, classification_file, HALF[1], "engine.fast_layer=false"))
    figures = [[line for line in lines(folder / "log.jsonl") if "loss" in line] for folder in (half, whole)]
    for name, apart in (("loss", 1e-2), ("grad_norm", 3e-2)):
        seen, wanted = ([line[name] for line in told] for told in figures)
        assert len(wanted) == 6
        assert seen == pytest.approx(wanted, rel=apart)


def test_an_overflow_computes_the_step_again(
    model: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss whose gradient overflows at the first scales trains on the same rows, with the same result."""
    straight = trained(run_config(tmp_path / "straight", model, classification_file, *HALF))
    monkeypatch.setattr("weitiao.training.guards.LARGEST", LARGEST * 2**12)
    overflown = trained(run_config(tmp_path / "overflown", model, classification_file, *HALF))
    last = RunFolder(overflown).newest_checkpoint()
    assert last is not None
    assert LARGEST * 2**12 > told(last)["loss_scale"] >= 1
    first, second = adapter(straight), adapter(overflown)
    apart = math.dist(*(torch.cat([t.flatten() for _, t in sorted(tensors.items())]) for tensors in (first, second)))
    assert apart < 1e-2 * math.hypot(*torch.cat([tensor.flatten() for tensor in first.values()]).tolist())


def test_a_run_goes_on_with_its_scale(model: Path, classification_file: Path, tmp_path: Path) -> None:
    straight = trained(run_config(tmp_path / "straight", model, classification_file, *HALF))
    config = run_config(tmp_path / "parted", model, classification_file, *HALF)
    folder = trained(config)
    (folder / "metrics.json").unlink()
    for name in ("checkpoint-6", "adapter"):
        for path in (folder / name).iterdir():
            path.unlink()
        (folder / name).rmdir()
    assert told(folder / "checkpoint-4")["loss_scale"] == LARGEST
    assert same_bits(adapter(trained(config)), adapter(straight))


def test_what_is_not_a_number_at_any_scale_stops(
    model: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Forward.loss
    monkeypatch.setattr(Forward, "loss", lambda self, batch: loss(self, batch) * math.nan)
    with pytest.raises(NonFiniteError, match=r"^step 1: .*model\.dtype=float32"):
        trained(run_config(tmp_path, model, classification_file, *HALF))


def test_the_scale_rises_again() -> None:
    scale = LossScale(None, 0)
    assert scale.again(overflown=True)
    assert scale.value == LARGEST / 2
    assert not any(scale.again(overflown=False) for _ in range(WITHOUT))
    assert (scale.value, scale.without) == (LARGEST, 0)


def told(checkpoint: Path) -> dict[str, Any]:
    return dict(json.loads((checkpoint / "trainer.json").read_text("utf-8")))
