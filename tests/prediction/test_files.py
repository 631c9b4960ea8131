"""Files in, files out: the input's own fields stay, a half-written output is never left."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

import weitiao
from runs import SILENT, lines, run_config, trained
from tiny import small_classification, small_ner, write_rows
from weitiao.errors import DataError
from weitiao.prediction.evaluate import evaluate
from weitiao.prediction.files import predict_file
from weitiao.prediction.writers import write
from weitiao.tracking.screen import Screen
from weitiao.training.train import train


@pytest.fixture(scope="module")
def run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = small_classification(folder / "classification.jsonl")
    return trained(run_config(folder, qwen2_folder, rows, "training.max_steps=2"))


@pytest.fixture(scope="module")
def ner_run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ner")
    rows = small_ner(folder / "ner.jsonl")
    return trained(run_config(folder, qwen2_folder, rows, "training.max_steps=2"))


ROWS = [{"id": 1, "text": "手机很好", "more": {"a": [1, None]}}, {"id": 2, "text": "酒店太差了，\n非常失望"}]


def test_jsonl_to_jsonl(run: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    predict_file(run, str(source), tmp_path / "out.jsonl", SILENT)
    found = lines(tmp_path / "out.jsonl")
    for row, told in zip(ROWS, found, strict=True):
        assert list(told) == [*row, "prediction", "probability"]
        assert {key: told[key] for key in row} == row
        assert told["prediction"] in ("好评", "差评")
        assert 0.5 <= told["probability"] <= 1


def test_csv_to_csv(run: Path, tmp_path: Path) -> None:
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["number", "text", "note"], ["1", '手机"很好", 真的', "a,b"], ["2", "酒店\n太差了", ""]])
    predict_file(run, str(tmp_path / "in.csv"), tmp_path / "out.csv", SILENT)
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    assert [list(row) for row in found] == [["number", "text", "note", "prediction", "probability"]] * 2
    assert [(row["number"], row["text"], row["note"]) for row in found] == [
        ("1", '手机"很好", 真的', "a,b"),
        ("2", "酒店\n太差了", ""),
    ]
    assert all(row["prediction"] in ("好评", "差评") and 0.5 <= float(row["probability"]) <= 1 for row in found)


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize(("usual", "came"), [("gb18030", "utf-8"), ("utf-8", "gb18030"), ("gb18030", "utf-16")])
def test_a_file_of_another_encoding(
    qwen2_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], usual: str, came: str, said: bool
) -> None:
    """A run of rows in one encoding is asked rows in another, as UTF-8 read as GB18030 would be other characters."""
    labelled = [(row["text"], row["label"]) for row in lines(small_classification(tmp_path / "rows.jsonl"))]

    def table(name: str, encoding: str, rows: list[tuple[str, ...]]) -> Path:
        path = tmp_path / name
        path.write_text("".join(",".join(row) + "\n" for row in rows), encoding)
        return path

    known = table("rows.csv", usual, [("text", "label"), *labelled])
    set_ = [f"data.encoding={usual}"] if said else []
    config = run_config(tmp_path, qwen2_folder, known, "training.max_steps=1", *set_)
    train(config, screen=Screen())
    run, told = config.folder, f"rows.csv: read as {usual}"
    assert (told in "".join(capsys.readouterr().err.split("\n"))) is (usual != "utf-8" and not said)
    texts = ["这个手机很好用我们都喜欢", "酒店太差了非常失望再也不来"]
    new = table("new.csv", came, [("text",), *((text,) for text in texts)])
    predict_file(run, str(new), tmp_path / "out.jsonl", Screen())
    assert [row["text"] for row in lines(tmp_path / "out.jsonl")] == texts
    assert f"read as {came}; the run's own rows were {usual}" in " ".join(capsys.readouterr().err.split())
    other = table("other.csv", came, [("text", "label"), *((text, "好评") for text in texts)])
    assert evaluate(run, other)["rows"] == 2


@pytest.fixture(scope="module")
def renamed_run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of rows with columns of their own names."""
    folder = tmp_path_factory.mktemp("renamed")
    told = lines(small_classification(folder / "plain.jsonl"))
    rows = write_rows(folder / "rows.jsonl", [{"评论": row["text"], "评价": row["label"]} for row in told])
    columns = "data.columns={text: 评论, label: 评价}"
    return trained(run_config(folder, qwen2_folder, rows, "training.max_steps=1", columns))


@pytest.mark.parametrize(
    ("row", "note"),
    [
        ({"评论": "手机很好", "评价": "好评"}, ""),
        (
            {"text": "手机很好", "label": "好评"},
            "no column '评论' or '评价', which the run's own rows have; read 'text' as text, ",
        ),
        (
            {"评论": "手机很好", "label": "好评"},
            "no column '评价', which the run's own rows have; read 'label' as label",
        ),
        (
            {"sentence": "手机很好", "评价": "好评"},
            "no column '评论', which the run's own rows have; read 'sentence' as text",
        ),
    ],
)
def test_standard_names_are_measured_where_the_runs_are_missing(
    renamed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, str], note: str
) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [row] * 2)
    found = evaluate(renamed_run, source, screen=Screen())
    assert found["rows"] == 2
    told = capsys.readouterr().err
    assert (note in told) if note else ("no column" not in told)


def test_standard_names_are_answered_where_the_runs_are_missing(
    renamed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"text": "手机很好", "label": "好评"}, {"text": "书很好"}])
    predict_file(renamed_run, str(source), tmp_path / "out.jsonl", Screen())
    first, second = lines(tmp_path / "out.jsonl")
    assert (first["text"], first["reference"]) == ("手机很好", "好评")
    assert "reference" not in second
    assert capsys.readouterr().err.count("no column '评论' or '评价', which the run's own rows have") == 1
    [answer] = weitiao.load(renamed_run, device="cpu").predict([{"text": "手机很好"}])
    assert answer.answer == first["prediction"]
    given = '书很好\n{"text": "手机很好"}\n{"text": "书很好"}\n{"评论": "手机很好"}\n'
    done = command("predict", str(renamed_run), "-", given=given.encode())
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr.decode().count("standard input:2: no column '评论', which the run's own rows have") == 1


def test_a_column_of_another_meaning_is_left_alone(renamed_run: Path, tmp_path: Path) -> None:
    """Rows that can be answered by the run's columns are, whatever else they hold."""
    source = write_rows(tmp_path / "rows.jsonl", [{"评论": "手机很好", "label": "seen", "text": 7}])
    predict_file(renamed_run, str(source), tmp_path / "out.jsonl", SILENT)
    assert "reference" not in lines(tmp_path / "out.jsonl")[0]


def test_neither_the_runs_names_nor_the_standard_ones(renamed_run: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"内容": "手机很好", "类别": "好评"}])
    wanted = r"rows\.jsonl:1: no column '评论' .*; it has 内容, 类别: rename the right one to '评论'"
    with pytest.raises(DataError, match=wanted):
        evaluate(renamed_run, source)
    with pytest.raises(DataError, match=wanted):
        predict_file(renamed_run, str(source), None, SILENT)


def test_a_column_stands_for_one_field(qwen2_folder: Path, tmp_path: Path) -> None:
    told = lines(small_classification(tmp_path / "plain.jsonl"))
    rows = write_rows(tmp_path / "rows.jsonl", [{"output": row["text"], "评价": row["label"]} for row in told])
    columns = "data.columns={text: output, label: 评价}"
    run = trained(run_config(tmp_path, qwen2_folder, rows, "training.max_steps=1", columns))
    source = write_rows(tmp_path / "new.jsonl", [{"output": "手机很好"}])
    with pytest.raises(DataError, match=r"no column '评价' \(data\.columns\.label\); it has output"):
        evaluate(run, source)


def test_entities_by_their_standard_names(
    qwen2_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standard = small_ner(tmp_path / "standard.jsonl", rows=16)
    told = [{"句子": row["text"], "实体": row["entities"]} for row in lines(standard)]
    rows = write_rows(tmp_path / "ner.jsonl", told)
    columns = "data.columns={text: 句子, entities: 实体}"
    run = trained(run_config(tmp_path, qwen2_folder, rows, "training.max_steps=1", columns))
    assert evaluate(run, standard, screen=Screen())["rows"] == 16
    assert "read 'text' as text, 'entities' as entities" in capsys.readouterr().err


def test_a_csv_of_entities(ner_run: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "王小明住在南京。"}])
    predict_file(ner_run, str(source), tmp_path / "out.csv", SILENT)
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert isinstance(json.loads(row["prediction"]), list)


def test_probabilities_in_a_csv_have_six_digits(tmp_path: Path) -> None:
    """Those of the answers, and no figure of the row's own."""
    p = 0.12345678901234567
    record = {
        "score": p,
        "prediction": [{"type": "人名", "probability": p}],
        "suggestion": "好评",
        "probability": p / 1e5,
        "top": [{"label": "好评", "probability": p}],
    }
    for output in ("out.csv", "out.jsonl", "out.parquet"):
        draft = write_rows(tmp_path / "draft", [record])
        write(draft, tmp_path / output, None)
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert (float(row["score"]), row["suggestion"], row["probability"]) == (p, "好评", "1.23457e-06")
    assert json.loads(row["prediction"]) == [{"type": "人名", "probability": 0.123457}]
    assert json.loads(row["top"]) == [{"label": "好评", "probability": 0.123457}]
    assert lines(tmp_path / "out.jsonl") == [record]
    [kept] = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert (kept["probability"], json.loads(kept["top"])) == (record["probability"], record["top"])


def test_labelled_rows_keep_their_label(run: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": "手机很好", "label": "差评"}, {"text": "书很好"}])
    predict_file(run, str(source), tmp_path / "out.jsonl", SILENT)
    first, second = lines(tmp_path / "out.jsonl")
    assert (first["label"], first["reference"]) == ("差评", "差评")
    assert "reference" not in second


def test_to_standard_output(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    predict_file(run, str(source), None, SILENT)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in told] == [1, 2]


@pytest.mark.parametrize("output", ["out.xlsx", "out", "missing/out.jsonl"])
def test_an_output_that_cannot_be_written(run: Path, tmp_path: Path, output: str) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(DataError, match=output.partition("/")[0]):
        predict_file(run, str(source), tmp_path / output, SILENT)


def test_an_old_output_stays_when_a_row_is_refused(run: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [*ROWS, {"text": " "}])
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(DataError, match=r"in\.jsonl:3"):
        predict_file(run, str(source), tmp_path / "out.jsonl", SILENT)
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def command(*arguments: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    called = [sys.executable, "-m", "weitiao.cli", *arguments]
    return subprocess.run(called, input=given, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_standard_input(run: Path, tmp_path: Path) -> None:
    """JSON lines and bare texts, mixed; only results on standard output."""
    given = '\ufeff手机很好\n\n{"text": "酒店太差了", "id": 9}\r\n书 {不错}\n'
    done = command("predict", str(run), "-", given=given.encode())
    assert done.returncode == 0, done.stderr.decode()
    told = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert [row["text"] for row in told] == ["手机很好", "酒店太差了", "书 {不错}"]
    assert told[1]["id"] == 9
    assert all(row["prediction"] in ("好评", "差评") for row in told)


def test_broken_standard_input(run: Path) -> None:
    done = command("predict", str(run), "-", given='好\n{"text": \n'.encode())
    assert done.returncode == 2
    assert done.stdout == b""
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("weitiao: standard input:2: ")
