"""What 16 bits leave open is decided in float32: labels that are nearly equally likely, and entities of which a token
is hardly likelier than another."""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runs import lively_model, run_config, trained
from tiny import small_classification, small_ner
from weitiao.engine.slot_steps import Steps
from weitiao.prediction.adapter_folder import open_folder
from weitiao.prediction.labelled import Labelled, near_tie
from weitiao.prediction.predictor import Predictor
from weitiao.prediction.slot_state import Decoded
from weitiao.prediction.windows import Windows
from weitiao.prediction.written import Written, least
from weitiao.types import Constraint, Prediction, Row

TEXTS = ["手机很好，非常满意。", "讨厌这个酒店，浪费钱。", "书质量不错，下次还买。"]
Two = tuple[Predictor, Predictor]


def two(qwen2_folder: Path, folder: Path, rows: Path, steps: int) -> Two:
    """One in 16 bits, and one in float32 with the same weights."""
    model = lively_model(folder / "model", qwen2_folder)
    overrides = (f"training.max_steps={steps}", "training.samples_per_step=16", "training.save_steps=100")
    run = open_folder(trained(run_config(folder, model, rows, *overrides)))
    found = Predictor.open(run, "cpu", "bfloat16")
    return found, Predictor.around(run, copy.deepcopy(found.model).float())


@pytest.fixture(scope="module")
def halved(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("labels")
    return two(qwen2_folder, folder, small_classification(folder / "classification.jsonl"), 60)


@pytest.fixture(scope="module")
def writers(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Two:
    """They have not learnt much, so that many a token is hardly likelier than another."""
    folder = tmp_path_factory.mktemp("entities")
    return two(qwen2_folder, folder, small_ner(folder / "ner.jsonl", rows=32), 30)


def test_float32_decides_between_labels_that_16_bits_do_not_tell_apart(
    halved: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, wide = halved
    texts = [first[:at] + second[:at] for first in TEXTS for second in TEXTS for at in range(1, 9)]
    wanted = [answer.scores["好评"] for answer in wide.predict(texts)]

    def off() -> list[float]:
        return [abs(answer.scores["好评"] - right) for answer, right in zip(ours.predict(texts), wanted, strict=True)]

    def margin(share: float) -> float:
        return abs(math.log(share / (1 - share)))

    monkeypatch.setattr(ours, "near", 0.0)
    rounded = off()
    assert max(rounded) > 1e-4
    middle = statistics.median(map(margin, wanted))
    monkeypatch.setattr(ours, "near", middle)
    some = off()
    sure = [at for at, share in enumerate(wanted) if margin(share) > middle + 0.2]
    open_ = [at for at, share in enumerate(wanted) if margin(share) < middle - 0.2]
    assert len(sure) > 5
    assert len(open_) > 5
    assert [some[at] for at in sure] == [rounded[at] for at in sure]
    assert max(some[at] for at in open_) < 1e-5
    monkeypatch.setattr(ours, "near", 100.0)
    assert max(off()) < 1e-5


def test_in_float32_nothing_is_decided_twice(halved: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halved[1], "near", 100.0)
    monkeypatch.setattr(Labelled, "_decide", None)
    assert len(halved[1].predict(TEXTS)) == 3


def test_near_tie() -> None:
    def told(**scores: float) -> Prediction:
        return Prediction("a", "a", max(scores.values(), default=None), scores)

    assert near_tie(told(a=0.5, b=0.49, c=0.01), 0.1)
    assert near_tie(told(a=0.01, b=0.34, c=0.35, d=0.3), 0.1)
    assert not near_tie(told(a=0.35, b=0.34, c=0.31), 0.0)
    assert not near_tie(told(a=0.6, b=0.4), 0.1)
    assert not near_tie(told(a=1.0), 0.1)
    assert not near_tie(told(), 0.1)


SENTENCES = [
    f"{who}从{where}来，{other}留在{there}。"
    for who, other in (("王小明", "李华"), ("张伟", "陈静"))
    for where in ("南京", "上海", "西安")
    for there in ("北京", "广州")
]


def test_float32_writes_what_hinges_on_less_than_16_bits_tell_apart(
    writers: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, wide = writers
    wanted = wide.predict(SENTENCES)
    seen: list[Decoded] = []
    read = Written._read

    def reading(self: Written, decoded: Decoded, example: Any) -> Prediction:
        seen.append(decoded)
        return read(self, decoded, example)

    monkeypatch.setattr(Written, "_read", reading)
    monkeypatch.setattr(ours, "near", 0.0)
    rounded = ours.predict(SENTENCES)
    assert len(seen) == len(SENTENCES)
    assert max(map(_off, rounded, wanted)) > 1e-4
    # Some are written again, behind another token.
    assert any(first.text != one.text for first, one in zip(rounded, wanted, strict=True))
    # Halfway: some are sure of all their tokens, some not.
    middle = statistics.median(map(least, seen))
    near = -math.log(math.expm1(-middle))
    seen.clear()
    monkeypatch.setattr(ours, "near", near)
    some = ours.predict(SENTENCES)
    again = len(seen) - len(SENTENCES)
    assert 0 < again < len(SENTENCES)
    assert sum(a == b for a, b in zip(some, rounded, strict=True)) == len(SENTENCES) - again
    exact = [found for found, first in zip(some, rounded, strict=True) if found != first]
    right = [one for one, found, first in zip(wanted, some, rounded, strict=True) if found != first]
    assert max(map(_off, exact, right)) < 1e-4
    monkeypatch.setattr(ours, "near", 100.0)
    whole = ours.predict(SENTENCES)
    assert [found.text for found in whole] == [one.text for one in wanted]
    assert max(map(_off, whole, wanted)) < 1e-4
    # What was right in 16 bits is read at once.
    steps = []
    logits = Steps.logits

    def counting(self: Steps, *told: Any) -> Any:
        steps.append(self.forward.exact)
        return logits(self, *told)

    monkeypatch.setattr(Steps, "logits", counting)
    right_at_once = [
        text for text, one, first in zip(SENTENCES, wanted, rounded, strict=True) if one.text == first.text
    ]
    assert right_at_once
    ours.predict(right_at_once)
    assert not any(steps)
    assert len(steps) > 2


def test_an_answer_is_confirmed_if_each_of_its_tokens_is(writers: Two) -> None:
    _, wide = writers
    written = wide._written
    rows = [Row({"text": text}, "rows", at) for at, text in enumerate(SENTENCES, 1)]
    asked = Windows(wide.encoder, [wide.task.example(row, labelled=False) for row in rows])

    def limit(row: int) -> Constraint:
        return wide._prompts.constraint(asked.rows[row])

    answers: dict[int, Decoded] = {}
    written._decode(written.decoder, range(len(rows)), asked, limit, answers.__setitem__)
    found: dict[int, Decoded] = {}
    assert written._confirm(answers, asked, limit, found.__setitem__) == []
    for row, answer in answers.items():
        assert (found[row].ids, found[row].complete) == (answer.ids, answer.complete)
        assert found[row].chances == pytest.approx(answer.chances, abs=1e-4)
        assert found[row].log_probability == pytest.approx(answer.log_probability, abs=1e-4)
    # One that breaks off would have gone on; one that was broken off by the budget is what there is.
    long = [row for row in sorted(answers) if len(answers[row].ids) > 1]
    assert len(long) > 2
    broken = dict(answers)
    for row in long[::2]:
        broken[row] = replace(answers[row], ids=answers[row].ids[:-1], complete=True)
    for row in long[1::2]:
        broken[row] = replace(answers[row], ids=answers[row].ids[:-1], complete=False)
    found.clear()
    assert written._confirm(broken, asked, limit, found.__setitem__) == long[::2]
    assert sorted(found) == [row for row in sorted(answers) if row not in long[::2]]


def _off(found: Prediction, wanted: Prediction) -> float:
    """Between the probabilities of the same text; of another, more than any."""
    if found.text != wanted.text:
        return 2.0
    return abs((found.probability or 0.0) - (wanted.probability or 0.0))


def test_the_least_chance_of_an_answer() -> None:
    assert least(Decoded([1, 2], -0.6, True, [-0.1, -0.2])) == pytest.approx(-0.3)
    assert least(Decoded([1, 2], -0.9, True, [-0.1, -0.7])) == -0.7
    assert least(Decoded([1, 2], -0.8, False, [-0.1, -0.7])) == -0.7
    assert least(Decoded([], -0.5, True, [])) == -0.5
