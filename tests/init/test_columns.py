"""What names say, what columns hold, and what nvidia-smi tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from weitiao.cost.at_hand import Card, card
from weitiao.init.labels import Labels, labels_in
from weitiao.init.names import says
from weitiao.init.table import Column, headless


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(
            ("text", "text"),
            ("review_text", "text"),
            ("reviewText", "text"),
            ("评论内容", "text"),
            ("Sentence", "text"),
        ),
        *(("情感标签", "label"), ("product_category", "label"), ("一级分类", "label"), ("Label", "label")),
        *(("file_name", "image"), ("商品图片", "image"), ("用户问题", "question"), ("参考答案", "answer")),
    ],
)
def test_a_name_says_what_its_last_word_says(name: str, role: str) -> None:
    assert says(name, role)


@pytest.mark.parametrize(
    ("name", "role"), [("text_id", "text"), ("labelled_by", "label"), ("", "text"), ("内容编号", "text")]
)
def test_other_words_in_a_name_say_nothing(name: str, role: str) -> None:
    assert not says(name, role)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["好", "坏", None], "text"),
        (["1", "2.5", "-3e4"], "number"),
        (["2024-01-02", "2024年1月2日"], "number"),
        ([1, 2.5], "number"),
        ([True, False], "yes/no"),
        ([[], ["a"]], "list"),
        ([{"a": 1}], "object"),
        ([None, "", " "], "empty"),
        ([1, "好", [2]], "mixed"),
    ],
)
def test_kinds(values: list[Any], kind: str) -> None:
    assert Column("a", values).kind == kind


@pytest.mark.parametrize("values", [["a1-b2", "c3-d4"], ["https://a.cn/1", "https://a.cn/2"], ["1", "2"]])
def test_codes_and_numbers_are_no_prose(values: list[str]) -> None:
    assert not Column("a", values).is_prose


def labels(values: list[Any], trust: str = "named") -> Any:
    return labels_in(Column("a", values), trust)


@pytest.mark.parametrize(
    ("values", "separator", "names"),
    [
        (["a", "b", "a;b", "b;a"] * 3, ";", {"a", "b"}),
        (["a|b", "b|c", "a|c", "a|b|c", "b|a", "c|a", "c|b"] * 3, "|", {"a", "b", "c"}),
        (["a,b", "c,d"] * 5, None, {"a,b", "c,d"}),
        (["a; b", "a", "b", ""] * 3, ";", {"a", "b"}),
        ([1, 2, 1, 2], None, {"1", "2"}),
    ],
)
def test_labels_of_a_column(values: list[Any], separator: str | None, names: set[str]) -> None:
    found = labels(values)
    assert isinstance(found, Labels)
    assert (set(found.counts), found.separator, found.many) == (names, separator, separator is not None)


@pytest.mark.parametrize(
    ("values", "trust", "why"),
    [
        ([1.5, 2.5] * 9, "named", "not whole"),
        ([True, False] * 9, "asked", "cells are yes/no"),
        (["a"] * 9, "asked", "single value"),
        (list("abcdef"), "asked", "6 values in 6 rows"),
        (["a", "b", "c"] * 3, "neither", "labels come more often"),
        (["x" * 50, "y"] * 9, "named", "labels are short"),
        (["a" + str(at % 60) for at in range(600)], "neither", "a name that does not say"),
        ([str(at % 30) for at in range(300)], "neither", "a name that does not say"),
        ([[1.5]] * 9, "named", "other things than words"),
    ],
)
def test_what_holds_no_labels_says_why(values: list[Any], trust: str, why: str) -> None:
    assert why in labels(values, trust)


def test_a_table_without_a_header_is_noticed() -> None:
    assert headless({"好评": Column("好评", ["好评", "差评"] * 5)}) == "好评"
    assert headless({"1": Column("1", [0, 1] * 5)}) is None
    assert headless({"label": Column("label", ["好评", "差评"] * 5)}) is None


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("NVIDIA A, 24576\nNVIDIA B, 81920\n", Card("NVIDIA B", 80)),
        ("NVIDIA GB10, [N/A]\n", None),
        ("", None),
    ],
)
def test_the_card_is_the_one_with_most_memory(
    answer: str, found: Card | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\n", "utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert card() == found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert card() is None


def test_no_tool_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert card() is None
