"""Predicting in blocks: few rows in memory, and after a kill, wherever it falls, the output of an uninterrupted run."""

from __future__ import annotations

import csv
import datetime
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from runs import SILENT, lines, run_config, trained
from tiny import small_classification, write_rows
from weitiao.errors import DataError
from weitiao.prediction import draft as drafts
from weitiao.prediction import files, writers
from weitiao.prediction.files import predict_file
from weitiao.prediction.predictor import Predictor
from weitiao.tasks.base import Example
from weitiao.tasks.ner import Ner, NerOptions
from weitiao.tracking.screen import Screen
from weitiao.types import Prediction, Row

FORMATS = (".jsonl", ".csv", ".parquet")
BLOCK = 3


class Killed(BaseException):
    """In place of a signal: nothing of ours may catch it and tidy up."""


class Fake:
    """Answers by the text's length; `asked` has the rows of each block."""

    wants_many = False

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.before: Callable[[], None] = lambda: None

    def answer(self, examples: Sequence[Example], advance: Callable[[int], None], decoding: str) -> list[Prediction]:
        self.before()
        self.asked.append([example.row.line for example in examples])
        advance(len(examples))
        return [Prediction("好评", "好评", 1 / (1 + len(e.text))) for e in examples]


@pytest.fixture(scope="module")
def run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = small_classification(folder / "classification.jsonl")
    return trained(run_config(folder, qwen2_folder, rows, "training.max_steps=1"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    found = Fake()
    monkeypatch.setattr(Predictor, "open", lambda folder: found)
    monkeypatch.setattr(files, "BLOCK_ROWS", BLOCK)
    return found


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": at, "text": "好" * (at % 7 + 1), "more": [at]} for at in range(count)]


def told() -> Screen:
    return Screen(Console(file=io.StringIO(), width=200))


def notes(screen: Screen) -> str:
    return screen.console.file.getvalue()  # type: ignore[attr-defined]


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def same(first: Path, second: Path) -> bool:
    if first.suffix == ".parquet":
        return bool(pq.read_table(first).equals(pq.read_table(second)))
    return first.read_bytes() == second.read_bytes()


@contextmanager
def killed_at(place: str, call: int) -> Iterator[None]:
    """Killed at the `call`-th time (from 0) that a command comes to a place."""
    owner, name = {
        "before the write": (drafts, "_lines"),
        "before the journal": (drafts, "write_json"),
        "after the journal": (drafts, "write_json"),
        "at a sync to the disk": (writers.os, "fsync"),
    }[place]
    true, calls = getattr(owner, name), 0

    def other(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= call:
            return true(*arguments)
        if place == "after the journal":
            true(*arguments)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, other)
        yield


PLACES = ("before the write", "before the journal", "after the journal", "at a sync to the disk")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(FORMATS),
    count=st.integers(1, 11),
    kills=st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 4)), max_size=3),
)
def test_killed_anywhere_and_called_again(
    run: Path, fake: Fake, tmp_path_factory: pytest.TempPathFactory, suffix: str, count: int, kills: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    source = str(write_rows(folder / "in.jsonl", numbered(count)))
    predict_file(run, source, folder / f"whole{suffix}", SILENT, 0.3)
    output = folder / f"out{suffix}"
    for place, call in kills:
        try:
            with killed_at(place, call):
                predict_file(run, source, output, SILENT, 0.3)
        except Killed:
            assert not output.exists()
        else:
            break
    screen = told()
    predict_file(run, source, output, screen, 0.3)
    assert same(output, folder / f"whole{suffix}")
    assert left_over(folder) == []
    withheld = sum(1 / (1 + len(row["text"])) < 0.3 for row in numbered(count))
    assert f"{withheld} of {count} answers withheld" in notes(screen)


@pytest.mark.parametrize("suffix", FORMATS)
def test_only_rows_behind_the_last_whole_block_are_answered_again(
    run: Path, fake: Fake, tmp_path: Path, suffix: str
) -> None:
    source = str(write_rows(tmp_path / "in.jsonl", numbered(8)))
    screen = told()
    with pytest.raises(Killed), killed_at("before the journal", 1):
        predict_file(run, source, tmp_path / f"out{suffix}", screen)
    # Rows behind the journal's last word, and a line that the kill has cut, longer than all that is to come.
    with (tmp_path / f".out{suffix}.partial").open("ab") as file:
        file.write(b'{"id": 6, "te' + b"x" * 10_000)
    fake.asked.clear()
    predict_file(run, source, tmp_path / f"out{suffix}", screen)
    assert fake.asked == [[4, 5, 6], [7, 8]]
    assert "going on behind row 3 of 8" in notes(screen)
    predict_file(run, source, tmp_path / f"whole{suffix}", SILENT)
    assert same(tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}")


def test_on_a_card_blocks_are_large_and_end_where_they_would_have(
    run: Path, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.wants_many = True
    monkeypatch.setattr(files, "ON_A_CARD", 2)
    source, output = str(write_rows(tmp_path / "in.jsonl", numbered(20))), tmp_path / "out.jsonl"
    blocks = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15], [16, 17, 18, 19, 20]]
    with pytest.raises(Killed), killed_at("before the journal", 2):
        predict_file(run, source, output, SILENT)
    assert fake.asked == blocks[:3]
    fake.asked.clear()
    predict_file(run, source, output, SILENT)
    assert fake.asked == blocks[2:]


def stopped(run: Path, tmp_path: Path, blocks: int = 2) -> Path:
    """A folder whose output has lost its command behind so many blocks of 8 rows."""
    write_rows(tmp_path / "in.jsonl", numbered(8))
    with pytest.raises(Killed), killed_at("before the write", blocks):
        predict_file(run, str(tmp_path / "in.jsonl"), tmp_path / "out.jsonl", SILENT)
    return tmp_path


def changed_row(folder: Path) -> None:
    write_rows(folder / "in.jsonl", [{**numbered(8)[0], "more": "changed"}, *numbered(8)[1:]])


def fewer_rows(folder: Path) -> None:
    write_rows(folder / "in.jsonl", numbered(4))


def lost_draft(folder: Path) -> None:
    (folder / ".out.jsonl.partial").write_text("")


@pytest.mark.parametrize("change", [changed_row, fewer_rows, lost_draft])
def test_another_input_starts_anew(run: Path, fake: Fake, tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(stopped(run, tmp_path))
    fake.asked.clear()
    screen = told()
    predict_file(run, str(tmp_path / "in.jsonl"), tmp_path / "out.jsonl", screen)
    assert fake.asked[0] == [1, 2, 3]
    assert "starting anew" in notes(screen)
    found = [{key: row[key] for key in ("id", "text", "more")} for row in lines(tmp_path / "out.jsonl")]
    assert found == lines(tmp_path / "in.jsonl")


def test_another_option_or_run_starts_anew(run: Path, fake: Fake, tmp_path: Path) -> None:
    source, output = str(stopped(run, tmp_path) / "in.jsonl"), tmp_path / "out.jsonl"
    fake.asked.clear()
    with pytest.raises(Killed), killed_at("before the write", 2):
        predict_file(run, source, output, SILENT, 0.5)
    assert fake.asked[0] == [1, 2, 3]
    fake.asked.clear()
    with pytest.raises(Killed), killed_at("before the write", 2):
        predict_file(run, source, output, SILENT, 0.5, decoding="greedy")
    assert fake.asked[0] == [1, 2, 3]
    path = run / "adapter" / "task.json"
    before = path.read_text("utf-8")
    try:
        path.write_text(json.dumps({**json.loads(before), "temperature": 3.0}), "utf-8")
        fake.asked.clear()
        predict_file(run, source, output, SILENT, 0.5, decoding="greedy")
    finally:
        path.write_text(before, "utf-8")
    assert fake.asked[0] == [1, 2, 3]


def test_rows_corrected_or_added_behind_the_kept_ones_go_on(run: Path, fake: Fake, tmp_path: Path) -> None:
    source = stopped(run, tmp_path) / "in.jsonl"
    rows = [*numbered(7), {"id": 7, "text": "corrected"}, {"id": 8, "text": "added"}]
    write_rows(source, rows)
    fake.asked.clear()
    predict_file(run, str(source), tmp_path / "out.jsonl", SILENT)
    assert fake.asked == [[7, 8, 9]]
    assert [row["text"] for row in lines(tmp_path / "out.jsonl")] == [row["text"] for row in rows]


def test_an_error_says_what_is_kept(run: Path, fake: Fake, tmp_path: Path) -> None:
    source = str(write_rows(tmp_path / "in.jsonl", numbered(8)))

    def fail() -> None:
        if len(fake.asked) == 2:
            raise KeyboardInterrupt

    fake.before = fail
    screen = told()
    with pytest.raises(KeyboardInterrupt):
        predict_file(run, source, tmp_path / "out.csv", screen)
    assert "6 answered rows are kept; the same command goes on" in notes(screen)


def test_few_rows_are_in_memory(run: Path, fake: Fake, tmp_path: Path) -> None:
    source = str(write_rows(tmp_path / "in.jsonl", numbered(40)))
    alive: list[int] = []

    def count() -> None:
        gc.collect()
        alive.append(sum(issubclass(type(found), Example) and found.row.file == source for found in gc.get_objects()))

    fake.before = count
    predict_file(run, source, tmp_path / "out.parquet", SILENT)
    assert len(alive) == 14
    assert 0 < max(alive) <= 2 * BLOCK


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx"])
@pytest.mark.parametrize("output", FORMATS)
def test_every_format_in_and_out_keeps_the_columns(
    run: Path, fake: Fake, tmp_path: Path, suffix: str, output: str
) -> None:
    source = tmp_path / f"in{suffix}"
    table = [["note", "text", "last"], *([f"n{at}", "好" * (at + 1), f"l{at}"] for at in range(5))]
    records = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    if suffix in (".csv", ".tsv"):
        with source.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="," if suffix == ".csv" else "\t").writerows(table)
    elif suffix == ".xlsx":
        from openpyxl import Workbook

        book = Workbook()
        for row in table:
            book.active.append(row)
        book.save(source)
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), source)
    elif suffix == ".json":
        source.write_text(json.dumps(records), "utf-8")
    else:
        write_rows(source, records)
    predict_file(run, str(source), tmp_path / f"out{output}", SILENT)
    chances = [1 / (2 + at) for at in range(len(records))]
    if output == ".csv":
        chances = [round(chance, 6) for chance in chances]
    wanted = [{**r, "prediction": "好评", "probability": p} for r, p in zip(records, chances, strict=True)]
    assert read(tmp_path / f"out{output}") == wanted


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return lines(path)
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{**row, "probability": float(row["probability"])} for row in csv.DictReader(file)]


def test_a_parquet_input_keeps_its_types(run: Path, fake: Fake, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(writers, "ROW_GROUP", 2)
    schema = pa.schema(
        [
            ("day", pa.date32()),
            ("text", pa.string()),
            ("few", pa.int8()),
            ("parts", pa.list_(pa.struct([("a", pa.int32())]))),
            ("prediction", pa.int64()),
        ]
    )
    days = [datetime.date(2024, 1, at + 1) for at in range(5)]
    rows = [{"day": day, "text": "好", "few": 1, "parts": [{"a": 2}], "prediction": 4} for day in days]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "in.parquet")
    predict_file(run, str(tmp_path / "in.parquet"), tmp_path / "out.parquet", SILENT)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.names == [*schema.names, "probability"]
    assert [found.schema.field(name).type for name in schema.names[:4]] == schema.types[:4]
    assert found.to_pylist() == [{**row, "prediction": "好评", "probability": 0.5} for row in rows]


def test_types_of_a_parquet_output(run: Path, fake: Fake, tmp_path: Path) -> None:
    """Of rows that are not Parquet; the last one decides as much as the first."""
    texts = {"text": "好"}
    first = {**texts, "whole": 1, "number": 1, "mixed": 1, "huge": 1, "long": 2**60, "off": 2**60, "flag": True}
    last = {
        **texts,
        "whole": 2,
        "number": 1.5,
        "mixed": "x",
        "huge": 2**70,
        "long": 1,
        "off": 1.5,
        "nested": {"a": [1]},
    }
    source = write_rows(tmp_path / "in.jsonl", [first, *[texts] * 4, last])
    predict_file(run, str(source), tmp_path / "out.parquet", SILENT)
    found = pq.read_table(tmp_path / "out.parquet")
    kinds = {field.name: str(field.type) for field in found.schema}
    assert {name: kinds[name] for name in ("whole", "long", "number", "flag", "probability")} == {
        "whole": "int64",
        "long": "int64",
        "number": "double",
        "flag": "bool",
        "probability": "double",
    }
    assert {kinds[name] for name in ("mixed", "huge", "off", "nested", "prediction")} == {"string"}
    table = found.to_pylist()
    assert (table[0]["mixed"], table[-1]["mixed"]) == ("1", "x")
    assert (table[0]["off"], table[-1]["huge"]) == (str(2**60), str(2**70))
    assert (table[0]["nested"], table[-1]["nested"]) == (None, '{"a": [1]}')
    assert table[1]["whole"] is None


@pytest.mark.parametrize("suffix", FORMATS)
def test_standard_input_into_a_file(
    run: Path, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Nothing is kept of it, and what was kept of a file under the same name does not come back."""
    rows = numbered(8)
    given = "".join(json.dumps(row) + "\n" for row in rows).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given + b"{broken\n")))
    with pytest.raises(DataError, match="standard input:9"):
        predict_file(run, "-", tmp_path / f"out{suffix}", SILENT)
    assert fake.asked
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    predict_file(run, "-", tmp_path / f"out{suffix}", SILENT)
    assert [row["text"] for row in read(tmp_path / f"out{suffix}")] == [row["text"] for row in rows]
    assert left_over(tmp_path) == []


def test_a_dash_is_standard_output(run: Path, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(write_rows(tmp_path / "in.jsonl", numbered(8)))
    printed: list[int] = []
    fake.before = lambda: printed.append(capsys.readouterr().out.count("\n"))
    predict_file(run, source, Path("-"), SILENT)
    assert printed == [0, 3, 3]
    assert capsys.readouterr().out.count("\n") == 2


SLOW = """
import time
from weitiao import cli
from weitiao.prediction import files
from weitiao.prediction.predictor import Predictor
files.BLOCK_ROWS = 3
answer = Predictor.answer
Predictor.answer = lambda *given: (time.sleep(PAUSE), answer(*given))[1]
cli.main()
"""


@pytest.mark.slow
def test_a_process_that_was_really_killed(run: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", numbered(12))

    def command(pause: float, output: str) -> subprocess.Popen[bytes]:
        script = SLOW.replace("PAUSE", str(pause))
        arguments = ["predict", str(run), "in.jsonl", "-o", output]
        return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=tmp_path, stderr=subprocess.PIPE)

    running = command(1, "out.csv")
    try:
        journal = tmp_path / ".out.csv.partial.json"
        while not journal.exists() and running.poll() is None:
            time.sleep(0.01)
    finally:
        os.kill(running.pid, signal.SIGKILL)
    assert running.communicate()[1].count(b"Traceback") == 0
    assert running.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.csv").exists()
    kept = json.loads(journal.read_text("utf-8"))["rows"]
    assert 0 < kept < 12
    again = command(0, "out.csv")
    error = again.communicate(timeout=120)[1].decode()
    assert again.returncode == 0, error
    assert f"going on behind row {kept} of 12" in error
    assert command(0, "whole.csv").wait(timeout=120) == 0
    assert same(tmp_path / "out.csv", tmp_path / "whole.csv")
    assert left_over(tmp_path) == []


INTERRUPTED = """
from weitiao import cli
from weitiao.prediction import draft, files
files.BLOCK_ROWS = 3
write = draft.write_json
def interrupted(*given):
    write(*given)
    raise KeyboardInterrupt
draft.write_json = interrupted
cli.main()
"""


def test_ctrl_c_says_that_the_same_command_goes_on(run: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", numbered(8))
    command = [sys.executable, "-c", INTERRUPTED, "predict", str(run), "in.jsonl", "-o", "out.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        "3 answered rows are kept; the same command goes on behind them",
        "weitiao: interrupted",
    ]


def test_a_journal_of_another_draft_is_not_believed(tmp_path: Path) -> None:
    """A command killed, then one that keeps nothing over the same output killed too, then the first again."""
    output = tmp_path / "answers.jsonl"
    examples = [
        Ner(NerOptions(types=["a"])).example(Row({"text": str(at)}, "rows", at), labelled=False) for at in range(3)
    ]
    for belongs in ({"run": 1}, None):
        draft = drafts.Draft(output, belongs)
        draft.check(iter(examples))
        draft.open()
        draft.add(examples[:2], [{"text": f"of {belongs}" * (1 if belongs else 9)}] * 2, 0)
        draft._file.flush()  # and is killed: nothing is closed
    again = drafts.Draft(output, {"run": 1})
    again.check(iter(examples))
    assert again.rows == 0
