"""The Python API: `weitiao.load(run).predict(rows)`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import weitiao
from runs import adapter, lines, lively_model, run_config, trained
from tiny import small_classification, small_ner, write_rows
from weitiao.errors import CheckpointError, ConfigError, DataError
from weitiao.metrics.entities import Entity
from weitiao.prediction.label_scores import Asked
from weitiao.prediction.labelled import _blocks
from weitiao.prediction.predictor import Predictor
from weitiao.tasks.base import Example
from weitiao.types import Encoded, Prediction


@pytest.fixture(scope="module")
def run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt its task."""
    folder = tmp_path_factory.mktemp("learnt")
    rows = small_classification(folder / "classification.jsonl")
    model = lively_model(folder / "model", qwen2_folder)
    overrides = ("training.max_steps=60", "training.samples_per_step=16", "training.save_steps=100")
    return trained(run_config(folder, model, rows, *overrides))


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return weitiao.load(run, device="cpu")


TEXTS = ["手机很好，非常满意。", "讨厌这个酒店，浪费钱。", "书质量不错，下次还买。"]


def test_texts_and_mappings(predictor: Predictor) -> None:
    bare = predictor.predict(TEXTS)
    assert [prediction.answer for prediction in bare] == ["好评", "差评", "好评"]
    for prediction in bare:
        assert isinstance(prediction, Prediction)
        assert list(prediction.scores) == ["好评", "差评"]
        assert prediction.probability == max(prediction.scores.values())
        assert sum(prediction.scores.values()) == pytest.approx(1)
    rows = [{"id": 7, "text": TEXTS[0]}, {"text": TEXTS[1], "label": ""}, {"text": TEXTS[2], "label": "差评"}]
    assert predictor.predict(rows) == bare
    assert predictor.predict([rows[0], TEXTS[1]]) == bare[:2]
    assert predictor.predict([]) == []


def test_the_order_of_rows_does_not_matter(predictor: Predictor) -> None:
    texts = [TEXTS[at % 3] + "。" * (at % 7) for at in range(50)]
    forward, backward = predictor.predict(texts), predictor.predict(texts[::-1])
    for first, second in zip(forward, backward[::-1], strict=True):
        assert first.answer == second.answer
        assert dict(first.scores) == pytest.approx(dict(second.scores), abs=1e-5)


def test_small_batches(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predictor.predict(TEXTS * 5)
    monkeypatch.setattr(predictor._labelled.scorer, "batch_tokens", 100)
    done: list[int] = []
    examples = [predictor.task.example(_row(text), labelled=False) for text in TEXTS * 5]
    small = predictor.answer(examples, done.append)
    assert sum(done) == 15
    for first, second in zip(whole, small, strict=True):
        assert dict(first.scores) == pytest.approx(dict(second.scores), abs=1e-5)


@pytest.mark.parametrize("ahead", [1, 4, 15])
def test_rows_encoded_a_few_at_a_time(predictor: Predictor, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    """Behind the prefix of each few: the answers, in order, of all at once; none is encoded long before its turn."""
    texts = [TEXTS[at % 3] + "。" * (at % 7) for at in range(15)]
    examples = [predictor.task.example(_row(text), labelled=False) for text in texts]
    whole = predictor.answer(examples)
    encoded: list[int] = []
    done: list[int] = []
    prompts = predictor.encoder.prompts
    told: list[int] = []

    def seen(examples: Sequence[Example]) -> list[Encoded]:
        encoded.extend(example.row.line for example in examples)
        told.append(sum(done))
        return prompts(examples)

    monkeypatch.setattr(predictor.encoder, "prompts", seen)
    for bound in ("FIRST", "AHEAD"):
        monkeypatch.setattr(f"weitiao.prediction.labelled.{bound}", ahead)
    for first, second in zip(whole, predictor.answer(examples, done.append), strict=True):
        assert first.answer == second.answer
        assert dict(first.scores) == pytest.approx(dict(second.scores), abs=1e-5)
    assert len(encoded) == sum(done) == 15
    # Those before the last few are told of, when it is encoded: two groups may be on their way.
    assert told[-1] >= 15 - 3 * ahead


def test_few_rows_are_encoded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound, rows in (("FIRST", 2), ("AHEAD", 5)):
        monkeypatch.setattr(f"weitiao.prediction.labelled.{bound}", rows)
    found: Any = list(_blocks(range(20)))  # type: ignore[arg-type]
    assert list(map(list, found)) == [list(range(*ends)) for ends in ((0, 2), (2, 6), (6, 11), (11, 16), (16, 20))]
    assert list(_blocks([])) == []


def test_several_prefixes(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of two long beginnings, and others: answered group by group, in their order, as each is alone."""
    long = [TEXTS[at] * 40 for at in (0, 1)]
    texts = [(long[at % 2] if at % 5 else "") + TEXTS[at % 3] + "。" * (at % 4) for at in range(20)]
    alone = [predictor.predict([text])[0] for text in texts]
    prefixes = []
    answers = predictor._labelled.scorer.answers

    def told(asks: Iterator[Asked], decoding: str) -> Iterator[list[Prediction]]:
        return answers((prefixes.append(asked.prefix) or asked for asked in asks), decoding)

    monkeypatch.setattr(predictor._labelled.scorer, "answers", told)
    monkeypatch.setattr(predictor._prompts, "batch_tokens", 256)
    done: list[int] = []
    examples = [predictor.task.example(_row(text), labelled=False) for text in texts]
    together = predictor.answer(examples, done.append)
    assert len(set(prefixes)) >= 3
    assert sum(done) == 20
    for first, second in zip(alone, together, strict=True):
        assert first.answer == second.answer
        assert dict(first.scores) == pytest.approx(dict(second.scores), abs=1e-5)


def test_greedy(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels begin with other tokens, so of this model's answers only a made-up first choice differs."""
    exact = predictor.predict(TEXTS)
    assert [a.answer for a in predictor.predict(TEXTS, decoding="greedy")] == [a.answer for a in exact]
    monkeypatch.setattr("weitiao.prediction.label_scores.greedy", lambda paths, steps: 1)
    for first, second in zip(exact, predictor.predict(TEXTS, decoding="greedy"), strict=True):
        assert (second.answer, second.text, second.probability) == ("差评", "差评", second.scores["差评"])
        assert dict(first.scores) == pytest.approx(dict(second.scores), abs=1e-9)
    with pytest.raises(ConfigError, match="decoding 'best': no such way"):
        predictor.predict(TEXTS, decoding="best")


def _row(text: str) -> Any:
    return weitiao.types.Row({"text": text}, "rows", 1)


def test_a_row_that_is_none(predictor: Predictor) -> None:
    for rows in (["好", ""], ["好", {"txt": "好"}], ["好", {"text": 7}]):
        with pytest.raises(DataError, match="rows:2: "):
            predictor.predict(rows)


def test_untuned(predictor: Predictor, run: Path) -> None:
    """The base's answers inside the block, as a model without any adapter gives them; ours again behind it."""
    tuned = predictor.predict(TEXTS)
    with predictor.untuned():
        untuned = predictor.predict(TEXTS)
    assert predictor.predict(TEXTS) == tuned
    assert all(abs(a.probability - b.probability) > 1e-3 for a, b in zip(tuned, untuned, strict=True))

    bare = weitiao.load(run, device="cpu")
    for name, parameter in bare.model.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    assert bare.predict(TEXTS) == untuned

    def fail() -> None:
        with predictor.untuned():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert predictor.predict(TEXTS) == tuned


def test_predicting_leaves_the_mode_and_the_weights(predictor: Predictor, run: Path) -> None:
    predictor.model.train()
    predictor.predict(TEXTS)
    assert predictor.model.training
    predictor.model.eval()
    predictor.predict(TEXTS)
    assert not predictor.model.training
    saved = adapter(run)
    for name, parameter in predictor.model.named_parameters():
        if "lora_" in name:
            assert torch.equal(parameter, saved[name.replace(".default", "")])


def test_columns(qwen2_folder: Path, tmp_path: Path) -> None:
    rows = [{"内容": row["text"], "类别": row["label"]} for row in lines(small_classification(tmp_path / "c.jsonl"))]
    data = write_rows(tmp_path / "classification.jsonl", rows)
    run = trained(run_config(tmp_path, qwen2_folder, data, "data.columns={text: 内容, label: 类别}"))
    predictor = weitiao.load(run, device="cpu")
    rows = [TEXTS[0], {"内容": TEXTS[0]}, {"内容": TEXTS[0], "类别": "好评"}, {"text": TEXTS[0]}]
    [bare, mapped, labelled, standard] = predictor.predict(rows)
    assert bare == mapped == labelled == standard
    with pytest.raises(DataError, match="内容"):
        predictor.predict([{"正文": TEXTS[0]}])


def test_entities(qwen2_folder: Path, tmp_path: Path) -> None:
    """Learnt well enough to find them again, at their places; the answer's probability is that of the whole."""
    rows = small_ner(tmp_path / "ner.jsonl", rows=32)
    model = lively_model(tmp_path / "model", qwen2_folder)
    overrides = ("training.max_steps=80", "training.samples_per_step=16", "training.save_steps=100")
    predictor = weitiao.load(trained(run_config(tmp_path, model, rows, *overrides)), device="cpu")
    wanted = lines(rows)
    answers = predictor.predict([row["text"] for row in wanted])
    for row, prediction in zip(wanted, answers, strict=True):
        assert prediction.probability is None or 0 < prediction.probability <= 1
        for entity in prediction.answer:
            assert isinstance(entity, Entity)
            assert entity.start < 0 or row["text"][entity.start : entity.end] == entity.text
    right = sum(predictor.task.record(a.answer) == row["entities"] for row, a in zip(wanted, answers, strict=True))
    assert right >= len(wanted) / 2
    alone = [predictor.predict([row["text"]])[0].answer for row in wanted[:8]]
    assert alone == [prediction.answer for prediction in answers[:8]]


def test_a_run_adapter_or_checkpoint_folder(run: Path, predictor: Predictor, tmp_path: Path) -> None:
    wanted = predictor.predict(TEXTS)
    assert weitiao.load(run / "adapter", device="cpu").predict(TEXTS) == wanted
    assert weitiao.load(str(run / "checkpoint-60"), device="cpu").predict(TEXTS) == wanted
    moved = shutil.copytree(run / "adapter", tmp_path / "elsewhere")
    assert weitiao.load(moved, device="cpu").predict(TEXTS) == wanted


def test_what_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=str(path)):
            weitiao.load(path, device="cpu")
