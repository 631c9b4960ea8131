"""The walk: rows in the splits of training, lengths as the encoder has them, results kept and computed anew."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from check.looked import checked, config_of, named
from texts import texts
from tiny import small_classification, small_ner, write_rows
from weitiao.check import walk
from weitiao.check.checks.tokens import Tokens
from weitiao.check.meetings import Meetings
from weitiao.check.page import page
from weitiao.check.reading import task_of
from weitiao.check.screen import show
from weitiao.check.walk import check, setting_of, walked
from weitiao.data.splits import NAMES, load
from weitiao.model.base import open_base
from weitiao.tasks.base import task_options


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    path = small_classification(tmp_path / "clean.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def setting(config: Any) -> Any:
    return setting_of(config, task_of(config.data, task_options(config.task)), open_base(config.model))


SPLITS = {
    "shares": {"validation": 0.2, "test": 0.1},
    "limits": {"validation": 0.3, "train_rows": 11, "validation_rows": 5},
    "a seed of their own": {"validation": 0.2, "test": 0.3, "train_rows": 10, "test_rows": 5, "split_seed": 7},
    "a field": {"split_field": "part"},
    "files": {"validation": "other.jsonl", "test": "test.jsonl", "train_rows": 20},
}


@pytest.mark.parametrize("case", SPLITS)
def test_splits_are_those_of_training(case: str, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows += [dict(row) for row in rows[:7]]
    write_rows(tmp_path / "other.jsonl", rows[5:15])
    write_rows(tmp_path / "test.jsonl", [*rows[12:20], {"text": "新的", "label": "好评"}])
    parts = ("train", "dev", "train", "test", "train")
    config = config_of(tmp_path, [{**row, "part": parts[at % 5]} for at, row in enumerate(rows)], data=SPLITS[case])
    _, drawn = load(config.data, task_options(config.task), config.run.seed)
    table = walked(setting(config), [])
    for name in NAMES:
        assert [table.place(at) for at in table.of(name)] == [example.row.place for example in getattr(drawn, name)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(texts(), min_size=1, max_size=6), most=st.sampled_from([8, 12, 1024]))
def test_lengths_are_those_of_the_encoder(some: list[str], most: int, tmp_path: Path) -> None:
    told = [{"text": text, "label": ("a", "b")[at % 2]} for at, text in enumerate(some)]
    config = config_of(tmp_path, told, task={"language": "en", "labels": ["a", "b"]}, data={"max_length": most})
    with_rows = setting(config)
    tokens = Tokens(with_rows)
    walked(with_rows, [tokens])
    _, drawn = load(config.data, task_options(config.task), 42)
    encoded = [with_rows.encoder.training(example) for example in drawn.train]
    assert list(tokens._lengths) == [len(e.ids) for e in encoded]
    assert list(tokens._removed) == [e.removed for e in encoded]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "glm4"])
def test_all_chat_formats(family: str, tmp_path: Path, rows: Any) -> None:
    from check.looked import tokenizer_folder

    tokenizer_folder(tmp_path / "model", family)
    types = {"glm4": "glm"}
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": types.get(family, family)}), "utf-8")
    told = checked(tmp_path, rows)
    assert told["findings"] == []
    assert told["read_back"] == 48


def test_an_unchanged_check_is_remembered(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, rows)
    first = check(config)
    counted = []
    real = walk.walked
    monkeypatch.setattr(walk, "walked", lambda *given: counted.append(1) or real(*given))
    assert check(config) == first
    assert not counted
    write_rows(tmp_path / "train.jsonl", rows[:-1])
    assert check(config)["rows"]["train"] == 47
    check(config_of(tmp_path, rows[:-1], data={"max_length": 77}))
    assert len(counted) == 2


def test_a_damaged_memory_is_no_harm(tmp_path: Path, rows: Any) -> None:
    first = checked(tmp_path, rows)
    (kept,) = (tmp_path / "cache" / "check").glob("*.json")
    kept.write_text("[1", "utf-8")
    assert checked(tmp_path, rows)["rows"] == first["rows"]


def test_an_order_that_is_the_same_twice(tmp_path: Path, rows: Any) -> None:
    rows += [rows[0], rows[1]]
    first = check(config_of(tmp_path, rows, model={"cache_dir": str(tmp_path / "one")}))
    second = check(config_of(tmp_path, rows, model={"cache_dir": str(tmp_path / "two")}))
    assert first["findings"] == second["findings"]


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_ner(tmp_path / "clean.jsonl", 40)
    told = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    told += told[:9]
    whole = checked(tmp_path, told, task={"name": "ner"}, model={"cache_dir": str(tmp_path / "one")})
    monkeypatch.setattr(walk, "BATCH", 7)
    parts = checked(tmp_path, told, task={"name": "ner"}, model={"cache_dir": str(tmp_path / "two")})
    assert {**whole, "seconds": 0} == {**parts, "seconds": 0}
    assert named(whole, "duplicates")["count"] == 9


def test_the_page_needs_nothing_and_escapes_all(tmp_path: Path, rows: Any) -> None:
    bad = {"text": "<script>alert(1)</script>", "label": "<b>x</b>"}
    told = checked(tmp_path, [*rows, bad, bad])
    written = page(told, "<i>.yaml")
    assert "<script>alert" not in written
    assert "<b>x" not in written
    assert "<i>.yaml" not in written
    assert "&lt;script&gt;alert(1)" in written
    assert "rare-label" in written
    assert "<svg" in written
    assert "http" not in written.replace("http-equiv", "")
    assert 'id="cost"' not in written


def test_every_text_is_in_one_bar_of_the_histogram(tmp_path: Path, rows: Any) -> None:
    """Also a longest one that is beyond the usual ones, and within their last bar."""
    for number, longest in enumerate(range(60, 110, 3)):
        many = [{"text": "好" * (1 + at % 60) + f"{at}", "label": "好评"} for at in range(240)]
        many += [{"text": "差" * longest, "label": "差评"}]
        folder = tmp_path / str(number)
        folder.mkdir()
        texts = checked(folder, many)["tokens"]["texts"]
        assert sum(texts["histogram"]["counts"]) + texts["longer"] == len(many)
        assert texts["longer"] == (texts["max"] >= texts["histogram"]["edges"][-1])


def test_an_empty_histogram_is_left_out(tmp_path: Path, rows: Any) -> None:
    told = checked(tmp_path, [{**row, "label": "别的"} for row in rows], task={"labels": ["好评", "差评"]})
    assert told["tokens"] is None
    assert "<svg" not in page(told, "x")
    assert np.isfinite(told["seconds"])


def test_above_the_limit_a_sample_is_looked_at_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As above a million rows."""
    texts_of = [f"{at:04d} 这家酒店的早餐品种很多，味道也不错，房间干净而且安静。{at:04d}" for at in range(60)]
    config = config_of(
        tmp_path, [{"text": text, "label": ("好评", "差评")[at % 2]} for at, text in enumerate(texts_of)]
    )
    whole = check(config)
    assert whole["notes"] == []
    monkeypatch.setattr("weitiao.check.checks.near.Meetings", lambda shingle: Meetings(shingle, most=20))
    monkeypatch.setattr("weitiao.check.remembered._program", lambda: "another")
    some = check(config)
    (note,) = some["notes"]
    assert (share := re.fullmatch(r"nearly equal texts were looked for in a sample: ([\d.]+)% of all texts, .*", note))
    assert 0 < float(share[1]) <= 50
    assert named(some, "near-conflicts")["count"] < named(whole, "near-conflicts")["count"]
    show(some)
    assert "note: nearly equal texts were looked for in a sample" in capsys.readouterr().out
    assert "looked for in a sample" in page(some, "config.yaml")
