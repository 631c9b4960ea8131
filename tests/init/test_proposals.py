"""The rules: each table goes down, and what is proposed is near what ships."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weitiao.config import SHIPPED, load_config
from weitiao.hub.pinned import MODELS as PINNED
from weitiao.init.cautions import SMALL
from weitiao.init.choices import CHOICES
from weitiao.init.counts import Lengths
from weitiao.init.proposals import (
    CPU_ROWS,
    EPOCHS,
    MAX_LENGTH,
    MODELS,
    ROUNDED,
    RULES,
    Rows,
    Rule,
    chosen,
    length,
    proposal,
    ruled,
)
from weitiao.tasks.base import task_names

TEXT, SMALLEST = MODELS[1], MODELS[2]


def test_every_task_has_its_rules() -> None:
    assert set(CHOICES) == set(CPU_ROWS) == set(SMALL) == set(task_names()), "a new task needs a choice and its rules"


@pytest.mark.parametrize("table", [*RULES.values(), *EPOCHS.values()])
def test_tables_go_down_to_zero_and_each_rule_has_a_reason(table: tuple[Rule, ...]) -> None:
    assert all(higher.least > lower.least for higher, lower in pairwise(table))
    assert table[-1].least == 0
    assert all(rule.why for rule in table)


def test_models_are_those_that_ship() -> None:
    shipped = {load_config(path.stem).model.name for path in SHIPPED.glob("*.yaml")}
    assert {model.name for model in MODELS} <= shipped
    assert SMALLEST.name in PINNED


def test_the_rules_start_from_the_demo_and_the_shipped_configs() -> None:
    demo, shipped = load_config("demo"), load_config("qwen2.5-1.5b-fudan-news")
    made = proposal("classification", Rows(8000, 1000, 1000), [Lengths(0, 200)] * 10, 0, None, None)
    assert made.limits == {"train_rows": demo.data.train_rows, "validation_rows": 100, "test_rows": demo.data.test_rows}
    assert made.max_length.value == demo.data.max_length
    assert SMALLEST.learning_rate == demo.training.learning_rate
    for config, model, rows in ((demo, SMALLEST, 800), (shipped, TEXT, 4000)):
        training = config.training
        assert ruled(EPOCHS["classification"], rows).value == training.num_train_epochs
        assert ruled(EPOCHS[""], rows).value == training.num_train_epochs
        assert ruled(RULES["samples_per_step"], rows).value == training.samples_per_step
        assert model.warmup_steps == training.warmup_steps
        assert config.lora.r == dict(model.lora).get("r", 8)


@pytest.mark.parametrize(
    ("images", "gib", "named", "model", "rate"),
    [
        (False, None, None, "pypi:smollm2-135m-instruct", 5e-4),
        (False, 4, None, "pypi:smollm2-135m-instruct", 5e-4),
        (False, 8, None, "Qwen/Qwen2.5-1.5B-Instruct", 2e-4),
        (True, None, None, "Qwen/Qwen2-VL-2B-Instruct", 1e-4),
        (False, None, "hf:Qwen/Qwen3-1.7B", "hf:Qwen/Qwen3-1.7B", 2e-4),
        (False, 80, "my/SmolLM2-360M", "my/SmolLM2-360M", 5e-4),
    ],
)
def test_the_model_follows_images_card_and_user(
    images: bool, gib: float | None, named: str | None, model: str, rate: float
) -> None:
    found, why = chosen(images, gib, named)
    assert (found.name, found.learning_rate) == (model, rate)
    assert why


@pytest.mark.parametrize(
    ("task", "gib", "epochs"),
    [("classification", 24, 2), ("ner", 24, 8), ("ner", None, 2), ("generation", 24, 2)],
)
def test_entities_are_learned_longer_where_there_is_a_card(task: str, gib: float | None, epochs: int) -> None:
    assert proposal(task, Rows(1000, 100, 100), [Lengths(50, 0)], 0, gib, None).epochs.value == epochs


def test_a_card_limits_nothing() -> None:
    assert proposal("ner", Rows(9000, 900, 900), [Lengths(10, 10)], 0, 24, None).limits == {}


@given(st.lists(st.builds(Lengths, st.integers(0, 5000), st.integers(0, 5000)), max_size=50), st.integers(0, 3))
def test_lengths_are_round_and_bounded(lengths: list[Lengths], images: int) -> None:
    for machine, most in MAX_LENGTH.items():
        for_text = length(lengths, images, TEXT, machine).value - 100 * images
        assert ROUNDED <= for_text <= most
        assert for_text % ROUNDED == 0


def test_the_longest_texts_do_not_count() -> None:
    found = length([Lengths(100, 0)] * 99 + [Lengths(5000, 0)], 0, TEXT, "card")
    assert (found.value, "99%" in found.why) == (128, True)


def test_the_docs_name_the_same_model_for_machines_without_a_hub() -> None:
    assert SMALLEST.name in (Path(__file__).parents[2] / "docs" / "first-hour.md").read_text("utf-8")
