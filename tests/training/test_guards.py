"""A gradient that is not finite reaches neither weights nor moments, and training stops and names the rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from runs import adapter, checkpoints, lines, run_config, same_bits, trained
from weitiao.data.pack import samples_of_step
from weitiao.data.splits import load
from weitiao.engine.forward import Forward
from weitiao.tasks.base import task_options
from weitiao.training.guards import GradientGuard, NonFiniteError
from weitiao.training.loop import Loop


@pytest.fixture(params=[{"cpu", "cuda"}, {"cuda"}], ids=["read by the optimizer", "read by the guard"])
def guarded(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[torch.nn.Parameter, torch.optim.AdamW, GradientGuard]:
    monkeypatch.setattr("weitiao.training.guards.READ_ON", request.param)
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.1, fused=True)
    return parameter, optimizer, GradientGuard(optimizer, torch.device("cpu"))


def one_update(guarded: Any, gradient: list[float], step: int, limit: float = 1.0) -> torch.Tensor:
    parameter, _, guard = guarded
    parameter.grad = torch.tensor(gradient)
    norm = guard.clip([parameter], limit)
    guard.update()
    guard.note(step)
    return norm


def snapshot(guarded: Any) -> list[torch.Tensor]:
    parameter, optimizer, _ = guarded
    return [parameter.detach().clone(), *(value.clone() for value in optimizer.state[parameter].values())]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_and_moments_stay(guarded: Any, bad: float) -> None:
    one_update(guarded, [1.0, 2.0], 0)
    before = snapshot(guarded)
    one_update(guarded, [0.5, bad], 1)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(guarded), strict=True))
    one_update(guarded, [0.5, 0.5], 2)
    assert not any(torch.equal(a, b) for a, b in zip(before, snapshot(guarded), strict=True))
    assert guarded[2].first_bad_step() == 1
    assert guarded[2].first_bad_step() is None, "a step is told of once"


def test_clipping(guarded: Any) -> None:
    assert float(one_update(guarded, [3.0, 4.0], 0, limit=2.5)) == pytest.approx(5.0)
    assert guarded[0].grad.tolist() == pytest.approx([1.5, 2.0])
    assert float(one_update(guarded, [0.3, 0.4], 1, limit=2.5)) == pytest.approx(0.5)
    assert guarded[0].grad.tolist() == pytest.approx([0.3, 0.4])
    assert guarded[2].first_bad_step() is None


@pytest.fixture
def poison_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes the loss NaN in a step (counted from 0)."""
    loss, step = Forward.loss, Loop.step
    now = [0]

    def counting(self: Loop, number: int) -> Any:
        now[0] = number
        return step(self, number)

    def poison(at: int) -> None:
        monkeypatch.setattr(Loop, "step", counting)
        monkeypatch.setattr(
            Forward, "loss", lambda self, batch: loss(self, batch) * (math.nan if now[0] == at else 1.0)
        )

    return poison


@pytest.mark.parametrize("logging_steps", [1, 10])
def test_training_stops_and_names_the_rows(
    qwen2_folder: Path,
    classification_file: Path,
    tmp_path: Path,
    poison_at: Any,
    monkeypatch: pytest.MonkeyPatch,
    logging_steps: int,
) -> None:
    config = run_config(tmp_path / "a", qwen2_folder, classification_file, f"training.logging_steps={logging_steps}")
    poison_at(2)
    with pytest.raises(NonFiniteError) as error:
        trained(config)
    assert str(error.value).startswith("step 3: ")
    _, splits = load(config.data, task_options(config.task), config.run.seed)
    for row in samples_of_step(len(splits.train), 4, config.run.seed, 2):
        assert splits.train[row].row.place in str(error.value)
    # Nothing behind the bad step was saved, and what was saved is finite.
    assert checkpoints(config.folder) == ["checkpoint-2"]
    assert all(bool(tensor.isfinite().all()) for tensor in adapter(config.folder / "checkpoint-2").values())
    assert not (config.folder / "metrics.json").exists()
    assert max((line["step"] for line in lines(config.folder / "log.jsonl")), default=0) <= 2
    # It says the same again as long as the cause is there.
    with pytest.raises(NonFiniteError, match="step 3: "):
        trained(config)
    monkeypatch.undo()
    resumed = trained(config)
    straight = trained(run_config(tmp_path / "b", qwen2_folder, classification_file))
    assert same_bits(adapter(resumed), adapter(straight))


def test_a_bad_step_keeps_the_trained_weights(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, poison_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the loop itself, with the real optimizer."""
    poison_at(3)
    seen: dict[int, list[torch.Tensor]] = {}
    step = Loop.step

    def watching(self: Loop, number: int) -> Any:
        result = step(self, number)
        moments = [value for p in self.parameters for value in self.optimizer.state[p].values()]
        seen[number] = [value.detach().clone() for value in (*self.parameters, *moments)]
        return result

    monkeypatch.setattr(Loop, "step", watching)
    with pytest.raises(NonFiniteError):
        trained(run_config(tmp_path, qwen2_folder, classification_file))
    assert all(torch.equal(a, b) for a, b in zip(seen[2], seen[3], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))


def test_an_infinite_loss_of_the_model_itself(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen weight that overflows: the very first step stops, and no checkpoint is left."""
    from weitiao.model import load

    load_model = load.load_model

    def poisoned(*given: Any) -> Any:
        model = load_model(*given)
        model.get_decoder().layers[0].mlp.down_proj.weight.data[0, 0] = math.inf
        return model

    monkeypatch.setattr(load, "load_model", poisoned)
    config = run_config(tmp_path, qwen2_folder, classification_file)
    with pytest.raises(NonFiniteError, match="step 1: "):
        trained(config)
    assert checkpoints(config.folder) == []
    assert not (config.folder / "adapter").exists()
