"""`weitiao bench predict` on a tiny shape: what it prints, that it compares equals. Never a time."""

from __future__ import annotations

import json
import pickle
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from weitiao.bench import predict
from weitiao.bench.agreement import agreement
from weitiao.bench.answerer import Answerer, Block, answerer_class
from weitiao.bench.answerers import answerer_names
from weitiao.bench.predict import bench_predict
from weitiao.bench.predict_lane import Lane, spread, tried
from weitiao.bench.predict_worker import PredictBench
from weitiao.bench.profiles import PROFILES
from weitiao.bench.questions import Questions, questions
from weitiao.bench.remote import WorkerFailed, Workers
from weitiao.bench.request import asked_predict
from weitiao.bench.shapes import SHAPES, ModelMaker, model_maker
from weitiao.bench.table import predict_tables
from weitiao.bench.vocabulary import write_tokenizer
from weitiao.bench.worker import DONE, OUT_OF_MEMORY, answer
from weitiao.cli import app
from weitiao.data.prefix import common_prefix
from weitiao.errors import ConfigError
from weitiao.families.tokenizer import TextTokenizer
from weitiao.tracking.screen import Screen

CPU = torch.device("cpu")
TINY = SHAPES["tiny"].config["vocab_size"]
OURS = ["weitiao", "weitiao_merged"]
HERE = {*OURS, "tutorial", "hf_batch"}
KEYS = {
    *("system", "profile", "samples_per_second", "low", "high", "ratio", "answer_tokens_per_second", "peak_gib"),
    *("first_answer_seconds", "warm_up_seconds", "setting", "equal", "note"),
}


class InThisProcess:
    """Stands for a worker, whose start takes seconds."""

    process = None

    def __init__(self, kind: type[Answerer], workers: Workers) -> None:
        self.bench = PredictBench(kind.__module__, workers.shape, str(workers.device))
        self.orders: list[str] = []

    def ask(self, order: str, *arguments: Any) -> Any:
        self.orders.append(order)
        state, value = answer(self.bench, order, pickle.loads(pickle.dumps(arguments)))
        if state == OUT_OF_MEMORY:
            raise torch.cuda.OutOfMemoryError
        if state != DONE:
            raise WorkerFailed(value)
        return value

    def stop(self) -> None:
        self.bench.drop()


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    there: dict[type[Answerer], InThisProcess] = {}

    class Here(Workers):
        def of(self, kind: Any) -> Any:
            return there.setdefault(kind, InThisProcess(kind, self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "Workers", Here)
        yield


@pytest.fixture(scope="module")
def make() -> ModelMaker:
    return model_maker("tiny", CPU, torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, "qwen2", TINY)
    return folder


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    arguments = ["bench", "predict", "--device", "cpu", "--shape", "tiny", "--rows", "12", "--checked", "6"]
    done = CliRunner().invoke(app, [*arguments, "--repeats", "2", "--seconds", "0", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def drawn(profile: str, folder: Path, count: int = 8) -> Questions:
    return questions(profile, folder, "qwen2", TINY, count, seed=3)


def test_every_way_has_a_row_of_the_same_keys(found: dict[str, Any]) -> None:
    wanted = {(name, profile) for name in answerer_names() for profile in ("classification", "ner")}
    assert {(row["system"], row["profile"]) for row in found["rows"]} == wanted
    assert all(row.keys() == KEYS for row in found["rows"])
    assert {"processor", "cores", "versions", "shape", "dtype", "rows"} <= found["machine"].keys()


def test_rows_hold_figures_or_say_why_not(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        if row["system"] not in HERE:
            assert row["note"]
            assert row["samples_per_second"] is None
            continue
        assert row["note"] is None
        assert row["low"] <= row["samples_per_second"] <= row["high"]
        assert row["answer_tokens_per_second"] > row["samples_per_second"]
        assert row["first_answer_seconds"] > 0
        assert row["ratio"] == pytest.approx(row["samples_per_second"] / best(found, row["profile"]))


def best(found: dict[str, Any], profile: str) -> float:
    (row,) = [row for row in found["rows"] if (row["system"], row["profile"]) == ("hf_batch", profile)]
    return row["samples_per_second"]


def test_ours_is_the_plain_path(found: dict[str, Any]) -> None:
    assert [row["equal"] for row in found["rows"] if row["system"] in OURS] == [True] * 4
    wanted = [(profile, system) for profile in ("classification", "ner") for system in OURS]
    assert [(one["profile"], one["system"]) for one in found["agreement"]] == wanted
    for one in found["agreement"]:
        assert (one["dtype"], one["rows"], one["same"], one["flipped"]) == ("float32", 6, 1.0, 0.0)
        assert 0 < one["gap"] < 1e-3


def test_the_table_shows_every_way(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(predict_tables(found))
    shown = capture.get()
    assert all(name in shown for name in answerer_names())
    assert "…" not in shown
    assert shown.count("plain path") == 4


@pytest.mark.slow
def test_a_process_of_its_own(tmp_path: Path) -> None:
    """The real one: it answers, counts, and knows its memory."""
    write_tokenizer(tmp_path, "qwen2", TINY)
    with Workers("tiny", CPU) as workers:
        worker = workers.of(answerer_class("tutorial"))
        worker.ask("first", workers.weights(model_maker("tiny", CPU, torch.float32)), drawn("classification", tmp_path))
        block = worker.ask("block", [0, 1], 0.0, 1)
    assert isinstance(block, Block)
    assert block.samples == 2
    assert block.answer_tokens == sum(drawn("classification", tmp_path).answers[:2])
    assert block.peak is None or block.peak > 2**26, "torch alone takes more"


@pytest.mark.parametrize("profile", ["classification", "ner"])
def test_a_spoilt_engine_is_not_equal(
    profile: str, folder: Path, make: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weitiao.engine.fast_layer import FastDecoder

    right = FastDecoder.__call__
    monkeypatch.setattr(FastDecoder, "__call__", lambda self, *told: right(self, *told).roll(1, -1))
    told = agreement(make, drawn(profile, folder), 8)
    assert told["equal"] is False
    assert told["same"] < 1
    request = asked_predict("cpu", "tiny", [profile], ["weitiao"], rows=4, repeats=1, seconds=0)
    (row,) = bench_predict(request, Screen(silent=True))["rows"]
    assert row["equal"] is False


@pytest.mark.parametrize("spoilt", [False, True], ids=["as it is", "spoilt"])
def test_in_16_bits_float32_is_the_judge(folder: Path, monkeypatch: pytest.MonkeyPatch, spoilt: bool) -> None:
    """Of 16 rows, ours or the plain path's differ where random weights hardly decide."""
    from weitiao.engine.fast_layer import FastDecoder

    right = FastDecoder.__call__
    if spoilt:
        monkeypatch.setattr(FastDecoder, "__call__", lambda self, *told: right(self, *told).roll(1, -1))
    told = agreement(model_maker("tiny", CPU, torch.bfloat16), drawn("ner", folder, 16), 16)
    assert told["same"] < 0.999, "the judge is not asked"
    assert told["equal"] is not spoilt
    assert told["off"] > 0.5 if spoilt else told["off"] <= 1.5 * told["plain_off"] + 1 / 16


def test_an_answer_that_depends_on_its_batch_is_not_equal(
    folder: Path, make: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weitiao.prediction.predictor import Predictor

    right = Predictor.answer

    def crowded(self: Any, rows: Any) -> Any:
        first, *others = right(self, rows)
        return [replace(first, text="another") if others else first, *others]

    monkeypatch.setattr(Predictor, "answer", crowded)
    told = agreement(make, drawn("classification", folder), 8)
    assert told["flipped"] == 1 / 8
    assert told["equal"] is False


@pytest.mark.parametrize("profile", PROFILES)
def test_prompts_have_the_profiles_lengths(profile: str, folder: Path) -> None:
    count, wanted = (4 if profile == "documents" else 500), PROFILES[profile]
    asked = drawn(profile, folder, count)
    prefix = len(common_prefix(asked.encoded()))
    assert prefix == wanted.prefix
    if profile != "documents":
        mean = statistics.mean(wanted.text((at + 0.5) / count) for at in range(count))
        assert statistics.mean(len(prompt) - prefix for prompt in asked.prompts) == pytest.approx(mean, rel=0.05)


def test_answers_of_entities_have_the_profiles_length(folder: Path, make: ModelMaker) -> None:
    ours: Any = answerer_class("weitiao")()
    asked = drawn("ner", folder, 200)
    ours.prepare(make, asked)
    tokens = ours.answer_tokens()
    assert statistics.mean(tokens) == pytest.approx(21, rel=0.25)
    texts = [answer.text for answer in ours.predictor.answer(ours.examples)]
    lines = [0 if text == "无" else len(text.split("\n")) for text in texts]
    assert lines == [row["mentions"] for row in asked.rows]


@pytest.mark.parametrize("size", [512, 49_152])
def test_a_text_has_one_spelling(size: int, tmp_path: Path) -> None:
    """Every character is a token, every id is taken."""
    write_tokenizer(tmp_path, "qwen2", size)
    tokenizer = TextTokenizer(tmp_path)
    assert tokenizer.size == size
    for row in questions("classification", tmp_path, "qwen2", size, 20, seed=1).rows:
        for text in (row["text"], *row["options"]):
            ids = tokenizer.encode(text)
            assert len(ids) == len(text)
            assert tokenizer.decode(ids) == text


def test_others_write_as_many_tokens(folder: Path, make: ModelMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = drawn("classification", folder, 6)
    written: list[int] = []
    for name in ("tutorial", "hf_batch"):
        system: Any = answerer_class(name)()
        system.prepare(make, asked)
        system.size = 4
        right = type(system).generate
        seen: list[tuple[list[int], int]] = []

        def spy(self: Any, members: Any, right: Any = right, seen: Any = seen) -> torch.Tensor:
            ids = right(self, members)
            seen.append((list(members), ids.shape[1] - max(len(asked.prompts[at]) for at in members)))
            return ids

        monkeypatch.setattr(type(system), "generate", spy)
        system.answer(range(6))
        assert sorted(at for members, _ in seen for at in members) == list(range(6))
        assert all(new == max(asked.answers[at] for at in members) for members, new in seen)
        written.append(len(seen))
    assert written == [6, 2]


def test_few_rows_stand_for_all(folder: Path) -> None:
    asked = drawn("ner", folder, 64)
    lengths = [len(prompt) + answer for prompt, answer in zip(asked.prompts, asked.answers, strict=True)]
    few = [lengths[at] for at in spread(asked, 8)]
    assert statistics.mean(few) == pytest.approx(statistics.mean(lengths), rel=0.1)
    assert len(spread(drawn("ner", folder, 4), 8)) == 4


def test_sizes_end_with_the_first_that_holds_all_rows() -> None:
    assert tried((8, 16, 32), 12) == [8, 16]
    assert tried((8, 16, 32), 8) == [8]
    assert tried((0,), 5) == [0]


class SmallCard:
    """A worker that has no room for more than 16 rows, and larger batches are faster."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.room = 16

    def ask(self, order: str, *arguments: Any) -> Any:
        self.orders.append(order)
        if order == "block" and arguments[2] > self.room:
            raise torch.cuda.OutOfMemoryError
        return Block(1.0, arguments[2], 16, None) if order == "block" else None


def test_the_largest_batch_that_fits_is_taken(folder: Path) -> None:
    worker: Any = SmallCard()
    lane = Lane("hf_batch", worker, folder, drawn("classification", folder), range(8), [8, 16, 32])
    lane.warm_up()
    assert list(lane.rates) == [8, 16]
    assert worker.orders == ["block", "block", "block", "first"], "it reads its weights again"
    worker.room = 8  # others have come
    lane.block(1.0)
    assert [block.samples for block in lane.blocks] == [8]
    worker.room = 4
    with pytest.raises(torch.cuda.OutOfMemoryError):
        lane.block(1.0)


@pytest.mark.parametrize("option", ["device", "profile", "shape", "system"])
def test_an_unknown_name_is_one_line_with_the_choices(option: str) -> None:
    done = CliRunner().invoke(app, ["bench", "predict", f"--{option}", "nothing"])
    assert isinstance(done.exception, ConfigError)
    assert f"--{option} nothing: no such {option}; choices: " in str(done.exception)


@pytest.mark.parametrize("near", [0.0, 5.0])
def test_labels_in_16_bits_are_those_in_float32(folder: Path, monkeypatch: pytest.MonkeyPatch, near: float) -> None:
    """Where 16 bits are not sure, float32 decides; else the bench finds it out."""
    from weitiao.engine.forward import Forward

    right = Forward.log_probabilities

    def unsure(self: Forward, hidden: torch.Tensor, at: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        found = right(self, hidden, at, tokens)
        return found + torch.sin(100 * found) if hidden.dtype == torch.bfloat16 and self.fast else found

    monkeypatch.setattr(Forward, "log_probabilities", unsure)
    monkeypatch.setattr("weitiao.prediction.predictor.NEAR", near)
    told = agreement(model_maker("tiny", CPU, torch.bfloat16), drawn("classification", folder, 32), 32)
    assert told["equal"] is (near > 0)
    assert (told["same"] == 1) is (near > 0)
