"""The plan: subsets are nested and stratified, held-out rows stand still, small shares get seeds and steps enough."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny import write_rows
from weitiao.config import RunConfig, load_config
from weitiao.curve.plan import LEAST_STEPS, SHARES, parse_shares, parts, seeds_of
from weitiao.data.splits import Splits, load
from weitiao.errors import ConfigError
from weitiao.tasks.base import task_options

LABELS = ["a"] * 240 + ["b"] * 60 + ["c"] * 20


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"text {at}", "label": label} for at, label in enumerate(LABELS)]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows)


def config_of(file: Path, *overrides: str) -> RunConfig:
    values = {
        "run": {"name": "x"},
        "task": {"name": "classification"},
        "model": {"name": "none"},
        "data": {"train": str(file), "validation": 0.1, "test": 0.2},
    }
    return load_config(values, overrides)


def splits_of(config: RunConfig) -> Splits:
    return load(config.data, task_options(config.task), config.run.seed)[1]


def texts(examples: list) -> list[str]:
    return [example.text for example in examples]


@pytest.mark.parametrize("seed", [0, 7, 42])
def test_subsets_of_a_seed_are_nested_and_stratified(file: Path, seed: int) -> None:
    config = config_of(file, f"run.seed={seed}")
    whole = splits_of(config)
    planned = [p for p in parts(config, len(whole.train), (10, 25, 50, 100), 3) if p.seed == seed]
    subsets = [splits_of(part.config).train for part in planned]
    for part, fewer, more in zip(planned, subsets, subsets[1:], strict=False):
        assert set(texts(fewer)) < set(texts(more))
        assert len(fewer) == part.rows
    assert texts(subsets[-1]) == texts(whole.train)
    all_of = Counter(example.answer for example in whole.train)
    for subset in subsets:
        for label, number in Counter(example.answer for example in subset).items():
            assert abs(number - len(subset) * all_of[label] / len(whole.train)) <= 1.5


def test_held_out_rows_are_those_of_the_config_at_every_share_and_seed(file: Path) -> None:
    config = config_of(file, "data.validation_rows=20", "data.test_rows=50")
    whole = splits_of(config)
    drawn = set()
    for part in parts(config, len(whole.train), SHARES, 4):
        splits = splits_of(part.config)
        assert texts(splits.test) == texts(whole.test)
        assert texts(splits.validation) == texts(whole.validation)
        assert set(texts(splits.train)) <= set(texts(whole.train))
        drawn.add((part.share, tuple(texts(splits.train))))
    assert len({rows for share, rows in drawn if share == 10}) == 4


@given(shares=st.lists(st.floats(1, 100), min_size=2, max_size=6, unique=True), seeds=st.integers(1, 12))
def test_smaller_shares_get_no_fewer_seeds(shares: list[float], seeds: int) -> None:
    numbers = seeds_of(sorted(shares), seeds)
    assert numbers[0] == seeds
    assert numbers == sorted(numbers, reverse=True)
    assert min(numbers) >= 1


def test_every_share_once_before_further_seeds(file: Path) -> None:
    planned = parts(config_of(file), 1000, (100, 10, 50, 25), 3)
    assert [(part.share, part.seed) for part in planned] == [
        *((10, 42), (25, 42), (50, 42), (100, 42)),
        *((10, 43), (25, 43), (10, 44)),
    ]


def test_few_rows_take_the_least_steps_and_the_full_run_its_own(file: Path) -> None:
    config = config_of(file, "training.num_train_epochs=2", "training.samples_per_step=16")
    steps = {part.share: (part.steps, part.lengthened) for part in parts(config, 1600, SHARES, 1)}
    assert steps == {10: (LEAST_STEPS, True), 25: (LEAST_STEPS, True), 50: (LEAST_STEPS, False), 100: (200, False)}
    short = parts(config, 160, SHARES, 1)
    assert {part.steps for part in short} == {20}
    assert short[0].config.training.max_steps == 20
    assert short[0].config.evaluation.steps == 10
    assert short[-1].config.training == config.training.model_copy(update={"keep_checkpoints": 1})


@pytest.mark.parametrize(
    ("shares", "rows", "said"),
    [
        ((100,), 100, "100 alone is one point, which is no curve"),
        ((10, 120), 100, "120 is no share"),
        ((1, 100), 100, "1 % of 100 training rows are 1"),
        ((50, 50.1), 100, "two of them are the same number"),
    ],
)
def test_shares_without_a_curve_are_refused(file: Path, shares: tuple, rows: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parts(config_of(file), rows, shares, 1)


def test_shares_as_text() -> None:
    assert parse_shares("10, 25%,100") == (10, 25, 100)
    with pytest.raises(ConfigError, match="wanted per cent"):
        parse_shares("ten")
