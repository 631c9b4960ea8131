"""A training behind a check: what is refused, what is told, and when nothing is looked at."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import weitiao
from runs import run_config
from tiny import small_classification, write_rows
from weitiao.check import first
from weitiao.check.first import refuse, train
from weitiao.errors import DataError
from weitiao.tracking.screen import Screen

SHORT = ("training.max_steps=1", "training.save_steps=1")


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    path = small_classification(tmp_path / "clean.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(file=io.StringIO(), width=1000))


def told(screen: Screen) -> str:
    return str(screen.console.file.getvalue())  # type: ignore[attr-defined]


def config(tmp_path: Path, model: Path, rows: Any, *overrides: str) -> Any:
    write_rows(tmp_path / "classes.jsonl", rows)
    return run_config(tmp_path, model, tmp_path / "classes.jsonl", f"model.cache_dir={tmp_path / 'cache'}", *overrides)


def test_it_is_what_the_package_offers() -> None:
    assert weitiao.train is train


def test_all_errors_are_counted_and_nothing_is_written(tmp_path: Path, qwen2_folder: Path, rows: Any) -> None:
    bad = [*rows[:4], {"text": "", "label": "好评"}, *rows[4:], {"text": "无标签"}]
    with pytest.raises(DataError) as error:
        train(config(tmp_path, qwen2_folder, bad))
    assert str(error.value).startswith(f"{tmp_path / 'classes.jsonl'}:5: the text is empty")
    assert str(error.value).endswith("(and 1 more: `weitiao check` lists what training refuses)")
    assert not (tmp_path / "run").exists()


def test_what_training_alone_would_not_notice(tmp_path: Path, qwen2_folder: Path, rows: Any, screen: Screen) -> None:
    """Two names that are the same tokens: é in one character and in two."""
    both = [{**row, "label": ("caf\u00e9", "cafe\u0301")[at % 2]} for at, row in enumerate(rows)]
    with pytest.raises(DataError, match=r"same tokens for this model: .*; rename one of them"):
        train(config(tmp_path, qwen2_folder, both), screen=screen)


def test_warnings_have_a_line_and_training_goes_on(
    tmp_path: Path, qwen2_folder: Path, rows: Any, screen: Screen
) -> None:
    odd = [*rows, {"text": "一条不同的评论，写得很长很长", "label": "好 评"}]
    metrics = train(config(tmp_path, qwen2_folder, odd, *SHORT), screen=screen)
    assert metrics["task"] == "classification"
    assert "! label-variants: 1 label in several spellings" in told(screen)
    assert "! rare-label: 1 of 3 labels" in told(screen)


def test_a_finished_run_and_who_says_so_are_left_alone(
    tmp_path: Path, qwen2_folder: Path, rows: Any, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, qwen2_folder, rows, *SHORT)
    train(settings, screen=screen)

    def looked(*_: Any) -> Any:
        raise AssertionError("looked at the rows")

    monkeypatch.setattr(first, "check", looked)
    train(settings, screen=screen)
    train(config(tmp_path, qwen2_folder, rows, *SHORT, "training.check_first=false"), screen=screen)
    with pytest.raises(AssertionError):
        train(settings, overwrite=True, screen=screen)


def test_a_finding_without_a_place(screen: Screen) -> None:
    empty = {"name": "empty-split", "level": "error", "what": "no test rows remain of x.jsonl", "do": "add rows"}
    with pytest.raises(DataError, match=r"^no test rows remain of x\.jsonl; add rows$"):
        refuse([{**empty, "count": 1, "examples": []}], screen)
