"""Costs grow with what there is to do, every card of the table is one, and shapes of results stay."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from check.looked import config_of as checked_config
from check.looked import named as finding
from check.looked import names
from cost.described import config_of, held, model_of, work_of
from tiny import small_classification
from weitiao.check.page import page
from weitiao.check.priced import priced
from weitiao.check.screen import show
from weitiao.check.walk import check
from weitiao.cost import at_hand, estimate, machine
from weitiao.cost.cards import KINDS, called, known
from weitiao.cost.machine import Machine, machine_of, named
from weitiao.cost.minutes import minutes
from weitiao.cost.told import lines
from weitiao.cost.work import Spread, Work
from weitiao.cost.work import work_of as work_of_result
from weitiao.data.prefix import common_prefix
from weitiao.data.splits import load
from weitiao.errors import ConfigError
from weitiao.model.base import open_base
from weitiao.tasks.base import task_options

CARD = named("a10")
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 512}


def cost(work: Work, on: Machine = CARD, made: Any = None, **sections: Any) -> tuple[float, float]:
    """Bytes and minutes."""
    memory = held(work, on, made, **sections)
    taken = minutes(made or model_of(), work, on, memory)
    assert taken is not None
    return memory.without, taken.total


def times_of(spread: Spread, times: float) -> Spread:
    return Spread(spread.mean * times, spread.deviation * times, round(spread.most * times))


@given(
    st.sampled_from(["ner", "classification", "documents"]),
    st.integers(1, 1024),
    st.floats(1, 3),
    st.sampled_from(["rows", "longer", "samples", "layers", "answered"]),
)
def test_more_never_takes_less(profile: str, samples: int, times: float, what: str) -> None:
    work, made = work_of(profile, samples), model_of()
    more, larger = work, made
    if what == "rows":
        rows = round(work.rows * times)
        per_epoch = -(-rows // samples)
        more = replace(work, steps=work.steps // work.per_epoch * per_epoch, rows=rows, per_epoch=per_epoch)
        work = replace(work, steps=work.steps // work.per_epoch * work.per_epoch)
    elif what == "longer":
        more = replace(work, own=times_of(work.own, times), answers=times_of(work.answers, times))
    elif what == "samples":
        count = min(round(samples * times), work.rows)
        more = replace(work, samples=count, per_epoch=-(-work.rows // count))
    elif what == "layers":
        larger = model_of(num_hidden_layers=round(28 * times))
    else:
        more = replace(work, answered=round(100 * times))
    # Any step is one pack: two of them are smaller.
    whole = {"engine": {"tokens_per_pack": 10**8}}
    (memory, time), (memory_of_more, time_of_more) = cost(work, made=made, **whole), cost(more, made=larger, **whole)
    # Where a step is the whole file nothing is left to chance.
    assert memory_of_more >= memory * {"rows": 0.9, "samples": 0.9}.get(what, 1)
    assert time_of_more >= time * (0.95 if what == "rows" else 1)


@given(st.sampled_from(["ner", "classification", "documents"]), st.integers(1, 1024), st.integers(64, 100_000))
def test_the_largest_pack_has_room_and_is_part_of_a_step(profile: str, samples: int, tokens: int) -> None:
    work = work_of(profile, samples)
    own, read = work.largest_pack(tokens)
    most = work.own.of_step(work.rows, work.samples, work.steps)[1]
    room = max(tokens - work.prefix, work.own.most)
    assert 0 < read <= own <= min(room, most)
    assert own * math.ceil(most / room) >= most


@pytest.mark.parametrize("key", KINDS)
def test_cards(key: str) -> None:
    kind = KINDS[key]
    assert kind.source
    assert 0 < kind.gib < kind.gb
    assert 15 < kind.tflops < 1000
    assert (5, 0) <= kind.capability < (13, 0)
    assert named(key.upper()).kernels == (kind.capability >= (8, 0))


@pytest.mark.parametrize(
    ("name", "gib", "key"),
    [
        ("NVIDIA H100 80GB HBM3", 79.6, "h100"),
        ("NVIDIA A100-SXM4-80GB", 80.0, "a100-80"),
        ("NVIDIA A100-PCIE-40GB", 40.0, "a100"),
        ("NVIDIA GeForce RTX 4090", 24.0, "4090"),
        ("Tesla T4", 15.0, "t4"),
        ("Tesla V100-SXM2-16GB", 16.0, "v100"),
        ("NVIDIA L4", 22.5, "l4"),
        ("NVIDIA L40S", 45.0, "l40s"),
        ("Tesla V100-SXM2-32GB", 32.0, "v100-32"),
        ("Tesla P100-PCIE-16GB", 16.0, "p100"),
        ("NVIDIA A10G", 22.5, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16.0, None),
        ("NVIDIA H100 PCIe", 80.0, None),
    ],
)
def test_a_driver_s_name(name: str, gib: float, key: str | None) -> None:
    assert known(name, gib) is (KINDS[key] if key else None)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("4090", "4090"),
        ("RTX 4090", "4090"),
        ("L40S", "l40s"),
        ("nvidia-l4", "l4"),
        ("Tesla T4", "t4"),
        ("A100", "a100"),
        ("a100 80GB", "a100-80"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("v100 32g", "v100-32"),
        ("RTX 4090 D", None),
        ("h100 pcie", None),
        ("5080", None),
    ],
)
def test_what_a_user_calls_a_card(name: str, key: str | None) -> None:
    assert called(name) is (KINDS[key] if key else None)


def test_an_unknown_card_is_told_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"--gpu 4080: no such card .*mean 4090.*choices: 3090, .*v100-32, cpu"):
        named("4080")


def test_the_machine_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    section = config_of().model
    monkeypatch.setattr(at_hand, "card", lambda: at_hand.Card("NVIDIA L4", 22.5))
    found = machine_of(None, section)
    assert found is not None
    assert (found.name, found.flops) == ("NVIDIA L4", 121e12)
    monkeypatch.setattr(at_hand, "card", lambda: at_hand.Card("Some card", 10.0))
    found = machine_of(None, section)
    assert found is not None
    assert found.flops is None
    monkeypatch.setattr(at_hand, "card", lambda: None)
    found = machine_of(None, section)
    assert found is not None
    assert found.cpu
    assert 1e8 < (found.flops or 0) < 1e15
    assert machine_of(None, section.model_copy(update={"device": "cuda"})) is None


def test_a_card_with_less_gets_smaller_packs_then_more_is_computed_again() -> None:
    kinds, packs = [], []
    for gib in (60, 20, 10, 5, 4.6):
        found = held(work_of("ner", 256), Machine("some", gib, None, ""), model={"name": "s", "placement": "one"})
        kinds.append(("nothing", "gate_up", "layer").index(found.fit.recompute))
        packs.append(found.fit.tokens)
        assert found.fits
    assert kinds == sorted(kinds)
    assert kinds[0] == 0
    assert kinds[-1] == 2
    assert packs[:3] == sorted(packs[:3], reverse=True)


def test_a_large_model_comes_in_four_bits_or_does_not_fit() -> None:
    assert held(work_of("ner", 16), named("a10"), model_of("glm4-9b")).placement == "one"
    assert held(work_of("ner", 16), named("t4"), model_of("glm4-9b")).placement == "nf4"
    larger = model_of("glm4-9b", num_hidden_layers=300)
    found = held(work_of("ner", 16), named("t4"), larger)
    assert not found.fits
    told = estimate.too_large(config_of(), larger, named("t4"), found, None)
    assert told is not None
    assert told["level"] == "error"
    assert "smaller model or a larger card" in told["do"]


def test_a_model_that_a_cpu_is_refused_for() -> None:
    cpu, work = Machine("CPU", 64.0, 5e10, "", cpu=True), work_of("ner", 16)
    memory = held(work, cpu)
    taken = minutes(model_of(), work, cpu, memory)
    told = estimate.too_large(config_of(), model_of(), cpu, memory, taken)
    assert told is not None
    assert "1.5 billion parameters" in told["what"]
    assert "training.on_cpu=allow" in told["do"]
    allowed = config_of(training={"on_cpu": "allow"})
    assert estimate.too_large(allowed, model_of(), cpu, memory, taken) is None


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    path = small_classification(tmp_path / "clean.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def with_sizes(config: Any, **sizes: int) -> Any:
    path = Path(config.model.name) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | SIZES | sizes), "utf-8")
    return config


def test_tokens_are_those_of_training(tmp_path: Path, rows: Any) -> None:
    config = checked_config(tmp_path, rows, data={"validation": 0.2})
    work = work_of_result(config, check(config), True)
    assert work is not None
    task, drawn = load(config.data, task_options(config.task), config.run.seed)
    encoder = open_base(config.model).encoder(task, config.data.max_length, None)
    encoded = [encoder.training(example) for example in drawn.train]
    assert work.prefix == len(common_prefix(encoded))
    assert work.own.mean * len(encoded) == pytest.approx(sum(len(e.ids) - 1 - work.prefix for e in encoded))
    assert work.answers.mean * len(encoded) == pytest.approx(sum(len(e.answer) for e in encoded))
    assert work.longest == max(len(e.ids) for e in encoded) - 1


def test_shapes_of_the_result(tmp_path: Path, rows: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_sizes(checked_config(tmp_path, rows, data={"validation": 0.2}))
    told = priced(check(config), config, "a10", 2.5)
    found = told["cost"]
    assert json.loads(json.dumps(found)) == found
    assert list(found) == ["machine", "steps", "tokens", "memory", "minutes", "disk", "price"]
    assert list(found["memory"]) == [
        *("peak_gib", "without_recomputation_gib", "with_recomputation_gib", "available_gib"),
        *("fits", "placement", "recompute", "tokens_per_pack"),
    ]
    assert list(found["minutes"]) == ["total", "low", "high", "start", "training", "answers", "untuned"]
    assert found["price"]["total"] == round(2.5 * found["minutes"]["total"] / 60, 2)
    assert found["minutes"]["high"] == pytest.approx(2 * found["minutes"]["total"], rel=0.02)
    show(told)
    shown = capsys.readouterr().out
    for name, text in lines(found):
        assert f"{name}: {text}" in shown
        assert text in page(told, "x")
    assert [name for name, _ in lines(found)] == ["memory", "time", "disk", "price"]


ROOM = {"peak_gib": 4.04, "without_recomputation_gib": 4.04, "with_recomputation_gib": 3.0, "available_gib": 23.4}
ROOM |= {"fits": True, "placement": "one", "recompute": "nothing", "tokens_per_pack": 32_768}


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        ({}, "it fits (3.0 GiB would do if whole layers were computed twice)"),
        ({"with_recomputation_gib": 4.04}, "it fits"),
        (
            {"without_recomputation_gib": 9.0, "tokens_per_pack": 10_158},
            "it fits, with at most 10,158 tokens at once (9.0 GiB would be faster, "
            "3.0 GiB would do if whole layers were computed twice)",
        ),
        (
            {"without_recomputation_gib": 9.0, "recompute": "layer", "with_recomputation_gib": 4.04},
            "it fits, slower, computing whole layers twice and with at most 32,768 tokens at once "
            "(9.0 GiB would be faster)",
        ),
        (
            {"with_recomputation_gib": 4.04, "placement": "nf4"},
            "it fits, with the weights stored in 4 bits",
        ),
        ({"fits": False}, "it does not fit; the finding `too-large` says what to change"),
    ],
)
def test_memory_in_plain_words(memory: dict[str, Any], told: str) -> None:
    cost = {"memory": ROOM | memory, "machine": {"name": "L4"}, "minutes": None, "price": None}
    cost["disk"] = {"gib": 0.1, "free_gib": 10.0, "checkpoints": 3}
    assert dict(lines(cost))["memory"] == f"needs about 4.0 GiB, L4 has 23.4 GiB: {told}"


def test_memory_of_a_machine_that_does_not_say_its_own() -> None:
    cost = {"memory": ROOM | {"available_gib": None}, "machine": {"name": "CPU"}, "minutes": None, "price": None}
    cost["disk"] = {"gib": 0.1, "free_gib": 10.0, "checkpoints": 3}
    assert dict(lines(cost))["memory"] == "needs about 4.0 GiB; how much CPU has is not known"


@pytest.mark.parametrize("cpu", [True, False])
def test_the_untuned_model_is_counted(cpu: bool) -> None:
    """It goes on until its budget ends where answers are written, and takes as long as the tuned one where they are
    scored."""
    on = Machine("CPU", 64.0, 5e10, "", cpu=True) if cpu else CARD
    for profile, as_long in (("ner", False), ("classification", True)):
        tuned = minutes(model_of(), work := work_of(profile, 16, answered=500), on, held(work, on))
        both = minutes(model_of(), work := replace(work, untuned=500), on, held(work, on))
        assert tuned is not None
        assert both is not None
        assert tuned.untuned == 0
        assert both.answers == pytest.approx(tuned.answers + both.untuned)
        assert both.untuned == pytest.approx(tuned.answers) if as_long else both.untuned > 2 * tuned.answers


def test_what_the_untuned_model_takes_is_told(tmp_path: Path, rows: Any) -> None:
    for untuned in (True, False):
        config = with_sizes(checked_config(tmp_path, rows, data={"test": 0.2}, evaluation={"untuned": untuned}))
        found = check(config)
        work = work_of_result(config, found, True)
        assert work is not None
        assert work.untuned == (found["rows"]["test"] if untuned else 0)
        cost = priced(found, config, "a10")["cost"]
        cost["minutes"]["untuned"] = 90.0 if untuned else 0.0
        assert ("answers (evaluation.untuned=false saves 90 min);" in dict(lines(cost))["time"]) is untuned


def test_the_cost_is_not_kept_with_the_rows(tmp_path: Path, rows: Any) -> None:
    config = with_sizes(checked_config(tmp_path, rows))
    one, other = (priced(check(config), config, gpu)["cost"]["machine"]["name"] for gpu in ("a10", "l4"))
    assert (one, other) == ("A10", "L4")
    assert check(config)["cost"] is None


def test_too_large_is_a_finding(tmp_path: Path, rows: Any) -> None:
    config = with_sizes(checked_config(tmp_path, rows), hidden_size=16_384, intermediate_size=65_536)
    config = with_sizes(config, hidden_size=16_384, intermediate_size=65_536, num_hidden_layers=80)
    told = priced(check(config), config, "t4")
    assert finding(told, "too-large")["level"] == "error"
    assert told["findings"][0]["name"] == "too-large"
    assert not told["cost"]["memory"]["fits"]


def test_a_config_without_sizes_has_no_cost(tmp_path: Path, rows: Any) -> None:
    config = checked_config(tmp_path, rows)
    told = priced(check(config), config, "a10")
    assert told["cost"] is None
    assert "too-large" not in names(told)


def test_a_machine_whose_rate_is_unknown_has_memory_alone(
    tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.at_hand, "card", lambda: at_hand.Card("Some card", 10.0))
    config = with_sizes(checked_config(tmp_path, rows))
    found = priced(check(config), config, None, 2.5)["cost"]
    assert found["minutes"] is None
    assert found["price"] is None
    assert [name for name, _ in lines(found)] == ["memory", "disk"]
