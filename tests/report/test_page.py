"""A run's report: well formed, without anything that it would have to load, and true to the run folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from report.made import THRESHOLDS, caption_rows, classification_rows, made_run, ner_rows
from report.pages import checked
from weitiao.errors import WeitiaoError
from weitiao.report.mistakes import MOST_BEST, MOST_WORST
from weitiao.report.page import page, write_report
from weitiao.report.run import read_run
from weitiao.report.words import Words, interval, number
from weitiao.types import Prediction

EVIL = "<script>alert(1)</script> & \"x\" 'y' </p><img src=http://x/y>"


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["classification", "multi_label", "ner"])
def test_page_is_well_formed_and_loads_nothing(runs: dict[str, Path], kind: str, language: str) -> None:
    run = read_run(runs[kind])
    html = page(run, language)
    told = checked(html)
    w = Words(language)
    assert f'<html lang="{w.tag}">' in html
    assert html.count("<h1>") == 1
    for key in ("figures", "errors", "certainty", "training", "data", "setting"):
        assert f'id="{key}"' in html
        assert w[key] in told.text
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        assert re.match(r'<svg id="\w+" viewBox="[\d. ]+" role="img" aria-label="[^"]+"><title>', svg)


@pytest.mark.parametrize("kind", ["classification", "multi_label", "ner"])
def test_figures_are_those_of_metrics_json(runs: dict[str, Path], kind: str) -> None:
    metrics = json.loads((runs[kind] / "metrics.json").read_text("utf-8"))
    run = read_run(runs[kind])
    text = checked(page(run, "en")).text
    own, headline = metrics["systems"]["finetuned"], metrics["headline"]
    assert f"reaches {number(own[headline])} {interval(own, headline)} on {metrics['rows']} test rows" in text
    assert interval(metrics["systems"]["untuned"], headline) in text
    details = own.get("per_class") or own["per_type"]
    for name, row in details.items():
        cells = " ".join(number(row[key]) for key in ("precision", "recall", "f1", "support"))
        if kind == "multi_label":
            cells += f" {number(THRESHOLDS.of(name))}"
        assert f"{name} {cells}" in text
    for reference, counts in zip(*(own.get("confusion", {}).get(k, []) for k in ("labels", "counts")), strict=True):
        assert f"{reference} {' '.join(str(n) if n else '·' for n in counts)}" in text
    assert ("given from" in text) == (kind == "multi_label")
    if kind == "multi_label":
        assert number(own["micro_f1_at_half"]) in text
    assert number(own["ece"]) in text
    assert number(own["ece_uncalibrated"]) in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_free_text_has_answers_in_place_of_errors(runs: dict[str, Path], language: str) -> None:
    run = read_run(runs["generation"])
    html, w = page(run, language), Words(language)
    told = checked(html)
    for key in ("figures", "answers", "training", "data", "setting"):
        assert f'id="{key}"' in html
        assert w[key] in told.text
    assert run.rows[0].probability is not None
    for key in ("errors", "certainty", "classes", "types"):
        assert f'id="{key}"' not in html
        assert f'"#{key}"' not in html
    for key in ("confident", "unsure", "names_counted", "unnamed", "ece_is", "confusion"):
        assert w[key].split("{")[0] not in told.text
    for name in ("cider", "bleu_1", "bleu_4", "rouge_l"):
        assert f"{number(run.own[name])} {interval(run.own, name)}" in told.text
        assert w.metric(name) != name


def test_free_text_shows_the_lowest_and_the_highest(runs: dict[str, Path]) -> None:
    run = read_run(runs["generation"])
    html = page(run, "en")
    lowest, highest = html.split(f"<h3>{Words('en')['highest']}</h3>")
    shown = [
        [
            (float(value), int(line))
            for value, line in re.findall(r"CIDEr <b>([\d.]+)</b>.*?line (\d+) of", part, re.DOTALL)
        ]
        for part in (lowest, highest)
    ]
    assert [len(part) for part in shown] == [MOST_WORST, MOST_BEST]
    assert shown[0] == sorted(shown[0], key=lambda row: row[0])
    assert shown[1] == sorted(shown[1], key=lambda row: -row[0])
    assert shown[0][-1][0] < shown[1][-1][0]
    assert len({line for part in shown for _, line in part}) == MOST_WORST + MOST_BEST
    best = run.rows[shown[1][0][1] - 1]
    assert best.answer in highest
    for reference in best.example.references:  # type: ignore[attr-defined]
        assert reference in highest


def test_free_text_of_few_rows_shows_each_once(tmp_path: Path) -> None:
    html = page(read_run(made_run(tmp_path / "run", "generation", caption_rows(3))), "en")
    assert sorted(re.findall(r"line (\d) of", html)) == ["1", "2", "3"]


def test_bleu_has_no_value_of_a_row(tmp_path: Path) -> None:
    run = read_run(made_run(tmp_path / "run", "generation", caption_rows(60), metrics=["bleu_4"]))
    html = page(run, "en")
    assert [int(line) for line in re.findall(r"line (\d+) of", html)] == list(range(1, MOST_WORST + 1))
    assert "The first rows" in html
    assert "The highest" not in html


def test_free_text_of_users_is_escaped_and_bounded(tmp_path: Path) -> None:
    rows = [
        {"image": EVIL, "question": f"{i}{EVIL}{'x' * 5000}", "answer": f"{EVIL} {'word ' * 2000}"} for i in range(50)
    ]
    html = page(read_run(made_run(tmp_path / "run", "generation", rows)))
    assert "alert(1)" in checked(html).text
    assert len(re.findall("<script", html)) == 1
    assert len(html.encode()) < 500_000


def test_empty_answers_of_free_text(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "generation", caption_rows(9), answer=lambda t, e, d: Prediction(None))
    text = checked(page(read_run(run), "en")).text
    assert "100 % of the answers were empty" in text
    assert "no answer" in text
    assert "not valid" not in text


@pytest.mark.parametrize("kind", ["classification", "ner"])
def test_text_of_users_is_escaped(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]]
    if kind == "ner":
        rows = [
            {"text": f"{EVIL}{row['text']}", "entities": [{"text": EVIL, "type": "<b>&</b>"}]} for row in ner_rows(20)
        ]
        run = made_run(tmp_path / "a<b>&", "ner", rows, answer=lambda t, e, d: Prediction((), probability=0.9))
    else:
        rows = [{"text": EVIL, "label": label} for label in ("<b>&</b>", "</td><script>x", "c") for _ in range(9)]
        run = made_run(tmp_path / "a<b>&", rows=rows, model="<i>m</i>")
    html = page(read_run(run))
    told = checked(html)
    assert "alert(1)" in told.text
    assert "<b>&</b>" in told.text
    assert len(re.findall("<script", html)) == 1
    assert "alert" not in "".join(told.scripts)


def test_unfinished_run_gets_what_is_there(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = Path(shutil.copytree(runs["ner"], tmp_path / "run"))
    for name in ("metrics.json", "predictions.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "adapter")
    lines = (run / "log.jsonl").read_text("utf-8").splitlines()
    (run / "log.jsonl").write_text("\n".join(lines[:9]) + '\n{"step": 9, "lo', "utf-8")
    read = read_run(run)
    text = checked(page(read, "en")).text
    assert f"not finished: step {read.log.last_step} of 8" in text
    assert "Training loss" in text
    assert read.language == "zh"
    assert "Errors" not in text


def test_folder_with_a_config_alone(tmp_path: Path, runs: dict[str, Path]) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(runs["ner"] / "config.yaml", tmp_path / "run")
    text = checked(page(read_run(tmp_path / "run"), "en")).text
    assert "no training steps yet" in text
    assert "does not say what the data" in text


def test_old_log_without_start(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = Path(shutil.copytree(runs["classification"], tmp_path / "run"))
    lines = (run / "log.jsonl").read_text("utf-8").splitlines()
    (run / "log.jsonl").write_text("\n".join(line for line in lines if "started" not in line), "utf-8")
    text = checked(page(read_run(run), "en")).text
    assert "does not say where the run was computed" in text
    assert "4.5 min" in text


def test_no_rows_to_measure(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", rows=classification_rows(30))
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    (run / "metrics.json").write_text(json.dumps({**metrics, "rows": 0, "systems": {}, "ceiling": None}), "utf-8")
    (run / "predictions.jsonl").unlink()
    assert "Nothing was measured" in checked(page(read_run(run), "en")).text


def test_rows_without_probability_and_invalid_answers(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", answer=lambda task, example, draw: Prediction(None), language="en")
    text = checked(page(read_run(run))).text
    assert "no valid answer" in text
    assert "100 % of the answers were not valid" in text
    assert "Can its probabilities be believed?" not in text


def test_language_is_the_tasks_unless_named(tmp_path: Path, runs: dict[str, Path]) -> None:
    run = Path(shutil.copytree(runs["ner"], tmp_path / "run"))
    path = write_report(run)
    assert path == run / "report.html"
    assert 'lang="zh-Hans"' in path.read_text("utf-8")
    write_report(run, language="en")
    assert 'lang="en"' in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{}"),
        ("metrics.json", "[1]"),
        ("metrics.json", '{"headline": "accuracy", "systems": {"finetuned": {}}, "rows": 3, "split": "test"}'),
        ("predictions.jsonl", '{"text": "a"}\n'),
        ("predictions.jsonl", "{"),
        ("predictions.jsonl", '{"text": "a", "label": "b", "prediction": "b", "probability": 1, "reference": "c"}'),
        ("adapter/task.json", "{"),
        ("data.json", "{"),
        ("config.yaml", "task: 3"),
    ],
)
def test_damaged_folder_is_one_line(tmp_path: Path, runs: dict[str, Path], name: str, content: str) -> None:
    run = Path(shutil.copytree(runs["classification"], tmp_path / "run"))
    (run / name).write_text(content, "utf-8")
    with pytest.raises(WeitiaoError, match=re.escape(name)):
        write_report(run)
    assert not (run / "report.html").exists()


def test_size_and_rows_are_bounded(tmp_path: Path) -> None:
    rows = [{"text": f"{i} " + "长" * 5000, "label": f"类{i % 300}"} for i in range(3000)]
    html = page(read_run(made_run(tmp_path / "run", rows=rows)))
    assert len(html.encode()) < 1_000_000
    assert html.count('<li>\n<div class="answer">') <= 40
