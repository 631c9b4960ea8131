"""Runs on the same rows: matching, differences, and p against counting every possibility."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from report.made import caption_rows, classification_rows, made_run, ner_rows
from report.pages import checked
from weitiao.errors import ConfigError, DataError
from weitiao.metrics.classification import f1
from weitiao.report.compare import compare, config_differences
from weitiao.report.comparison_page import MOST_ROWS, names, page, verdict, write_comparison
from weitiao.report.run import read_run
from weitiao.report.significance import mcnemar, randomization
from weitiao.tasks.base import Example, Task
from weitiao.types import Prediction


def two(tmp_path: Path, kind: str = "classification", **options: bool) -> list[Path]:
    return [
        made_run(tmp_path / "first", kind, seed=1, **options),
        made_run(tmp_path / "other", kind, seed=2, overrides=["lora.r=32"], **options),
    ]


@given(st.integers(0, 7), st.integers(0, 7))
def test_mcnemar_counts_all_coins(first: int, second: int) -> None:
    rows = first + second
    flips = [sum(coins) for coins in itertools.product((0, 1), repeat=rows)]
    as_uneven = sum(abs(2 * heads - rows) >= abs(first - second) for heads in flips)
    assert mcnemar(first, second) == pytest.approx(as_uneven / 2**rows)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_randomization_counts_all_exchanges(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 4, (2, rows, 3))
    found = abs(f1(first.sum(0)) - f1(second.sum(0)))
    as_large = 0
    for exchange in itertools.product((False, True), repeat=rows):
        swap = np.array(exchange)[:, None]
        gap = f1(np.where(swap, second, first).sum(0)) - f1(np.where(swap, first, second).sum(0))
        as_large += abs(gap) >= found - 1e-12
    # 10,000 shuffles: a standard error of at most 0.005.
    assert randomization(first, second, f1, seed=0) == pytest.approx(as_large / 2**rows, abs=0.025)


@pytest.mark.parametrize(
    ("kind", "options"), [("classification", {}), ("classification", {"multi_label": True}), ("ner", {})]
)
def test_comparison_is_symmetric(tmp_path: Path, kind: str, options: dict[str, bool]) -> None:
    first, other = map(read_run, two(tmp_path, kind, **options))
    there, back = compare(first, other), compare(other, first)
    assert there.difference == pytest.approx(-back.difference)
    assert there.values == back.values[::-1]
    assert there.difference == pytest.approx(other.own[first.headline] - first.own[first.headline])
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.03)
    assert there.p == pytest.approx(back.p, abs=0.02)
    assert [(b, a) for a, b in there.gained] == back.lost
    assert len(there.gained) - len(there.lost) == sum(r.right for r in other.rows) - sum(r.right for r in first.rows)
    assert there.low <= there.difference <= there.high


def test_a_run_against_itself(tmp_path: Path) -> None:
    run = read_run(made_run(tmp_path / "run", "ner"))
    pair = compare(run, run)
    assert (pair.difference, pair.low, pair.high, pair.p) == (0, 0, 0, 1)
    assert (len(pair.rows), pair.gained, pair.lost, verdict(pair)) == (60, [], [], "perhaps_equal")


def test_a_surely_better_run(tmp_path: Path) -> None:
    rows = classification_rows(200)
    wrong = made_run(
        tmp_path / "wrong", rows=rows, answer=lambda t, e, d: Prediction(d.choice(e.options), probability=0.5)
    )
    right = made_run(tmp_path / "right", rows=rows, answer=lambda t, e, d: Prediction(e.answer, probability=0.9))
    pair = compare(read_run(wrong), read_run(right))
    assert verdict(pair) == "surely_better"
    assert verdict(compare(read_run(right), read_run(wrong))) == "surely_worse"
    assert pair.p < 1e-6


def test_rows_are_matched_by_their_fields(tmp_path: Path) -> None:
    rows = classification_rows(30)
    shuffled = [*rows[10:], *rows[12:14], {"text": "另外一条", "label": "好评"}]
    random.Random(0).shuffle(shuffled)
    first, other = read_run(made_run(tmp_path / "a", rows=rows)), read_run(made_run(tmp_path / "b", rows=shuffled))
    pair = compare(first, other)
    assert len(pair.rows) == 20
    assert pair.unmatched == (10, 3)
    assert all(a.example.text == b.example.text for a, b in pair.rows)
    text = checked(page([first, other], [pair], "en")).text
    assert "20 rows were answered by both. 10 rows only by a, 3 only by b" in text


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    runs = {
        "text": made_run(tmp_path / "text"),
        "many": made_run(tmp_path / "many", multi_label=True),
        "ner": made_run(tmp_path / "ner", "ner"),
        "apart": made_run(tmp_path / "apart", rows=[{"text": "别的", "label": "好评"}]),
        "unfinished": made_run(tmp_path / "unfinished"),
    }
    (runs["unfinished"] / "metrics.json").unlink()
    output = tmp_path / "comparison.html"
    for name, error, words in (
        ("many", ConfigError, "judged by micro_f1"),
        ("ner", ConfigError, "a run of ner"),
        ("apart", DataError, "no common row"),
        ("unfinished", ConfigError, "no measured rows"),
    ):
        with pytest.raises(error, match=words):
            write_comparison([runs["text"], runs[name]], output)
    assert not output.exists()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["classification", "ner"])
def test_page_of_three_runs(tmp_path: Path, kind: str, language: str) -> None:
    rows = ner_rows(40) if kind == "ner" else classification_rows(40)
    rows[0]["text"] = rows[0]["text"] + "<script>x</script>"
    folders = [made_run(tmp_path / f"{i}" / "run", kind, rows, seed=i) for i in range(3)]
    runs, pairs = write_comparison(folders, tmp_path / "c.html", language=language)
    text = checked((tmp_path / "c.html").read_text("utf-8")).text
    assert names(runs) == ["0/run", "1/run", "2/run"]
    assert text.count(f"p = {pairs[0].p:.3f}") >= 1
    for pair in pairs:
        assert f"{len(pair.rows)}" in text
        assert f"{abs(pair.difference):.3f}" in text


def test_page_of_free_text(tmp_path: Path) -> None:
    """The other run answers every third row with its reference, and leaves out every other answer."""
    rows = caption_rows(30)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")

    def better(task: Task, example: Example, draw: random.Random) -> Prediction:
        return Prediction(example.answer if example.row.line % 3 == 0 else "dog" if example.row.line % 3 else None)

    told = [f"data.train={tmp_path}/rows.jsonl"]
    folders = [
        made_run(tmp_path / "first", "generation", rows, overrides=told, metrics=["rouge_l"]),
        made_run(tmp_path / "other", "generation", rows, overrides=told, metrics=["rouge_l"], answer=better),
    ]
    _, (pair,) = write_comparison(folders, tmp_path / "c.html", language="en")
    html = (tmp_path / "c.html").read_text("utf-8")
    text = checked(html).text
    assert len(pair.gained) + len(pair.lost) == sum(gain != 0 for gain in pair.gains)
    assert {row.example.row.line % 3 for row, _ in pair.gained} == {0}
    assert sum(pair.gains) / len(rows) == pytest.approx(pair.difference)
    assert f"other scores higher than first: {len(pair.gained)} rows" in text
    assert f"first scores higher than other: {len(pair.lost)} rows" in text
    assert html.count("<img") == min(len(pair.gained), MOST_ROWS) + min(len(pair.lost), MOST_ROWS)
    assert "first right" not in text
    assert str(pair.lost[0][0].answer) in text
    assert "✗" not in text


def test_only_differing_keys_are_told(tmp_path: Path) -> None:
    assert config_differences([read_run(folder) for folder in two(tmp_path)]) == {"lora.r": [8, 32]}
