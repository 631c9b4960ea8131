"""A whole run: what its folder holds, and what the same call does when the folder is there already."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import weitiao
from runs import SILENT, adapter, lines, lively_model, run_config, same_bits, trained
from tiny import small_classification, write_rows
from weitiao.config import dump_yaml, load_config
from weitiao.errors import ConfigError
from weitiao.run_folder import Thresholds, read_task_file
from weitiao.training.loop import Loop
from weitiao.training.train import _shared, train
from weitiao.types import Encoded

WHOLE = ("data.validation=0.2", "data.test=0.2", "evaluation.baselines=true", "evaluation.untuned=true")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that were computed."""
    seen: list[int] = []
    step = Loop.step
    monkeypatch.setattr(Loop, "step", lambda self, number: seen.append(number) or step(self, number))
    return seen


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_a_classification_run(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, *WHOLE)
    metrics = train(config, screen=SILENT)
    run = config.folder
    assert {path.name for path in run.iterdir()} >= {
        *("config.yaml", "data.json", "log.jsonl", "metrics.json", "predictions.jsonl"),
        *("adapter", "checkpoint-4", "checkpoint-6"),
    }
    assert not list(run.glob(".*"))
    assert load_config(run / "config.yaml") == config
    assert metrics == json.loads((run / "metrics.json").read_text("utf-8"))
    systems = metrics.pop("systems")
    assert metrics == {
        "schema_version": 1,
        "task": "classification",
        "split": "test",
        "rows": 10,
        "headline": "accuracy",
        "ceiling": 1.0,
    }
    assert list(systems) == ["finetuned", "untuned", "majority", "tfidf"]
    for values in systems.values():
        assert 0 <= values["accuracy_low"] <= values["accuracy"] <= values["accuracy_high"] <= 1
        assert values["invalid"] == 0.0

    predictions = lines(run / "predictions.jsonl")
    assert len(predictions) == 10
    known = {(row["text"], row["label"]) for row in lines(classification_file)}
    for row in predictions:
        assert list(row) == ["text", "label", "prediction", "probability", "reference"]
        assert (row["text"], row["reference"]) in known
        assert row["prediction"] in ("好评", "差评")
        assert 0.5 <= row["probability"] <= 1
    right = sum(row["prediction"] == row["reference"] for row in predictions)
    assert systems["finetuned"]["accuracy"] == right / 10

    told = read_task_file(run / "adapter")
    assert told.task["labels"] == ["好评", "差评"]
    assert told.base.name == str(qwen2_folder)
    facts = json.loads((run / "data.json").read_text("utf-8"))
    assert facts["rows"] == {"train": 28, "validation": 10, "test": 10}
    assert list(facts["files"]) == [str(classification_file)]


def test_the_folder_of_an_ner_run(qwen2_folder: Path, ner_file: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, qwen2_folder, ner_file, *WHOLE)
    metrics = train(config, screen=SILENT)
    assert (metrics["task"], metrics["headline"], metrics["rows"]) == ("ner", "f1", 13)
    assert list(metrics["systems"]) == ["finetuned", "untuned", "dictionary"]
    assert metrics["systems"]["dictionary"]["f1"] > 0.9
    assert metrics["systems"]["finetuned"].keys() >= {"f1", "f1_low", "f1_high", "precision", "recall", "invalid"}
    for row in lines(config.folder / "predictions.jsonl"):
        assert list(row) == ["text", "entities", "prediction", "probability", "reference"]
        assert row["reference"] == row["entities"]
        for entity in row["prediction"]:
            assert list(entity) == ["start", "end", "type", "text", "probability"]
            assert 0 <= (row["probability"] or 0) <= entity["probability"] <= 1
            assert entity["start"] < 0 or row["text"][entity["start"] : entity["end"]] == entity["text"]


def test_the_log(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    overrides = ("data.validation=0.25", "training.logging_steps=2", "evaluation.steps=3")
    log = lines(trained(run_config(tmp_path, qwen2_folder, classification_file, *overrides)) / "log.jsonl")
    assert [line["step"] for line in log] == [0, 2, 3, 4, 6, 6, 6, 6]
    assert all(first["time"] <= second["time"] for first, second in pairwise(log))
    figures = [line for line in log if "loss" in line]
    assert [line["epoch"] for line in figures] == pytest.approx([2 / 9, 4 / 9, 6 / 9], abs=1e-4)
    wanted = {"loss", "grad_norm", "learning_rate", "samples_per_second", "tokens_per_second"}
    assert all(wanted <= line.keys() for line in figures)
    assert [line["learning_rate"] for line in figures] == pytest.approx([1e-2 * 5 / 6, 1e-2 * 3 / 6, 1e-2 * 1 / 6])
    measured = [line for line in log if "evaluation" in line]
    assert [line["step"] for line in measured] == [3, 6]
    assert all(0 <= line["evaluation"]["accuracy"] <= 1 for line in measured)
    assert log[-2]["training_seconds"] > 0
    assert log[-1]["finished"]["peak_gib"] > 0
    assert log[0]["started"]["device"] == "cpu"
    assert log[0]["started"]["versions"]["torch"] == version("torch")
    assert {name: split["rows"] for name, split in log[0]["data"].items()} == {"train": 36, "validation": 12, "test": 0}


def test_what_rows_share_is_told() -> None:
    """Of all together, or of groups with long prompts of their own."""
    first, second = ((*range(at, at + 300),) for at in (0, 1000))
    one = [Encoded((*first, 5000 + row, 1), 301) for row in range(20)]
    two = [Encoded((9, *stem, 5000 + row, 1), 302) for row in range(20) for stem in (first, second[:250])]
    assert _shared(one, 8) == "300"
    assert _shared(two, 8) == "251 to 301 with its group, of 2"


def test_a_finished_run_is_not_trained_again(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, steps: list[int]
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, *WHOLE)
    metrics = train(config, screen=SILENT)
    before = content(config.folder)
    assert steps == [0, 1, 2, 3, 4, 5]
    assert train(config, screen=SILENT) == metrics
    assert len(steps) == 6
    assert content(config.folder) == before


def test_overwrite(qwen2_folder: Path, classification_file: Path, tmp_path: Path, steps: list[int]) -> None:
    run = trained(run_config(tmp_path, qwen2_folder, classification_file))
    first = adapter(run)
    (run / "notes.txt").write_text("mine")
    trained(
        run_config(tmp_path, qwen2_folder, classification_file, "run.seed=1", "training.max_steps=3"), overwrite=True
    )
    assert steps == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert not same_bits(adapter(run), first)
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert max(line["step"] for line in lines(run / "log.jsonl")) == 3
    assert (run / "notes.txt").read_text() == "mine"


def test_an_unfinished_run_may_be_overwritten(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, steps: list[int]
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file)
    (trained(config) / "metrics.json").unlink()
    trained(config, overwrite=True)
    assert steps == [0, 1, 2, 3, 4, 5] * 2


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("training.learning_rate=2e-2", "training.learning_rate: 0.01 → 0.02"),
        ("lora.r=8", "lora.r: 4 → 8"),
        ("task.instruction=判断。", 'task.instruction: null → "判断。"'),
        ("run.seed=7", "run.seed: 42 → 7"),
    ],
)
def test_another_config_is_refused(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, override: str, shown: str
) -> None:
    run = trained(run_config(tmp_path, qwen2_folder, classification_file))
    before = content(run)
    with pytest.raises(ConfigError) as error:
        trained(run_config(tmp_path, qwen2_folder, classification_file, override))
    assert shown in str(error.value)
    assert "--overwrite" in str(error.value)
    assert content(run) == before


def test_a_run_that_had_the_earlier_default_is_no_other(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, steps: list[int]
) -> None:
    """Version 0.1 wrote `encoding: utf-8` where the config did not say one."""
    config = run_config(tmp_path, qwen2_folder, classification_file)
    run = trained(config)
    written = (run / "config.yaml").read_text("utf-8")
    assert "  encoding: auto\n" in written
    (run / "config.yaml").write_text(written.replace("  encoding: auto\n", "  encoding: utf-8\n"), "utf-8")
    steps.clear()
    trained(config)
    assert not steps
    with pytest.raises(ConfigError, match=r"data\.encoding: \"utf-8\" → \"utf-8-sig\""):
        trained(run_config(tmp_path, qwen2_folder, classification_file, "data.encoding=utf-8-sig"))


@pytest.mark.parametrize("finished", [True, False])
def test_changed_data_are_refused(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, finished: bool
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file)
    run = trained(config)
    if not finished:
        (run / "metrics.json").unlink()
    before = content(run)
    small_classification(classification_file, rows=44)
    with pytest.raises(ConfigError, match=r"classification\.jsonl"):
        trained(config)
    assert content(run) == before
    small_classification(classification_file)
    trained(config)


def test_a_metric_that_the_task_does_not_have(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, steps: list[int]
) -> None:
    overrides = ("data.validation=0.2", "evaluation.metric=f1_score")
    config = run_config(tmp_path, qwen2_folder, classification_file, *overrides)
    with pytest.raises(ConfigError, match=r"evaluation\.metric.*f1_score.*macro_f1"):
        trained(config)
    assert steps == []
    assert not config.folder.exists(), "the refusal came too late"


def test_another_metric_chooses_the_best(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    overrides = ("data.validation=0.2", "evaluation.metric=macro_f1", "evaluation.steps=3")
    run = trained(run_config(tmp_path, qwen2_folder, classification_file, *overrides))
    assert [list(line["evaluation"]) for line in lines(run / "log.jsonl") if "evaluation" in line] == [["macro_f1"]] * 2


def test_without_rows_to_measure(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    """`data.validation: null` and no test rows: the adapter is trained, and nothing is measured."""
    config = run_config(tmp_path, qwen2_folder, classification_file)
    metrics = train(config, screen=SILENT)
    assert (metrics["rows"], metrics["systems"]) == (0, {})
    assert not (config.folder / "predictions.jsonl").exists()
    assert train(config, screen=SILENT) == metrics


def test_validation_rows_alone(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    overrides = ("data.validation=0.25", "evaluation.max_rows=3")
    metrics = train(run_config(tmp_path, qwen2_folder, classification_file, *overrides), screen=SILENT)
    assert (metrics["split"], metrics["rows"]) == ("validation", 12)


def test_the_temperature_is_kept_with_the_adapter(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, "data.validation=0.25", "data.test=0.25")
    run = trained(config)
    temperature = json.loads((run / "adapter/task.json").read_text("utf-8"))["temperature"]
    assert temperature != 1
    answers = weitiao.load(run, device="cpu").predict([row["text"] for row in lines(run / "predictions.jsonl")])
    for answer, row in zip(answers, lines(run / "predictions.jsonl"), strict=True):
        assert answer.probability == pytest.approx(row["probability"], abs=1e-4)
    measured = json.loads((run / "metrics.json").read_text("utf-8"))["systems"]["finetuned"]
    again = weitiao.evaluate(run)["systems"]["finetuned"]
    assert again["ece"] == pytest.approx(measured["ece"], abs=1e-3)
    assert again["ece_uncalibrated"] == pytest.approx(measured["ece_uncalibrated"], abs=1e-3)
    (run / "metrics.json").unlink()  # as if it had been interrupted while measuring
    trained(config)
    assert json.loads((run / "adapter/task.json").read_text("utf-8"))["temperature"] == pytest.approx(temperature)


def test_the_thresholds_of_several_labels_are_kept_with_the_adapter(qwen2_folder: Path, tmp_path: Path) -> None:
    """What is measured, evaluated and predicted is what they give; the untuned model has none."""
    things, rows = ("书", "手机", "酒店"), []
    for at in range(48):
        labels = [thing for bit, thing in enumerate(things) if at >> bit & 1]
        rows.append({"text": f"第{at}天：" + "、".join(labels) + "都不错。", "label": labels})
    data = write_rows(tmp_path / "classification.jsonl", rows)
    options = ("task.multi_label=true", "data.validation=0.25", "data.test=0.25", "evaluation.untuned=true")
    run = trained(run_config(tmp_path, lively_model(tmp_path / "model", qwen2_folder), data, *options))
    told = read_task_file(run / "adapter").thresholds
    assert set(told.labels) == set(things)
    assert 0.5 not in (told.shared, *told.labels.values())
    predictor = weitiao.load(run, device="cpu")
    assert predictor.thresholds == told
    measured = lines(run / "predictions.jsonl")
    texts = [row["text"] for row in measured]
    for answer, row in zip(predictor.predict(texts), measured, strict=True):
        assert list(answer.answer) == row["prediction"]
        assert answer.answer == tuple(label for label, chance in answer.scores.items() if chance >= told.of(label))
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))["systems"]
    again = weitiao.evaluate(run)["systems"]["finetuned"]
    for name in ("micro_f1", "macro_f1", "exact_match", "hamming", "micro_f1_at_half"):
        assert again[name] == pytest.approx(metrics["finetuned"][name]), name
    assert "micro_f1_at_half" not in metrics["untuned"]
    predictor.thresholds = Thresholds(shared=0.000001)  # which gives nearly all labels
    assert any(answer.answer == things for answer in predictor.predict(texts))
    with predictor.untuned():
        untuned = predictor.predict(texts)
    for answer in untuned:
        assert answer.answer == tuple(label for label, chance in answer.scores.items() if chance >= 0.5)
    assert predictor.thresholds.shared == 0.000001


def test_config_as_file_and_as_mapping(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file)
    (tmp_path / "config.yaml").write_text(dump_yaml(config), "utf-8")
    first = train(tmp_path / "config.yaml", screen=SILENT)
    assert train(config.model_dump(mode="json"), screen=SILENT) == first
    assert train(str(tmp_path / "config.yaml"), ["run.name=other"], screen=SILENT)["rows"] == 0
    assert same_bits(adapter(tmp_path / "run"), adapter(tmp_path / "other"))


def test_a_missing_model_keeps_the_run_that_was_to_be_replaced(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(qwen2_folder, model)
    config = run_config(tmp_path, model, classification_file)
    run = trained(config)
    before = content(run)
    (model / "tokenizer.json").unlink()
    with pytest.raises(Exception, match=r"tokenizer\.json"):
        trained(config, overwrite=True)
    assert content(run) == before


def test_epochs_decide_the_number_of_steps(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, steps: list[int]
) -> None:
    overrides: tuple[Any, ...] = ("training.max_steps=null", "training.samples_per_step=20")
    trained(run_config(tmp_path / "a", qwen2_folder, classification_file, *overrides, "training.num_train_epochs=2"))
    assert len(steps) == 6
    trained(run_config(tmp_path / "b", qwen2_folder, classification_file, *overrides, "training.num_train_epochs=0.5"))
    assert len(steps) == 6 + 2
