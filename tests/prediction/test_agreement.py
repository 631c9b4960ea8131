"""`--merged`: the adapter folded into the weights, once the same rows are answered alike."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import weitiao
from runs import SILENT, lines, lively_model, run_config, trained
from tiny import old_glm, small_classification, small_ner, write_rows
from weitiao.errors import ConfigError
from weitiao.export import export
from weitiao.model.merge import Merged
from weitiao.prediction import agreement, files
from weitiao.prediction.adapter_folder import open_folder
from weitiao.prediction.agreement import Agreement, compared, held_out
from weitiao.prediction.predictor import Predictor
from weitiao.types import Prediction

LEARNT = ("training.max_steps=40", "training.samples_per_step=16", "training.save_steps=100", "data.test=0.3")


@pytest.fixture(scope="module")
def run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged")
    rows = small_classification(folder / "classification.jsonl")
    return trained(run_config(folder, lively_model(folder / "model", qwen2_folder), rows, *LEARNT))


def same(first: Sequence[Prediction], second: Sequence[Prediction]) -> None:
    """All answers are equal, and log-probabilities within 1e-4."""
    assert [a.answer for a in first] == [b.answer for b in second]
    for a, b in zip(first, second, strict=True):
        for one, two in [(a.probability, b.probability), *((a.scores[key], b.scores[key]) for key in a.scores)]:
            assert (one is None) == (two is None)
            assert one is None or math.log(one) == pytest.approx(math.log(two), abs=1e-4)


def both(run: Path, texts: Sequence[Any], **options: Any) -> Predictor:
    apart, merged = weitiao.load(run, device="cpu"), weitiao.load(run, device="cpu", merged=True)
    assert isinstance(merged.model, Merged)
    same(apart.predict(texts, **options), merged.predict(texts, **options))
    return merged


def test_labels(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [row["text"] for row in lines(run.parent / "classification.jsonl")]
    merged = both(run, texts)
    told = capsys.readouterr().err.splitlines()
    [line] = [line for line in told if line.startswith("merged weights beside the adapter apart: ")]
    assert "14 of 14 answers equal, log-probabilities of answers at most" in line
    assert merged.forward.fast is not None
    with pytest.raises(ConfigError, match="there is no untuned model"), merged.untuned():
        pass


def test_in_bfloat16(run: Path) -> None:
    """Both are rounded, in other places."""
    texts = [row["text"] for row in lines(run.parent / "classification.jsonl")]
    apart = weitiao.load(run, device="cpu", dtype="bfloat16").predict(texts)
    merged = weitiao.load(run, device="cpu", dtype="bfloat16", merged=True)
    assert merged.forward.head.weight.dtype == torch.bfloat16
    assert isinstance(merged.model, Merged)
    assert compared(apart, merged.predict(texts)).holds(15 / 16, 0.2)


def test_entities(qwen2_folder: Path, tmp_path: Path) -> None:
    rows = small_ner(tmp_path / "ner.jsonl", rows=32)
    run = trained(run_config(tmp_path, lively_model(tmp_path / "model", qwen2_folder), rows, *LEARNT))
    both(run, [row["text"] for row in lines(rows)])


def test_an_old_glm(glm4_folder: Path, tmp_path: Path) -> None:
    rows = small_classification(tmp_path / "classification.jsonl")
    old = old_glm(tmp_path / "old", lively_model(tmp_path / "lively", glm4_folder))
    run = trained(run_config(tmp_path, old, rows, *LEARNT))
    texts = [row["text"] for row in lines(rows)]
    both(run, texts)
    both(export(run, tmp_path / "names", "chatglm-adapter"), texts)


def test_a_trained_tower(qwen2_vl_folder: Path, tmp_path: Path) -> None:
    """Its features are others than those of the base's tower, and not kept as such."""
    told = []
    for at in range(24):
        Image.new("RGB", (56 + at, 56), (220, 30, 9 * at) if at % 2 else (30, 200, 9 * at)).save(tmp_path / f"{at}.png")
        told.append({"image": f"{at}.png", "label": "red" if at % 2 else "green"})
    rows = write_rows(tmp_path / "classification.jsonl", told)
    cache = tmp_path / "cache"
    options = ("lora.vision_tower=true", "training.max_steps=12", "data.test=0.3", f"model.cache_dir={cache}")
    run = trained(run_config(tmp_path, lively_model(tmp_path / "model", qwen2_vl_folder), rows, *options))
    both(run, [{"image": row["image"]} for row in told], images=tmp_path)
    assert not list(cache.rglob("*.safetensors"))


def test_where_answers_differ_the_adapter_stays_apart(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def wrong(weight: torch.Tensor, update: Any) -> torch.Tensor:
        return weight - 3 * update.scaling * update.b @ update.a

    monkeypatch.setattr("weitiao.model.merge.added", wrong)
    predictor = weitiao.load(run, device="cpu", merged=True)
    assert not isinstance(predictor.model, Merged)
    told = capsys.readouterr().err
    assert "warning: wanted 93.8% equal and at most 0.01 nats; going on with the adapter apart" in told
    texts = [row["text"] for row in lines(run.parent / "classification.jsonl")]
    assert predictor.predict(texts) == weitiao.load(run, device="cpu").predict(texts)


def test_a_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first rows are compared, also when it is gone on with; what was answered the other way is no beginning."""
    source = run.parent / "classification.jsonl"
    files.predict_file(run, str(source), tmp_path / "apart.jsonl", SILENT)
    monkeypatch.setattr(files, "BLOCK_ROWS", 20)
    compared_on: list[list[str]] = []
    calls_left = [1]  # of the first predictor: blocks that it answers before it is killed
    open_merged = agreement.open_merged

    def opened(folder: Any, examples: Any, screen: Any) -> Predictor:
        compared_on.append([example.text for example in examples])
        predictor = open_merged(folder, examples, screen)
        if calls_left:
            answer = predictor.answer
            monkeypatch.setattr(predictor, "answer", lambda *args: calls_left.pop() and answer(*args))
        return predictor

    monkeypatch.setattr(files, "open_merged", opened)
    with pytest.raises(IndexError):
        files.predict_file(run, str(source), tmp_path / "m.jsonl", SILENT, merged=True)
    assert json.loads((tmp_path / ".m.jsonl.partial.json").read_text("utf-8"))["rows"] == 20
    files.predict_file(run, str(source), tmp_path / "m.jsonl", SILENT, merged=True)
    assert compared_on == [[row["text"] for row in lines(source)[:16]]] * 2
    apart, merged = lines(tmp_path / "apart.jsonl"), lines(tmp_path / "m.jsonl")
    assert [row["prediction"] for row in apart] == [row["prediction"] for row in merged]
    assert [row["probability"] for row in apart] == pytest.approx([row["probability"] for row in merged], abs=1e-5)
    folder = open_folder(run)
    assert files._belongs(folder, merged=True) != files._belongs(folder, merged=False)


def test_4_bits_are_refused(run: Path, tmp_path: Path) -> None:
    task = run / "adapter" / "task.json"
    before = task.read_text("utf-8")
    told = json.loads(before)
    try:
        task.write_text(json.dumps(told | {"base": told["base"] | {"quantization": "nf4"}}), "utf-8")
        for ask in (
            lambda: weitiao.load(run, device="cpu", merged=True),
            lambda: files.predict_file(run, "missing.jsonl", None, SILENT, merged=True),
            lambda: export(run, tmp_path / "x", "merged"),
        ):
            with pytest.raises(ConfigError, match="was trained on weights in nf4, into which it cannot be folded"):
                ask()
        assert list(tmp_path.iterdir()) == []
    finally:
        task.write_text(before, "utf-8")


def test_held_out_rows(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = open_folder(run)
    wanted = [row["text"] for row in lines(run / "predictions.jsonl")]
    assert [example.text for example in held_out(folder, 64, SILENT)] == wanted
    assert [example.text for example in held_out(folder, 2, SILENT)] == [wanted[0], wanted[7]]
    found = held_out(folder, 1, SILENT)[0]
    assert set(found.row.fields) == {"text", "label"}
    (run / "predictions.jsonl").rename(run / "gone")
    try:  # then those of the data files
        assert [example.text for example in held_out(folder, 64, SILENT)] == wanted
    finally:
        (run / "gone").rename(run / "predictions.jsonl")
    moved = replace(folder, path=tmp_path / "adapter")
    assert held_out(moved, 64, weitiao.tracking.screen.Screen()) == []
    assert "the run's held-out rows cannot be read" in capsys.readouterr().err


def test_what_is_compared() -> None:
    labels = [Prediction("a", "a", 0.8, {"a": 0.8, "b": 0.2}), Prediction("b", "b", 0.6, {"a": 0.4, "b": 0.6})]
    other = [Prediction("a", "a", 0.7, {"a": 0.7, "b": 0.3}), Prediction("a", "a", 0.7, {"a": 0.7, "b": 0.3})]
    assert compared(labels, labels) == Agreement(2, 2, 0.0)
    assert compared(labels, other) == Agreement(2, 1, pytest.approx(math.log(2)))
    texts = [Prediction((), "x", 0.5), Prediction((), "y", 0.5), Prediction((), "z", None), Prediction((), "u", 0.0)]
    others = [Prediction((), "x", 0.4), Prediction((), "n", 0.1), Prediction((), "z", 0.2), Prediction((), "u", 0.5)]
    assert compared(texts, others) == Agreement(4, 3, pytest.approx(math.log(0.5 / 0.4)))
    assert compared([], []) == Agreement(0, 0, 0.0)
    assert Agreement(16, 15, 0.5).holds(15 / 16, 1.0)
    assert not Agreement(16, 14, 0.5).holds(15 / 16, 1.0)
    assert not Agreement(16, 16, 1.5).holds(15 / 16, 1.0)
    assert Agreement(5, 4, 0.0).holds(0.97, 1.0), "one row may lie on the edge"
    assert not Agreement(5, 3, 0.0).holds(0.97, 1.0)
    assert Agreement(0, 0, 0.0).holds(0.97, 1.0)
