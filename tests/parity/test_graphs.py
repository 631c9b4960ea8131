"""Packs brought to recorded sizes give the loss and gradients that they give as they are. Graphs need a card: here a
recorded function is called again, which leaves sizes, filler, and what is read where."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity import test_split_attention as written_out
from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from runs import lines, lively_model, run_config, trained
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import graphs, split_attention
from weitiao.engine.forward import Forward
from weitiao.engine.graphs import PADDING, PackGraphs, RecordedCall, Size, planned
from weitiao.engine.room import GRAIN
from weitiao.engine.split_attention import BLOCK
from weitiao.training.loop import Loop


@pytest.fixture
def _on_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_attention, "flash_forward", written_out.forward)
    monkeypatch.setattr(split_attention, "flash_backward", written_out.backward)
    monkeypatch.setattr(split_attention, "HALF", (torch.float32,))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)

    def record(function, pool=None):
        return SimpleNamespace(replay=function, pool=lambda: "pool")

    monkeypatch.setattr(graphs, "record", record)


def packs_of(prefix: int, counts: tuple[int, ...]) -> list[Pack]:
    draw = random.Random(0)
    found = []
    for count in counts:
        rows = []
        for _ in range(count):
            length = draw.randint(2, 40)
            keep = tuple(range(length))[-draw.randint(1, 2) :]
            ids = tuple(draw.randrange(500) for _ in range(length))
            rows.append(PackRow(ids, keep, tuple(draw.randrange(500) for _ in keep)))
        found.append(Pack(tuple(range(100, 100 + prefix)), tuple(rows)))
    return found


def loss_of(model, packs: list[Pack]) -> float:
    """Of all packs, one by one; the gradients are with the model's parameters."""
    forward, total = Forward(model.get_base_model(), fast=True), 0.0
    for pack in packs:
        loss = forward.loss(packed_batch(pack)) * 0.01
        loss.backward()
        total += loss.item()
    return total


@pytest.mark.usefixtures("_on_a_host")
@pytest.mark.parametrize("family", ["qwen2", "glm4", "qwen2_vl"])
@pytest.mark.parametrize("prefix", [0, 11])
def test_loss_and_gradients(family: str, prefix: int, request: pytest.FixtureRequest) -> None:
    """Among the packs are some that nothing was planned for."""
    packs = packs_of(prefix, (9, 3, 9, 20, 1, 9))
    ours, theirs = (lora_model(request.getfixturevalue(f"{family}_folder")) for _ in range(2))
    wanted_loss = loss_of(theirs, packs)
    parameters = [p for p in ours.parameters() if p.requires_grad]
    made = PackGraphs(
        Forward(ours.get_base_model(), "split", fast=True), parameters, [Size.of(p) for p in packs[:3]], packs=10
    )
    for pack in packs:
        made.add(pack, 0.01)
    recorded = len(made._recorded)
    assert 2 <= recorded <= 5
    assert made.loss.item() == pytest.approx(wanted_loss, rel=TOLERANCE)
    error, name = worst_error(gradients(ours), gradients(theirs))
    assert error <= TOLERANCE, f"{name}: {error:.2e}"
    made.rest()
    assert not made._recorded
    made.wake()
    assert {size.own for size in made._sizes} == {held.size.own for held in made._recorded}


@pytest.mark.usefixtures("_on_a_host")
def test_prefixes_of_several_lengths_and_ids(qwen2_folder: Path) -> None:
    """One after another through the same sizes: a prefix is read anew with each pack."""
    kinds = [packs_of(prefix, (9, 8, 10)) for prefix in (11, 11, 40)]
    kinds[1] = [replace(pack, prefix=tuple(range(300, 311))) for pack in kinds[1]]
    packs = [pack for three in zip(*kinds, strict=True) for pack in three]
    ours, theirs = lora_model(qwen2_folder), lora_model(qwen2_folder)
    wanted_loss = loss_of(theirs, packs)
    parameters = [p for p in ours.parameters() if p.requires_grad]
    forward = Forward(ours.get_base_model(), "split", fast=True)
    made = PackGraphs(forward, parameters, [Size.of(pack) for pack in packs], packs=500)
    for pack in packs:
        made.add(pack, 0.01)
    assert {held.size.prefix for held in made._recorded} == {11, 40}
    assert len(made._recorded) < len(packs)
    assert made.loss.item() == pytest.approx(wanted_loss, rel=TOLERANCE)
    error, name = worst_error(gradients(ours), gradients(theirs))
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


needs = st.builds(
    Size,
    prefix=st.sampled_from([0, 35, 104]),
    own=st.integers(64, 20_000),
    rows=st.integers(1, 300),
    longest=st.integers(104, 4000),
    reads=st.integers(1, 9000),
).filter(lambda size: size.rows * size.longest >= size.own)


@given(st.lists(needs, min_size=1, max_size=40), st.integers(1, 10_000))
def test_a_plan_holds_what_it_was_made_for(found: list[Size], packs: int) -> None:
    sizes = planned(found, packs)
    totals = [size.prefix + size.own for size in sizes]
    assert totals == sorted(totals, reverse=True)
    for need in found:
        holding = [size for size in sizes if size.holds(need)]
        assert holding
        assert min(size.own for size in holding) <= max(need.own * (1 + PADDING), need.own + GRAIN) * 1.04
    assert all(size.own % GRAIN == 0 for size in sizes)


def test_similar_packs_share_a_size() -> None:
    found = [Size(104, 13_000 + 7 * at, 257, 200, 5000 + at) for at in range(200)]
    assert len(planned(found, packs=200)) <= 4
    assert len(planned(found, packs=5000)) <= 12


def test_a_long_run_has_little_filler() -> None:
    """Packs of 16 rows differ by a factor of two; a short run gets fewer sizes."""
    found = [Size(104, 590 + 11 * (at * 37 % 50), 17, 250, 300 + at) for at in range(200)]
    sizes = planned(found, packs=5000)
    filler = sum(min(size.own for size in sizes if size.holds(need)) - need.own for need in found)
    assert filler <= 0.12 * sum(need.own for need in found)
    assert len(planned(found, packs=40)) < len(sizes)


def test_tables_of_a_size_do_not_depend_on_the_pack() -> None:
    packs = packs_of(11, (9, 7, 8))
    size = Size.around([Size.of(pack) for pack in packs])
    shapes = set()
    for pack in packs:
        batch = size.batch(pack)
        layout = size.layout(batch)
        assert batch.input_ids.shape == (1, 11 + size.own)
        shapes.add((len(batch.keep), len(batch.labels), layout.starts.shape, layout.blocks.shape, layout.longest))
        used = [tuple(row) for row in layout.blocks.tolist() if row[2] > row[0]]
        covered = [at for first, _, end in used for at in range(first, min(first + BLOCK, end))]
        assert sorted(covered) == list(range(11 + size.own))
    assert len(shapes) == 1


@pytest.mark.usefixtures("_on_a_host")
@pytest.mark.parametrize("plain", [0, 1, 3])
def test_a_function_is_recorded_behind_its_first_calls(plain: int) -> None:
    calls = []
    recorded = RecordedCall(lambda: calls.append(1), plain=plain)
    for count in range(1, 6):
        recorded()
        assert len(calls) == count
        assert (recorded.graph is not None) == (count > plain)


@pytest.mark.usefixtures("_on_a_host")
@pytest.mark.parametrize(
    ("more", "long"),
    [((), False), (("lora.lora_dropout=0.2",), False), ((), True)],
    ids=["plain", "dropout", "long rows that share nothing"],
)
def test_a_run_learns_the_same_by_graphs(
    qwen2_folder: Path,
    classification_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    long: bool,
) -> None:
    """Weights, moments and learning rate too stay where a graph finds them."""
    prefixes: list[bool] = []
    step = Loop.step
    monkeypatch.setattr(Loop, "step", lambda self, at: prefixes.append(any(self.prefixes)) or step(self, at))
    if long:
        monkeypatch.setattr(split_attention, "SHORT", 0)
        monkeypatch.setattr(split_attention, "SECOND_CALL", 1e9)
    model = lively_model(tmp_path / "model", qwen2_folder)
    told = ("training.max_steps=12", "training.samples_per_step=16", "training.max_grad_norm=0.5", *more)
    found = []
    for way in ("rows", "split"):
        monkeypatch.setattr("weitiao.prediction.predictor.choose_way", lambda *_, way=way: way)
        run = trained(run_config(tmp_path, model, classification_file, f"run.name={way}", *told))
        found.append([(line["loss"], line["grad_norm"]) for line in lines(run / "log.jsonl") if "loss" in line])
    assert len(found[0]) > 5
    assert prefixes == [True] * 12 + [not long] * 12
    if not more:
        for ours, theirs in zip(*found, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)
    assert found[1][-1][0] < found[1][0][0] / 2
