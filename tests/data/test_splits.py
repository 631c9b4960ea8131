"""No text in two splits, nothing lost, every class in train, and the shares that were asked for."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.config import DataSection
from weitiao.data import splits as module
from weitiao.data.splits import Splits, fingerprint, hold_out, load, text_key
from weitiao.errors import ConfigError, DataError
from weitiao.tasks.base import Example, Task, TaskOptions
from weitiao.types import Constraint, Message, Prediction, Row

Pairs = Sequence[tuple[str, str]]


class LabelOptions(TaskOptions):
    labels: list[str] = []


class LabelTask(Task):
    """The least that a task with labels does."""

    Options = LabelOptions
    headline = "accuracy"
    fields = {"text": ("text",), "label": ("label",)}

    @classmethod
    def resolve(cls, options: Any, rows: Sequence[Row]) -> Any:
        labels = sorted({str(cls.field(row, "label")) for row in rows})
        return super().resolve(options, rows).model_copy(update={"labels": labels})

    def example(self, row: Row, labelled: bool = True) -> Example:
        label = self.field(row, "label")
        if label not in self.options.labels:
            raise DataError(f"{row.place}: label {label!r} is outside the label set")
        return Example(row, self.text_of(row), label)

    def stratum(self, example: Example) -> str:
        return str(example.answer)

    def prompt(self, example: Example) -> tuple[Message, ...]:
        return (Message.of("user", example.text),)

    def target(self, answer: Any) -> str:
        return str(answer)

    def parse(self, text: str, example: Example) -> Any:
        return text

    def constraint(self, example: Example, normalize: Callable[[str], str]) -> Constraint:
        raise NotImplementedError

    def record(self, answer: Any) -> Any:
        return answer

    def read_record(self, record: Any) -> Any:
        return record

    def named(self, answer: Any) -> tuple[str, ...]:
        return (answer,)

    def counts(self, answers: Sequence[Any], examples: Sequence[Example]) -> Any:
        raise NotImplementedError

    def measure(
        self, predictions: Sequence[Prediction], examples: Sequence[Example], *, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        return {}


OPTIONS = LabelOptions(name="label")
TASK = LabelTask(OPTIONS)


@pytest.fixture(autouse=True)
def _label_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "task_class", lambda name: LabelTask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splits")


def write(path: Path, pairs: Pairs, **more: Sequence[str]) -> str:
    rows = [
        {"text": text, "label": label} | {k: v[i] for k, v in more.items()} for i, (text, label) in enumerate(pairs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def examples_of(pairs: Pairs) -> list[Example]:
    return [Example(Row({}, "f", i), text, label) for i, (text, label) in enumerate(pairs, 1)]


def named(splits: Splits) -> dict[str, list[Example]]:
    return {name: getattr(splits, name) for name in ("train", "validation", "test")}


def assert_no_text_in_two(splits: Splits) -> None:
    keys = {name: {text_key(e.text) for e in examples} for name, examples in named(splits).items()}
    assert not keys["train"] & keys["validation"]
    assert not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]


def assert_in_file_order(splits: Splits) -> None:
    for examples in named(splits).values():
        lines = [e.row.line for e in examples]
        assert lines == sorted(lines)


TEXTS = st.sampled_from(["a", " a", "ａ", "a  b", "a\tb", "b", "c", "d", "é", "e\u0301", "f", "g", "h", "i"])
PAIRS = st.lists(st.tuples(TEXTS, st.sampled_from("xyz")), min_size=1, max_size=25)
SHARES = st.sampled_from([0.1, 0.25, 0.4])
SEEDS = st.integers(0, 5)


@settings(max_examples=80, deadline=None)
@given(pairs=PAIRS, validation=SHARES | PAIRS | st.none(), test=SHARES | PAIRS | st.none(), seed=SEEDS)
def test_no_text_is_in_two_splits(folder: Path, pairs: Pairs, validation: Any, test: Any, seed: int) -> None:
    every_label = [(f"label {label}", label) for label in "xyz"]
    train = write(folder / "train.jsonl", [*pairs, *every_label])
    other = {
        name: write(folder / f"{name}.jsonl", value) if isinstance(value, list) else value
        for name, value in (("validation", validation), ("test", test))
    }
    data = DataSection(train=train, **other)
    try:
        _, splits = load(data, OPTIONS, seed)
    except DataError as error:
        # The rows drawn here may be too few for what is asked.
        assert re.search("gives no (validation|test) rows|no validation rows remain", str(error))  # noqa: PT017
        return
    assert_no_text_in_two(splits)
    assert_in_file_order(splits)
    assert all(examples or other.get(name) is None for name, examples in named(splits).items() if name != "train")
    assert splits.train
    if not (isinstance(validation, list) or isinstance(test, list)):
        assert sum(map(len, named(splits).values())) == len(pairs) + 3, "a row was lost"


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, st.sampled_from(["train", "dev", "test"])), min_size=1, max_size=25))
def test_no_text_is_in_two_splits_of_a_field(folder: Path, rows: Pairs) -> None:
    rows = [*rows, ("only train", "train"), ("only dev", "dev"), ("only test", "test")]
    path = write(folder / "field.jsonl", [(text, "x") for text, _ in rows], part=[part for _, part in rows])
    _, splits = load(DataSection(train=path, split_field="part"), OPTIONS, 0)
    assert_no_text_in_two(splits)
    assert len(splits.test) == sum(part == "test" for _, part in rows), "test keeps its rows"
    tested = {text_key(text) for text, part in rows if part == "test"}
    kept = [text for text, part in rows if part == "dev" and text_key(text) not in tested]
    assert [e.text for e in splits.validation] == kept


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=12), min_size=1, max_size=8),
    validation=SHARES,
    test=SHARES,
    seed=SEEDS,
)
def test_every_class_stays_in_train(sizes: list[list[int]], validation: float, test: float, seed: int) -> None:
    pairs = [
        (f"{c} {g}", str(c)) for c, groups in enumerate(sizes) for g, rows in enumerate(groups) for _ in range(rows)
    ]
    held = hold_out(examples_of(pairs), {"test": test, "validation": validation}, TASK, seed)
    out = held["test"] | held["validation"]
    assert len(out) == len(held["test"]) + len(held["validation"])
    left = {label for position, (_, label) in enumerate(pairs) if position not in out}
    assert left >= {str(c) for c, groups in enumerate(sizes) if len(groups) > 1}
    assert left, "nothing left to train on"


@settings(max_examples=80, deadline=None)
@given(pairs=PAIRS, share=st.floats(0.01, 0.99), seed=SEEDS)
def test_a_share_is_empty_only_when_there_is_one_text(pairs: Pairs, share: float, seed: int) -> None:
    held = hold_out(examples_of(pairs), {"validation": share}, TASK, seed)["validation"]
    assert bool(held) == (len({text_key(text) for text, _ in pairs}) > 1)
    assert len(held) < len(pairs)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(4, 60), min_size=1, max_size=8),
    validation=st.floats(0.05, 0.3),
    test=st.floats(0.05, 0.3),
    seed=SEEDS,
)
def test_shares_are_exact_and_stratified_for_distinct_texts(
    counts: list[int], validation: float, test: float, seed: int
) -> None:
    pairs = [(f"{c} {i}", str(c)) for c, count in enumerate(counts) for i in range(count)]
    held = hold_out(examples_of(pairs), {"test": test, "validation": validation}, TASK, seed)
    for name, share in (("test", test), ("validation", validation)):
        assert len(held[name]) == max(1, round(share * len(pairs)))
        by_class = Counter(pairs[position][1] for position in held[name])
        for c, count in enumerate(counts):
            assert abs(by_class[str(c)] - share * count) <= 2, (
                f"class {c} of {count}: {by_class[str(c)]}, share {share}"
            )


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=10, max_size=40), share=SHARES, seed=SEEDS)
def test_share_is_close_when_texts_repeat(sizes: list[int], share: float, seed: int) -> None:
    pairs = [(f"{g}", "x") for g, rows in enumerate(sizes) for _ in range(rows)]
    held = hold_out(examples_of(pairs), {"test": share}, TASK, seed)["test"]
    assert abs(len(held) - share * len(pairs)) <= max(sizes) / 2 + 0.5


def test_share_is_overshot_when_that_comes_closer() -> None:
    pairs = [(f"{i // 3}", "x") for i in range(36)]
    assert len(hold_out(examples_of(pairs), {"test": 5 / 36}, TASK, 0)["test"]) == 6
    assert len(hold_out(examples_of(pairs), {"test": 4 / 36}, TASK, 0)["test"]) == 3


def test_small_classes_take_turns_and_single_texts_stay() -> None:
    pairs = [(f"{c} {i}", f"class {c}") for c in range(10) for i in range(5)] + [
        (f"once {i}", f"rare {i}") for i in range(4)
    ]
    turns = [hold_out(examples_of(pairs), {"validation": 0.1}, TASK, seed)["validation"] for seed in range(10)]
    assert all(len(held) == 5 for held in turns)
    assert not any(pairs[position][1].startswith("rare") for held in turns for position in held)
    assert len({pairs[position][1] for held in turns for position in held}) == 10


def test_many_single_texts_give_their_share() -> None:
    pairs = [(f"{i}", f"combination {i}") for i in range(200)] + [(f"common {i}", "common") for i in range(200)]
    held = hold_out(examples_of(pairs), {"test": 0.1}, TASK, 0)["test"]
    assert len(held) == 40
    assert 18 <= sum(pairs[position][1] != "common" for position in held) <= 22


def test_seed_decides_the_split(folder: Path) -> None:
    path = write(folder / "seeds.jsonl", [(f"{i}", "xy"[i % 2]) for i in range(60)])
    data = DataSection(train=path, validation=0.2, test=0.2)
    lines = [
        [[e.row.line for e in part] for part in named(load(data, OPTIONS, seed)[1]).values()] for seed in (1, 1, 2)
    ]
    assert lines[0] == lines[1]
    assert lines[0] != lines[2]


def test_task_is_resolved_from_training_rows_only(folder: Path) -> None:
    train = write(folder / "a.jsonl", [("a", "x"), ("b", "y")])
    test = write(folder / "b.jsonl", [("c", "x"), ("d", "unseen")])
    with pytest.raises(DataError, match=r"b\.jsonl:2: label 'unseen' is outside the label set"):
        load(DataSection(train=train, validation=None, test=test), OPTIONS, 0)
    task, _ = load(DataSection(train=train, validation=None), OPTIONS, 0)
    assert task.options.labels == ["x", "y"]
    assert task.options.language == "en"


def test_notes_on_shared_repeated_and_contradicting_rows(folder: Path) -> None:
    pairs = [
        ("a", "x"),
        ("leak", "x"),
        ("a", "x"),
        ("b", "x"),
        ("ｂ", "y"),
        ("l  eak", "y"),
        ("leak ", "x"),
        ("val", "x"),
    ]
    train = write(folder / "train.jsonl", pairs)
    validation = write(folder / "val.jsonl", [("val", "x"), ("leak", "x"), ("v", "y")])
    test = write(folder / "test.jsonl", [("leak", "x"), ("t", "y")])
    _, splits = load(DataSection(train=train, validation=validation, test=test), OPTIONS, 0)
    assert splits.notes == [
        f"1 validation row left out, as the test file has the same text (first {validation}:2)",
        f"2 training rows left out, as the test file has the same text (first {train}:2)",
        f"1 training row left out, as the validation file has the same text (first {train}:8)",
    ]
    assert splits.repeats == [
        f"kept with the text and answer of an earlier one: 1 training row (first {train}:3)",
        f"training texts with different answers: 1 (first {train}:4 and {train}:5)",
    ]
    assert [e.text for e in splits.train] == ["a", "a", "b", "ｂ", "l  eak"]


def test_clean_data_has_no_notes(folder: Path) -> None:
    path = write(folder / "clean.jsonl", [(f"{i}", "x") for i in range(30)])
    splits = load(DataSection(train=path, test=0.2), OPTIONS, 0)[1]
    assert (splits.notes, splits.repeats) == ([], [])


def test_limits_draw_evenly_and_keep_the_order(folder: Path) -> None:
    path = write(folder / "many.jsonl", [(f"{i}", "y" if i < 100 else "x") for i in range(400)])
    data = DataSection(train=path, validation=0.25, test=0.25, train_rows=40, validation_rows=20, test_rows=1000)
    _, splits = load(data, OPTIONS, 3)
    assert [len(part) for part in named(splits).values()] == [40, 20, 100]
    assert abs(sum(e.answer == "y" for e in splits.train) - 10) <= 1
    assert_in_file_order(splits)
    assert splits.notes == [
        "20 validation rows of 100 used (data.validation_rows=20)",
        "40 training rows of 200 used (data.train_rows=40)",
    ]
    other = load(data, OPTIONS, 4)[1]
    assert [e.row.line for e in other.train] != [e.row.line for e in splits.train]


@pytest.mark.parametrize("spelling", ["validation", "valid", "val", "dev", "eval", "Dev ", "VALIDATION"])
def test_split_field_replaces_shares(folder: Path, spelling: str) -> None:
    path = write(folder / "f.jsonl", [("a", "x"), ("b", "x"), ("c", "x")], part=["train", spelling, "train"])
    _, splits = load(DataSection(train=path, validation="no-such-file.csv", test=0.5, split_field="part"), OPTIONS, 0)
    assert [[e.text for e in part] for part in named(splits).values()] == [["a", "c"], ["b"], []]


def test_split_field_errors(folder: Path) -> None:
    path = write(folder / "f.jsonl", [("a", "x"), ("b", "x")], part=["train", "tset"], late=["test", "dev"])
    with pytest.raises(DataError, match=r"f\.jsonl:2: 'part' is 'tset'; wanted train, validation or test"):
        load(DataSection(train=path, split_field="part"), OPTIONS, 0)
    with pytest.raises(
        DataError, match=r"f\.jsonl:1: no field 'split' \(data\.split_field\); it has text, label, part"
    ):
        load(DataSection(train=path, split_field="split"), OPTIONS, 0)
    with pytest.raises(DataError, match=r"f\.jsonl: no row's 'late' is 'train'"):
        load(DataSection(train=path, split_field="late"), OPTIONS, 0)


def test_empty_splits_are_errors(folder: Path) -> None:
    one = write(folder / "one.jsonl", [("a", "x"), (" a", "x")])
    same = write(folder / "same.jsonl", [("a", "x")])
    with pytest.raises(DataError, match=r"one\.jsonl: data\.validation=0\.1 gives no validation rows"):
        load(DataSection(train=one), OPTIONS, 0)
    with pytest.raises(
        DataError, match=r"one\.jsonl: no training rows remain \(2 training rows left out, as the test file"
    ):
        load(DataSection(train=one, test=same), OPTIONS, 0)
    two = write(folder / "two.jsonl", [("a", "x"), ("b", "x")])
    with pytest.raises(DataError, match=r"one\.jsonl: no validation rows remain \(2 validation rows left out"):
        load(DataSection(train=two, validation=one, test=same), OPTIONS, 0)
    with pytest.raises(ConfigError, match=r"data\.validation` \+ `data\.test` = 1\.1"):
        load(DataSection(train=two, validation=0.5, test=0.6), OPTIONS, 0)
    _, splits = load(DataSection(train=two, validation=0.9), OPTIONS, 0)
    assert (len(splits.train), len(splits.validation)) == (1, 1)


def test_fingerprint_covers_the_files_that_are_read(folder: Path) -> None:
    train, test = write(folder / "x.jsonl", [("a", "x")]), write(folder / "y.jsonl", [("b", "x")])
    data = DataSection(train=train, test=test)
    assert fingerprint(data) == {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (train, test)}
    before = fingerprint(data)[test]
    write(Path(test), [("c", "x")])
    assert fingerprint(data)[test] != before
    assert list(fingerprint(DataSection(train=train, test=test, split_field="part"))) == [train]
    with pytest.raises(DataError, match=r"z\.jsonl: no such file"):
        fingerprint(DataSection(train=str(folder / "z.jsonl")))
