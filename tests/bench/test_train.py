"""`weitiao bench train` on a tiny shape: what it prints, that it measures equals, and in which order. Never a time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from weitiao.bench import measure
from weitiao.bench.curves import curves
from weitiao.bench.equality import TOLERANCE, worst_error
from weitiao.bench.measure import Lane, interleaved, stable
from weitiao.bench.profiles import PROFILES, distinct_tokens, real_tokens, samples
from weitiao.bench.remote import Workers
from weitiao.bench.request import asked
from weitiao.bench.shapes import SHAPES, ModelMaker, model_maker
from weitiao.bench.system import Settings, System, system_class
from weitiao.bench.systems import system_names
from weitiao.bench.table import train_tables
from weitiao.bench.train import bench_train, measured
from weitiao.cli import app
from weitiao.data.collate import Batch, packed_batch
from weitiao.data.pack import Pack
from weitiao.errors import ConfigError
from weitiao.model.adapter import adapter_parameters
from weitiao.tracking.screen import Screen
from weitiao.types import Encoded

CPU = torch.device("cpu")
HERE = ("weitiao", "tutorial", "hf_batched")
"""Systems that need nothing beside what Weitiao needs."""
KEYS = {
    *("system", "profile", "samples_per_step", "samples_per_second", "low", "high", "tokens_per_second", "peak_gib"),
    *("useful_tflops", "gemm_share", "warm_up_seconds", "seconds_1k", "seconds_10k", "equal", "equal_error"),
    *("first_losses", "note"),
}


@pytest.fixture(scope="module", autouse=True)
def small_product() -> Any:
    """A matrix product that takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure.GEMM, "cpu", (64, torch.float32, 1))
        yield


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    arguments = ["bench", "train", "--device", "cpu", "--shape", "tiny", "--samples-per-step", "4"]
    done = CliRunner().invoke(app, [*arguments, "--repeats", "2", "--seconds", "0", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def make() -> ModelMaker:
    return model_maker("tiny", CPU, torch.float32)


def drawn(profile: str, count: int = 8) -> list[Encoded]:
    return samples(PROFILES[profile], count, SHAPES["tiny"].config["vocab_size"], seed=3)


def test_every_system_has_a_row_of_the_same_keys(found: dict[str, Any]) -> None:
    assert {row["system"] for row in found["rows"]} == set(system_names())
    assert all(row.keys() == KEYS for row in found["rows"])
    assert all((row["profile"], row["samples_per_step"]) == ("ner", 4) for row in found["rows"])
    assert {"processor", "threads", "versions", "shape", "dtype", "gemm_tflops", "gemm_kept_up_tflops"} <= found[
        "machine"
    ].keys()


def test_rows_hold_figures_or_say_why_not(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        if row["system"] not in HERE:
            assert row["note"]
            assert row["samples_per_second"] is None
            continue
        assert row["note"] is None
        assert row["low"] <= row["samples_per_second"] <= row["high"]
        assert row["tokens_per_second"] > row["samples_per_second"]
        assert row["warm_up_seconds"] < row["seconds_1k"] < row["seconds_10k"]
        assert row["peak_gib"] is None, "memory of a process on a CPU is no single system's"


def test_exact_systems_are_equal_and_learn_alike(found: dict[str, Any]) -> None:
    rows = {row["system"]: row for row in found["rows"]}
    assert rows["tutorial"]["equal"] is None, "its dropout is another estimator"
    for name in ("weitiao", "hf_batched"):
        assert rows[name]["equal"] is True, rows[name]["equal_error"]
    ours, theirs = (rows[name]["first_losses"] for name in ("weitiao", "hf_batched"))
    assert len(ours) == 5
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_table_shows_every_system(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(train_tables(found))
    shown = capture.get()
    assert all(name in shown for name in system_names())
    assert "…" not in shown


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["weitiao", "hf_batched"])
def test_gradients_of_every_profile(name: str, profile: str, make: ModelMaker) -> None:
    members = drawn(profile, 2 if profile == "documents" else 8)
    assert worst_error(system_class(name)(), make, members) <= TOLERANCE["cpu"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_engine_covers_every_shape(shape: str, make: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its build, a tenth as wide."""
    wanted = dict(SHAPES[shape].config) | {"num_hidden_layers": 2, "vocab_size": 512, "intermediate_size": 96}
    heads = wanted["num_attention_heads"]
    wanted |= {"hidden_size": 16 * heads} | ({"head_dim": 16} if "head_dim" in wanted else {})
    monkeypatch.setitem(SHAPES, shape, replace(SHAPES[shape], config=wanted))
    small = model_maker(shape, CPU, torch.float32)
    assert worst_error(system_class("weitiao")(), small, drawn("ner", 4)) <= TOLERANCE["cpu"]


def positions_that_count_on(pack: Pack) -> Batch:
    """A row goes on where the one before it ended, not behind the prefix."""
    batch = packed_batch(pack)
    return replace(batch, positions=torch.arange(batch.input_ids.shape[1])[None])


def label_of_a_neighbour(pack: Pack) -> Batch:
    batch = packed_batch(pack)
    return replace(batch, labels=batch.labels.roll(1))


@pytest.mark.parametrize("spoilt", [positions_that_count_on, label_of_a_neighbour])
def test_a_spoilt_engine_is_not_equal(spoilt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weitiao.training.loop.packed_batch", spoilt)
    request = asked("cpu", "tiny", ["ner"], [4], ["weitiao"], repeats=1, seconds=0)
    (row,) = bench_train(request, Screen(silent=True))["rows"]
    assert row["equal"] is False
    assert row["equal_error"] > 100 * TOLERANCE["cpu"]


def test_a_gradient_that_is_no_number_is_not_equal(make: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weitiao.engine.forward.Forward.loss", lambda self, batch: self.hidden(batch).sum() * torch.nan)
    assert worst_error(system_class("weitiao")(), make, drawn("ner")) == float("inf")


@pytest.mark.parametrize("option", ["device", "profile", "shape", "system"])
def test_an_unknown_name_is_one_line_with_the_choices(option: str) -> None:
    choices = {"device": ("cpu", "cuda"), "profile": PROFILES, "shape": SHAPES, "system": system_names()}[option]
    done = CliRunner().invoke(app, ["bench", "train", f"--{option}", "nemo"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == f"--{option} nemo: no such {option}; choices: {', '.join(choices)}"


def test_an_unknown_name_is_told_before_torch_is_imported() -> None:
    script = """
import sys
from weitiao.bench.request import asked
from weitiao.errors import ConfigError
try:
    asked(profiles=["nemo"])
except ConfigError:
    sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_cuda_without_a_card_is_refused() -> None:
    with pytest.raises(ConfigError, match="choices: cpu"):
        asked("cuda")


def test_blocks_take_turns() -> None:
    order: list[str] = []
    interleaved(("a", "b", "c"), 3, order.append)
    assert "".join(order) == "abcabcabc"


def test_every_system_sees_the_same_steps_in_order(make: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[int]] = {name: [] for name in HERE}
    for name in HERE:
        monkeypatch.setattr(system_class(name), "step", lambda _, number, at=name: seen[at].append(number) or ONE)
    request = asked("cpu", "tiny", systems=HERE, seconds=0)
    measured(request, make, drawn("ner"), 4, Workers("tiny", CPU), Screen(silent=True))
    for numbers in seen.values():
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 3 + 3, "warm-up, then a step a block at least"


ONE = torch.ones(())


class Counting(System):
    def prepare(self, *_: Any) -> None:
        pass

    def step(self, number: int) -> torch.Tensor:
        return torch.tensor(float(number))


def test_a_block_counts_what_its_steps_took() -> None:
    members = drawn("ner", 6)
    lane = Lane("counting", Counting(), members, 104, Settings(4, 6), CPU, steps=1)
    lane.block(0)
    (block,) = lane.blocks
    taken = [members[at] for at in Settings(4, 6).members(1)]
    assert len(taken) == block.samples == 2, "an epoch's last step is short"
    assert block.tokens == real_tokens(taken) == sum(len(sample.ids) for sample in taken)
    assert block.distinct == distinct_tokens(taken, 104) == block.tokens - 104 - 2


def test_warm_up_ends_when_steps_get_no_faster() -> None:
    assert not stable([9.0, 1.0])
    assert not stable([9.0, 5.0, 2.0])
    assert stable([9.0, 2.0, 2.0, 2.1])
    assert stable([1.0, 1.2, 1.0])


@pytest.mark.parametrize(
    ("profile", "prefix", "text", "answer"),
    [("ner", 104, (33, 67), (21, 73)), ("classification", 35, (61, 136), (2.5, 3)), ("documents", 20, None, (3, 3))],
)
def test_lengths_are_those_of_the_protocol(
    profile: str, prefix: int, text: tuple[float, float] | None, answer: tuple[float, float]
) -> None:
    members = drawn(profile, 1000)
    assert len({sample.ids[:prefix] for sample in members}) == 1
    texts = [sample.prompt_length - prefix for sample in members]
    answers = [len(sample.answer) for sample in members]
    for lengths, wanted in [(texts, text), (answers, answer)]:
        if wanted is not None:
            assert statistics.mean(lengths) == pytest.approx(wanted[0], rel=0.06)
            assert sorted(lengths)[949] == pytest.approx(wanted[1], rel=0.06)
    if profile == "documents":
        assert 1000 <= min(texts) < 1020
        assert 3980 < max(texts) <= 4000


def test_models_share_their_frozen_weights_and_nothing_else(make: ModelMaker) -> None:
    first, second = make(), make()
    assert all(a is b for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.lm_head.weight is first.model.embed_tokens.weight
    assert first.model.layers[0] is not second.model.layers[0]


@pytest.mark.parametrize("profile", PROFILES)
def test_micro_batches_are_bounded_by_rows_and_padded_tokens(profile: str, make: ModelMaker) -> None:
    system: Any = system_class("hf_batched")()
    members = drawn(profile, 256)
    system.prepare(make, members, Settings(256, 256))
    batches = [[len(sample.ids) for sample in batch] for batch in system.batches(members)]
    assert sorted(chain(*batches)) == sorted(len(sample.ids) for sample in members)
    assert all(len(batch) <= 64 and len(batch) * max(batch) <= 16_384 for batch in batches)
    assert max(map(len, batches)) == (13 if profile == "documents" else 64)
    assert len(batches[0]) == {"documents": 4, "ner": 43, "classification": 54}[profile]


def test_a_row_longer_than_the_bound_is_a_batch(make: ModelMaker) -> None:
    system: Any = system_class("hf_batched")()
    system.prepare(make, drawn("ner", 3), Settings(3, 3))
    system.fits = 10
    assert [len(batch) for batch in system.batches(drawn("ner", 3))] == [1, 1, 1]


def test_a_row_that_does_not_fit_is_an_error(make: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(system_class("hf_batched"), "loss", no_room)
    system: Any = system_class("hf_batched")()
    system.prepare(make, drawn("ner", 3), Settings(3, 3))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        system.step(0)


def test_a_batch_that_does_not_fit_is_halved(make: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    batched = system_class("hf_batched")
    whole, settings = batched.loss, Settings(6, 6)

    def small_card(self: Any, members: Any, wanted: int) -> torch.Tensor:
        if len(members) > 2:
            raise torch.cuda.OutOfMemoryError
        return whole(self, members, wanted)

    def moved() -> tuple[float, list[torch.Tensor]]:
        system: Any = batched()
        system.prepare(make, drawn("ner", 6), settings)
        loss = float(system.step(0))
        return loss, [parameter.detach() for _, parameter in adapter_parameters(system.model)]

    loss, weights = moved()
    monkeypatch.setattr(batched, "loss", small_card)
    halved_loss, halved = moved()
    assert halved_loss == pytest.approx(loss, rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights, halved, strict=True))


@pytest.mark.slow
def test_loss_curves(make: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is that of separate code; one that skips every other update is not."""
    told = (["weitiao", "tutorial", "hf_batched"], make, {"ner": drawn("ner", 16)}, Settings(4, 16, learning_rate=1e-3))
    theirs, ours = sorted(curves(*told, 30, Screen(silent=True)), key=lambda one: one["system"])
    assert (theirs["system"], ours["system"]) == ("hf_batched", "weitiao")
    assert theirs["within"]
    assert ours["within"]
    assert ours["gap"] < 1e-3 < ours["other_order"]
    right = system_class("weitiao").step

    def lazy(self: Any, number: int) -> torch.Tensor:
        monkeypatch.setattr(self.loop, "share_of_rate", lambda step: 1.0 if step % 2 else 0.0)
        return right(self, number)

    monkeypatch.setattr(system_class("weitiao"), "step", lazy)
    (spoilt,) = (one for one in curves(*told, 30, Screen(silent=True)) if one["system"] == "weitiao")
    assert spoilt["gap"] > 10 * ours["gap"]
