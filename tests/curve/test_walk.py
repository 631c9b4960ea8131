"""`weitiao curve` from config to page, with a tiny model; interrupted, short of time, and asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from report.pages import Page
from runs import SILENT, lines, run_config
from tiny import write_rows
from weitiao.config import RunConfig
from weitiao.curve import runs as module
from weitiao.curve.plan import Part, parts
from weitiao.curve.runs import carry_out
from weitiao.curve.table import curve_table
from weitiao.curve.walk import curve
from weitiao.errors import ConfigError
from weitiao.report.curve_page import conclusion, page
from weitiao.report.words import Words
from weitiao.run_folder import RunFolder
from weitiao.tracking.screen import Screen
from weitiao.training.train import train


def a_config(tmp_path: Path, model: Path, rows: Path) -> RunConfig:
    return run_config(tmp_path, model, rows, "data.test=0.25", "training.max_steps=2", "evaluation.baselines=true")


class Killed(Exception):
    pass


def test_end_to_end_and_what_is_finished_is_kept(
    tmp_path: Path, qwen2_folder: Path, classification_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_config(tmp_path, qwen2_folder, classification_file)
    trained: list[str] = []

    def counting(part: RunConfig, **options: Any) -> Any:
        if not RunFolder(part.folder).finished:
            if len(trained) == 2:
                raise Killed
            trained.append(part.run_name)
        return train(part, **options)

    monkeypatch.setattr(module, "_train", lambda: counting)
    with pytest.raises(Killed):
        curve(config, shares=(25, 50, 100), seeds=2, screen=SILENT)
    assert trained == ["25-percent-seed-42", "50-percent-seed-42"]
    trained.clear()
    found = curve(config, shares=(25, 50), seeds=1, screen=SILENT)
    assert not trained
    assert [point["rows"] for point in found["points"]] == [9, 18]

    folder = tmp_path / "run-curve"
    assert json.loads((folder / "curve.json").read_text("utf-8")) == found
    assert sorted(path.name for path in folder.iterdir()) == [
        *("25-percent-seed-42", "50-percent-seed-42", "curve.html", "curve.json"),
    ]
    metrics = RunFolder(folder / "25-percent-seed-42").read_metrics()["systems"]
    assert found["points"][0]["score"] == pytest.approx(metrics["finetuned"]["accuracy"])
    assert found["points"][0]["systems"]["tfidf"] == metrics["tfidf"]["accuracy"]
    assert "untuned" not in metrics
    for told in [*found["points"], *found["predictions"], *found["line"]]:
        assert 0 <= told["low"] <= told["score"] <= told["high"] <= 1
    assert curve_table(found).row_count == 4
    html = (folder / "curve.html").read_text("utf-8")
    assert "<svg" in html
    assert "://" not in html
    for language in ("en", "zh"):
        assert conclusion(found, Words(language)) in Page(page(found, "run", language)).text


def test_what_the_files_are_like_is_said_once(
    tmp_path: Path, qwen2_folder: Path, classification_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = lines(classification_file)
    write_rows(classification_file, [{**row, "text": row["text"] * 9} for row in [*rows, *rows[:24]]])
    config = run_config(
        *(tmp_path, qwen2_folder, classification_file),
        *("data.test=0.25", "data.max_length=8", "training.max_steps=1"),
    )
    curve(config, shares=(50, 100), seeds=2, screen=Screen())
    said = capsys.readouterr().err
    assert said.count("training 1 of 3") == said.count("training 3 of 3") == 1
    assert said.count("kept with the text and answer of an earlier one") == 1
    assert said.count("train texts are longer than data.max_length") == 1
    assert said.count("test texts are longer than data.max_length") == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_star_is_explained_where_there_is_one(language: str) -> None:
    score = {"score": 0.6, "low": 0.5, "high": 0.7, "seeds": [1], "steps": 9, "systems": {}}
    points = [{"share": at, "rows": 9 * at, "lengthened": at < 50, **score} for at in (10, 50, 100)]
    found = FOUND | {"rises": True, "points": points, "test_rows": 9, "fit": dict.fromkeys("abcd", 0.1)}
    found["predictions"] = [told | {"times": at} for told, at in zip(FOUND["predictions"], (2, 4), strict=True)]
    found["line"] = [{"rows": 90, **score}, {"rows": 900, **score}, {"rows": 3600, **score}]
    explained = Words(language)["curve_steps_note"]
    assert explained in Page(page(found, "run", language)).text
    for point in points:
        point["lengthened"] = False
    text = Page(page(found, "run", language)).text
    assert explained not in text
    assert "*" not in text


def test_without_rows_to_measure_nothing_is_trained(
    tmp_path: Path, qwen2_folder: Path, classification_file: Path
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file)
    with pytest.raises(ConfigError, match="needs rows to measure"):
        curve(config, screen=SILENT)
    assert not (tmp_path / "run-curve").exists()


class Watch:
    """A clock that the trainings move: a second for a step."""

    def __init__(self) -> None:
        self.now = 0.0
        self.trained: list[tuple[float, int]] = []

    def __call__(self) -> float:
        return self.now

    def train(self, config: RunConfig, **_: Any) -> dict[str, Any]:
        share = float(config.run_name.partition("-")[0])
        self.trained.append((share, config.run.seed))
        self.now += self.steps[share]
        return {}


def planned(tmp_path: Path, seeds: int) -> tuple[list[Part], Watch]:
    config = RunConfig.model_validate(
        {
            "run": {"output_dir": str(tmp_path), "name": "x"},
            "task": {"name": "classification"},
            "model": {"name": "none"},
            "data": {"train": "rows.jsonl"},
        }
    )
    found, watch = parts(config, 9600, (10, 25, 50, 100), seeds), Watch()
    watch.steps = {part.share: part.steps for part in found}  # 120, 300, 600, 1200
    return found, watch


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (60, [(10, 42), (25, 42), (50, 42), (100, 42), (10, 43), (25, 43), (10, 44)]),
        (37, [(10, 42), (25, 42), (50, 42), (100, 42)]),
        (24, [(10, 42), (25, 42), (50, 42), (10, 43), (25, 43)]),
    ],
)
def test_minutes_begin_what_ends_within_them(tmp_path: Path, minutes: float, said: list) -> None:
    found, watch = planned(tmp_path, 3)
    done = carry_out(found, SILENT, minutes=minutes, train=watch.train, clock=watch)
    assert watch.trained == said
    assert [(part.share, part.seed) for part in done] == said
    assert watch.now <= 60 * minutes


def test_minutes_for_one_share_are_too_few(tmp_path: Path) -> None:
    found, watch = planned(tmp_path, 3)
    with pytest.raises(ConfigError, match="two shares or more make a curve"):
        carry_out(found, SILENT, minutes=4, train=watch.train, clock=watch)


FOUND = {
    "headline": "accuracy",
    "points": [{"score": 0.71, "rows": 800}],
    "predictions": [
        {"rows": 1600, "score": 0.74, "low": 0.71, "high": 0.77},
        {"rows": 3200, "score": 0.76, "low": 0.72, "high": 0.8},
    ],
}


def test_the_conclusion_is_a_sentence() -> None:
    assert conclusion(FOUND | {"rises": True}, Words("en")) == (
        "Twice the rows (800 → 1,600): accuracy 0.710 → 0.740 [0.710, 0.770]; four times: 0.760 [0.720, 0.800]."
    )
    flat = conclusion(FOUND | {"rises": False}, Words("en"))
    assert flat.startswith("More rows like these are not expected to help")
    assert "(800 → 1,600) would reach 0.770 at most" in flat


def test_wide_intervals_are_not_called_flat() -> None:
    twice, fourfold = FOUND["predictions"]
    wide = FOUND | {"rises": False, "predictions": [twice | {"high": 1.0}, fourfold]}
    assert conclusion(wide, Words("en")).startswith("These points cannot tell whether more rows help")
