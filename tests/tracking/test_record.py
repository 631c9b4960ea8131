"""What trackers get of a run, and what is refused before it starts."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from runs import SILENT, adapter, lines, run_config, same_bits, trained
from tracking.reading import captured
from weitiao.config import load_config
from weitiao.errors import CheckpointError, ConfigError
from weitiao.tracking.jsonl import JsonlLog
from weitiao.tracking.record import resend
from weitiao.tracking.trackers import curves, prediction_rows
from weitiao.training.train import train


def test_names_of_curves() -> None:
    line = {"step": 10, "time": 1.5, "epoch": 0.5, "loss": 0.7, "learning_rate": 1e-4, "grad_norm": None}
    assert curves(line) == {"train/epoch": 0.5, "train/loss": 0.7, "train/learning_rate": 1e-4}
    assert curves({"step": 10, "time": 1.5, "evaluation": {"accuracy": 0.8}, "best": True}) == {"eval/accuracy": 0.8}
    assert curves({"step": 0, "time": 1.5, "started": {"cores": 2}, "data": {"train": {"rows": 3}}}) == {}
    assert curves({"step": 0, "time": 1.5, "loss": math.nan}) == {}


def test_texts_of_predictions(tmp_path: Path) -> None:
    entity = {"start": 0, "end": 2, "type": "地点", "text": "南京"}
    rows = [
        {"text": "好", "prediction": "好评", "probability": 0.9, "reference": "好评"},
        {"text": "差", "prediction": "好评", "probability": 0.6, "reference": "差评"},
        {"text": "无", "prediction": "好评", "probability": 0.6},
        {"text": "南京", "prediction": [entity], "probability": 0.6, "reference": []},
    ]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    texts = [(row.content, row.caption) for row in prediction_rows(file, str(tmp_path), {})]
    assert [json.loads(text) for text, _ in texts] == rows
    assert [caption for _, caption in texts] == [
        "好评",
        "好评 (reference: 差评)",
        "好评",
        f"{json.dumps([entity], ensure_ascii=False)} (reference: [])",
    ]


def test_no_tracker_by_default(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file)
    assert config.tracking.trackers == []
    assert not (trained(config) / "tracking").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_refused_before_training(
    name: str, qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of the library's name in the working directory, such as W&B makes, is no library."""
    monkeypatch.setattr("sys.path", [str(tmp_path / "site")])
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "site" / name).mkdir(parents=True)
    config = run_config(tmp_path, qwen2_folder, classification_file, f"tracking.trackers=[{name}]")
    with pytest.raises(ConfigError, match=rf"tracking\.trackers: {name} is not installed; pip install {name}"):
        trained(config)
    assert not config.folder.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tracking.trackers=[aim]", "key `tracking.trackers.0` = \"aim\": .*'swanlab', 'tensorboard'"),
        ("tracking.trackers=swanlab", 'key `tracking.trackers` = "swanlab"'),
        ("tracking.project=a b", 'key `tracking.project` = "a b"'),
        ("tracking.predictions=109", "key `tracking.predictions` = 109: .*less than or equal to 108"),
        ("tracking.timeout=0", "key `tracking.timeout` = 0"),
    ],
)
def test_a_wrong_value_names_its_key(override: str, message: str) -> None:
    values = {"task": {"name": "ner"}, "model": {"name": "m"}, "data": {"train": "t.jsonl"}}
    with pytest.raises(ConfigError, match=message):
        load_config(values, [override])


def test_other_tracking_is_no_other_run(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    """A run goes on with other trackers, a finished one is not trained again for them, and its bits are the same."""
    first = run_config(tmp_path / "a", qwen2_folder, classification_file, "data.test=0.2")
    metrics = train(first, screen=SILENT)
    (first.folder / "metrics.json").unlink()
    second = run_config(
        tmp_path / "a", qwen2_folder, classification_file, "data.test=0.2", "tracking.trackers=[tensorboard]"
    )
    before = adapter(first.folder)
    assert train(second, screen=SILENT) == metrics
    assert same_bits(adapter(second.folder), before)
    assert load_config(second.folder / "config.yaml") == second
    assert (second.folder / "tracking" / "tensorboard").is_dir()
    screen, told = captured()
    assert train(first, screen=screen) == metrics
    assert "this run is finished" in told()[-1]
    train(first, screen=SILENT, overwrite=True)
    assert not (first.folder / "tracking").exists()


def test_nothing_is_sent_where_nothing_can_be(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    run = trained(run_config(tmp_path, qwen2_folder, classification_file))
    with pytest.raises(ConfigError, match=r"tracking\.trackers=\[swanlab\]"):
        resend(run, screen=SILENT)
    with pytest.raises(CheckpointError, match="no run here"):
        resend(tmp_path, screen=SILENT)


def test_the_log_replaces_what_is_no_number(tmp_path: Path) -> None:
    log = JsonlLog(tmp_path / "log.jsonl")
    assert log.write(1, loss=math.nan, evaluation={"f1": math.inf})["loss"] is None
    log.close()
    (line,) = lines(tmp_path / "log.jsonl")
    assert (line["loss"], line["evaluation"]) == (None, {"f1": None})
