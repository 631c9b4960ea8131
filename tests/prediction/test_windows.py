"""Long texts are answered window by window, short ones as ever; entities have probabilities of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weitiao
from parity.oracle import lora_model, random_head
from runs import lines, lively_model, run_config, trained
from texts import texts
from tiny import small_ner, write_rows
from weitiao.data.encode import Encoder
from weitiao.families.base import family_of
from weitiao.families.tokenizer import TextTokenizer
from weitiao.prediction.calibration import with_temperature
from weitiao.prediction.evaluate import prediction_record
from weitiao.prediction.predictor import Predictor
from weitiao.tasks.classification import Classification, ClassificationOptions
from weitiao.tasks.ner import Ner, NerOptions
from weitiao.types import Prediction, Row

ROOM = 48
TYPES = ["人名", "地点", "Ort"]


def predictor_of(folder: Path, output_format: str = "lines", room: int = ROOM) -> Predictor:
    """A random model, which mostly finds something."""
    _, family = family_of(folder)
    task = Ner(NerOptions(types=TYPES, language="zh", output_format=output_format))  # type: ignore[arg-type]
    encoder = Encoder(task, family.chat_format(TextTokenizer(folder)), room, 2048)
    model = lora_model(folder)
    nothing = (*encoder.chat.answer_ids("无")[:1], *encoder.chat.answer_ids("[]")[:2])
    likes = {encoder.chat.stop: 3.0, **dict.fromkeys(nothing, -30.0)}
    model.get_base_model().lm_head = random_head(model.get_base_model().lm_head.out_features, 5, 0.5, likes)
    return Predictor(task, encoder, model, budget=32, batch_tokens=4096)


@pytest.fixture(scope="module", params=["qwen2-lines", "qwen2-json", "llama-lines"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    name, _, output_format = request.param.partition("-")
    return predictor_of(request.getfixturevalue(f"{name}_folder"), output_format)


long_texts = st.lists(texts(12), min_size=1, max_size=12).map("".join)


@settings(max_examples=10)
@given(rows=st.lists(long_texts, min_size=1, max_size=3))
def test_entities_are_where_they_are_said_to_be(predictor: Predictor, rows: list[str]) -> None:
    for text, found in zip(rows, predictor.predict(rows), strict=True):
        assert found.answer is not None
        assert len(found.parts) == len(found.answer)
        for entity in found.answer:
            assert entity.type in TYPES
            assert not entity.found or text[entity.start : entity.end] == entity.text != ""
        assert all(0 <= part <= 1 for part in found.parts)
        if found.probability is not None:
            assert 0 <= found.probability <= min(found.parts, default=1.0) + 1e-9
        example = predictor.task.example(Row({"text": text}, "rows", 1), labelled=False)
        if predictor.encoder.prompt(example).removed:
            assert found.text == predictor.task.target(found.answer)


def test_windows_are_rows_of_their_own(predictor: Predictor) -> None:
    """The whole answer is as likely as all windows' together; entities have the probability of a window's."""
    text = "".join(f"第{at}天，李华从南京回来，赵敏开了一家店。" for at in range(9))
    example = predictor.task.example(Row({"text": text}, "rows", 1), labelled=False)
    spans = predictor.encoder.windows(example)
    assert len(spans) > 2
    alone = predictor.predict([text[start:end] for start, end in spans])
    done: list[int] = []
    [whole, short] = predictor.answer(
        [example, predictor.task.example(Row({"text": "李华"}, "rows", 2), labelled=False)], done.append
    )
    assert sum(done) == 2
    assert short.text == predictor.predict(["李华"])[0].text
    known = [found.probability for found in alone]
    assert (whole.probability is None) == (None in known)
    if None not in known:
        assert whole.probability == pytest.approx(math.prod(known), rel=1e-3)
    seen = {
        (e.start + start, e.end + start, e.type): chance
        for (start, _), found in zip(spans, alone, strict=True)
        for e, chance in zip(found.answer, found.parts, strict=True)
    }
    assert whole.answer
    for e in whole.answer:
        assert (e.start, e.end, e.type) in seen
    spread = {e.start // (len(text) // 3 + 1) for e in whole.answer}
    assert spread == {0, 1, 2}, "entities of all parts of the text"


def test_short_texts_as_without_windows(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["李华住在南京。", "昨天赵敏从上海回来了。", "A b\tc 😀"]
    found = predictor.predict(rows)
    monkeypatch.setattr(predictor.task, "in_windows", False)
    assert predictor.predict(rows) == found


def test_what_the_entities_leave_over(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token is counted for one entity at most, so together they are at least as likely as all that was written."""
    decoded = []
    decode = predictor._written.decoder.decode
    monkeypatch.setattr(predictor._written.decoder, "decode", lambda *args: decoded.extend(out := decode(*args)) or out)
    told = 0
    for at in range(20):
        text = f"第{at}天赵敏从上海回来了，在哈尔滨，陈静开了一家店。"[: 6 + at]
        decoded.clear()
        [found] = predictor.predict([text])
        [raw] = decoded
        assert len(raw.chances) == len(raw.ids)
        assert all(chance <= 0 for chance in raw.chances)
        assert math.prod(found.parts) >= math.exp(sum(raw.chances)) * (1 - 1e-6)
        if found.probability is not None:
            assert found.probability == pytest.approx(math.exp(raw.log_probability))
            assert raw.log_probability <= sum(raw.chances) + 1e-6
        told += bool(found.parts)
    assert told


def test_a_temperature_is_taken_for_entities_too(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "昨天赵敏从上海回来了。"
    [raw] = predictor.predict([text])
    assert raw.parts
    monkeypatch.setattr(predictor, "temperature", 2.0)
    [found] = predictor.predict([text])
    assert found.answer == raw.answer
    odds = [math.sqrt(p / (1 - p)) for p in raw.parts]
    assert found.parts == pytest.approx([o / (1 + o) for o in odds])
    if raw.probability is not None:
        assert found.probability == with_temperature(replace(raw, parts=()), 2.0).probability <= min(found.parts)


def test_records_name_the_probabilities(predictor: Predictor) -> None:
    example = predictor.task.example(Row({"text": "昨天赵敏从上海回来了。"}, "rows", 1), labelled=False)
    [found] = predictor.answer([example])
    record = prediction_record(predictor.task, example, found)
    assert [list(entity) for entity in record["prediction"]] == [
        ["start", "end", "type", "text", "probability"] for _ in found.answer
    ]
    assert [entity["probability"] for entity in record["prediction"]] == list(found.parts)
    assert predictor.task.read_record(record["prediction"]) == found.answer
    bare = prediction_record(predictor.task, example, Prediction(found.answer))
    assert [list(entity) for entity in bare["prediction"]] == [["start", "end", "type", "text"] for _ in found.answer]
    assert predictor.task.read_record(bare["prediction"]) == found.answer
    withheld = prediction_record(predictor.task, example, found, abstain_below=2.0)
    assert withheld["prediction"] is None
    assert withheld["suggestion"] == record["prediction"]


def test_other_tasks_shorten(qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, family = family_of(qwen2_folder)
    task = Classification(ClassificationOptions(options="fixed", labels=["好评", "差评"], language="zh"))
    encoder = Encoder(task, family.chat_format(TextTokenizer(qwen2_folder)), ROOM, 2048)
    monkeypatch.setattr(Encoder, "windows", lambda self, example: pytest.fail("windows of a text to classify"))
    [found] = Predictor(task, encoder, lora_model(qwen2_folder), budget=8).predict(["很好" * 200])
    assert found.answer in ("好评", "差评")
    assert found.parts == ()


def test_a_model_that_has_learnt_finds_what_is_far_inside(qwen2_folder: Path, tmp_path: Path) -> None:
    """Trained on a few sentences a row, asked about many at once, which are longer than data.max_length."""
    sentences = lines(small_ner(tmp_path / "sentences.jsonl"))
    several = [joined(sentences[at : at + count]) for count in range(1, 5) for at in range(65 - count)]
    rows = write_rows(tmp_path / "ner.jsonl", several)
    model = lively_model(tmp_path / "model", qwen2_folder)
    overrides = ("training.max_steps=120", "training.samples_per_step=16", "training.save_steps=1000")
    run = trained(run_config(tmp_path, model, rows, *overrides, "data.max_length=16"))
    document = joined(sentences[:24])
    data = write_rows(tmp_path / "long.jsonl", [document])
    predictor = weitiao.load(run, device="cpu")
    wanted = {(e["start"], e["end"], e["type"]) for e in document["entities"]}

    [found] = predictor.predict([document["text"]])
    assert all(document["text"][e.start : e.end] == e.text for e in found.answer)
    right = [e for e in found.answer if (e.start, e.end, e.type) in wanted]
    assert {e.start * 3 // len(document["text"]) for e in right} == {0, 1, 2}
    assert len(right) > len(wanted) / 3
    measured = weitiao.evaluate(run, data)["systems"]["finetuned"]
    assert measured["f1"] == pytest.approx(2 * len(right) / (len(found.answer) + len(wanted))), "measured as served"

    predictor.task.in_windows = False  # type: ignore[misc]
    [shortened] = predictor.predict([document["text"]])
    assert len(right) > sum((e.start, e.end, e.type) in wanted for e in shortened.answer)


def joined(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of all rows' sentences, a line each."""
    text, entities = "", []
    for row in rows:
        entities += [{**e, "start": e["start"] + len(text), "end": e["end"] + len(text)} for e in row["entities"]]
        text += row["text"] + "\n"
    return {"text": text, "entities": entities}
