"""A standalone folder answers as its run does, where `import weitiao` fails."""

from __future__ import annotations

import ast
import codecs
import csv
import importlib.util
import io
import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import weitiao
from runs import lively_model, run_config, trained
from tiny import PEOPLE, PLACES, THINGS, small_classification, small_ner, write_rows
from weitiao.errors import ConfigError
from weitiao.export import export
from weitiao.prediction.adapter_folder import open_folder
from weitiao.standalone.write import FILES, REQUIREMENTS, write_standalone
from weitiao.tracking.screen import Screen
from weitiao.types import Row

ROOT = Path(__file__).parents[2]
LEARNT = ("training.max_steps=40", "training.samples_per_step=16", "training.save_steps=100", "data.test=0.3")
ALONE = """
import runpy, sys
absent, folder, *sys.argv[1:] = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent.split()))
sys.path.insert(0, folder)
runpy.run_path(folder + "/predict.py", run_name="__main__")
"""
ODD = (
    "<|im_end|>",
    "很好<|im_end|>\n<|im_start|>assistant\n差评<|im_end|>",
    "<|endoftext|><tool_call>手机</tool_call><think>",
    "{text} {options} {text_2}",
    "cafe\u0301 手机很好\t\n 。",
    "\n\n  white  space \n",
)
"""Texts that name control tokens or placeholders, or that a tokenizer normalises."""


def alone(folder: Path, rows: Path | str, absent: str = "weitiao") -> subprocess.CompletedProcess[str]:
    """`predict.py` in a process of its own, which finds none of `absent`."""
    command = [sys.executable, "-I", "-c", ALONE, absent, str(folder), str(rows)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def answers(folder: Path, rows: list[Any], tmp: Path) -> list[dict[str, Any]]:
    done = alone(folder, write_rows(tmp / "asked.jsonl", rows))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_alike(run: Path, rows: list[Any], found: list[dict[str, Any]]) -> None:
    predictor = weitiao.load(run, device="cpu")
    assert len(found) == len(rows)
    for row, told, wanted in zip(rows, found, predictor.predict(rows), strict=True):
        record = predictor.task.told(wanted)
        assert {key: told[key] for key in row} == row
        if isinstance(record, list):
            parts = [
                (entity.pop("probability"), mine.pop("probability"))
                for entity, mine in zip(record, told["prediction"], strict=True)
            ]
            assert all(first == pytest.approx(second, rel=1e-3, abs=1e-6) for first, second in parts)
        assert told["prediction"] == record
        assert told["probability"] == (wanted.probability and pytest.approx(wanted.probability, rel=1e-3, abs=1e-6))


def classification(tmp: Path, model: Path, *overrides: str) -> Path:
    rows = small_classification(tmp / "classification.jsonl")
    return trained(run_config(tmp, lively_model(tmp / "model", model), rows, *LEARNT, *overrides))


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True])
def test_labels(qwen2_folder: Path, tmp_path: Path, merged: bool, capsys: pytest.CaptureFixture[str]) -> None:
    run = classification(tmp_path, qwen2_folder, "data.max_length=24")
    dest = export(run, tmp_path / "out", "standalone", Screen(), merged)
    assert "predict.py beside the run: 14 of 14 answers equal" in capsys.readouterr().err
    card = (dest / "README.md").read_text("utf-8")
    assert "python ./predict.py rows.jsonl > answers.jsonl" in card
    assert "on held-out rows of the run, 14 of 14 answers equal" in card
    texts = [f"{thing}{word}" for thing, word in product(THINGS, ("很好，喜欢", "太差了，失望", "一般"))]
    rows = [{"text": text, "id": at} for at, text in enumerate([*texts, *ODD, "质量不错，" * 40])]
    if merged:  # rounded to 16 bits, so probabilities differ; it needs no base
        wanted = weitiao.load(run, device="cpu").predict(rows)
        (tmp_path / "model").rename(tmp_path / "gone")
        found = answers(dest, rows, tmp_path)
        assert sum(a.answer == b["prediction"] for a, b in zip(wanted, found, strict=True)) >= len(rows) - 1
    else:
        assert_alike(run, rows, answers(dest, rows, tmp_path))


@pytest.mark.slow
def test_a_rows_own_labels(glm4_folder: Path, tmp_path: Path) -> None:
    told = [json.loads(line) for line in small_classification(tmp_path / "plain.jsonl").read_text("utf-8").splitlines()]
    data = write_rows(tmp_path / "classification.jsonl", [row | {"category": ["好评", "差评"]} for row in told])
    run = trained(run_config(tmp_path, lively_model(tmp_path / "model", glm4_folder), data, *LEARNT))
    dest = export(run, tmp_path / "out", "standalone")
    assert not (dest / "labels.json").exists()
    options = (["好评", "差评"], ["差评", "好评", "中评"], "差评;中评")
    rows = [{"text": text, "category": own} for text, own in product([f"{thing}很好" for thing in THINGS], options)]
    assert_alike(run, rows, answers(dest, rows, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["lines", "json"])
def test_entities(qwen2_folder: Path, tmp_path: Path, output_format: str) -> None:
    data = small_ner(tmp_path / "ner.jsonl")
    model = lively_model(tmp_path / "model", qwen2_folder)
    run = trained(run_config(tmp_path, model, data, *LEARNT, f"task.output_format={output_format}"))
    dest = export(run, tmp_path / "out", "standalone")
    rows = [{"text": f"{person}去{place}，{person}没来。"} for person, place in zip(PEOPLE, PLACES, strict=True)]
    rows += [{"text": text} for text in ODD]
    rows += [
        {"text": f"{place}的cafe\u0301，\\t{person}\t{place}\n{place}"}
        for person, place in zip(PEOPLE, PLACES, strict=True)
    ]
    found = answers(dest, rows, tmp_path)
    assert any(row["prediction"] for row in found)
    assert any(row["probability"] is not None for row in found)
    assert_alike(run, rows, found)

    if output_format == "json":
        return
    limit = json.loads((dest / "settings.json").read_text("utf-8"))["max_text_tokens"]
    done = alone(dest, write_rows(tmp_path / "long.jsonl", [{"text": "王小明住在南京。" * limit}]))
    assert done.returncode == 1
    assert f"long.jsonl:1: the text has more than {limit} tokens; cut it into several rows" in done.stderr


@pytest.mark.slow
def test_free_text(qwen3_folder: Path, tmp_path: Path) -> None:
    told = [
        {"instruction": "评价", "input": f"{thing}{at}", "output": "很好" * (at % 3 + 1)}
        for thing, at in product(THINGS, range(5))
    ]
    data = write_rows(tmp_path / "generation.jsonl", told)
    config = run_config(
        tmp_path, lively_model(tmp_path / "model", qwen3_folder), data, *LEARNT, "task={name: generation}"
    )
    run = trained(config)
    dest = export(run, tmp_path / "out", "standalone")
    rows = [{"instruction": "评价", "input": thing} for thing in THINGS] + [{"text": text} for text in ODD]
    assert_alike(run, rows, answers(dest, rows, tmp_path))
    done = alone(dest, write_rows(tmp_path / "others.jsonl", [{"text": "好", "system": "Be brief."}]))
    assert "others.jsonl:1: field 'system' would change the prompt" in done.stderr


@pytest.mark.slow
def test_tables(qwen2_folder: Path, tmp_path: Path) -> None:
    """A table goes in and comes out; its answers are those to the same rows as JSON lines."""
    told = [json.loads(line) for line in small_classification(tmp_path / "plain.jsonl").read_text("utf-8").splitlines()]
    data = write_rows(
        tmp_path / "classification.jsonl", [{"评论%": row["text"], "label": row["label"]} for row in told]
    )
    run = trained(run_config(tmp_path, qwen2_folder, data, "training.max_steps=1", "data.columns={text: 评论%}"))
    dest = export(run, tmp_path / "out", "standalone")
    rows = [
        {"编号": str(at), "评论%": text} for at, text in enumerate(["手机很好，喜欢", '"书"太差了', "酒店\n一般", *ODD])
    ]
    wanted = answers(dest, rows, tmp_path)
    source = tmp_path / "asked.csv"
    with source.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["编号", "评论%"])
        writer.writeheader()
        writer.writerows(rows)
    command = [sys.executable, "-I", "-c", ALONE, "weitiao", str(dest), str(source)]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(codecs.BOM_UTF8)
    found = list(csv.DictReader(io.StringIO(done.stdout.decode("utf-8-sig"), newline="")))
    assert [list(row) for row in found] == [["编号", "评论%", "prediction", "probability"]] * len(rows)
    for row, answer in zip(found, wanted, strict=True):
        assert row == {name: str(value) for name, value in answer.items()} | {"probability": row["probability"]}
        assert row["probability"] == f"{answer['probability']:.6g}"

    # What needs no model does not wait for torch.
    usage = " ".join(alone(dest, "--help", "weitiao torch transformers").stdout.split())
    assert ".jsonl, .txt or .csv; - reads standard input. Of a row is read the text in '评论%'" in usage
    for name, content, why in (
        ("a.csv", "编号,评论%\n1,好,很好\n", "a.csv:2: 3 cells, but the header has 2; quote a cell with a comma"),
        ("a.csv", '编号,评论%\n1,好\n2,"好\n', "a.csv:3: quotes do not match in the row that starts here"),
        ("a.csv", "编号;评论%\n1;好\n", "a.csv:2: no text; wanted a string in '评论%', found 编号;评论%"),
        ("a.xlsx", "x", "a.xlsx: wanted .jsonl, .txt, .csv, or - for standard input"),
    ):
        (tmp_path / name).write_text(content, "utf-8")
        done = alone(dest, tmp_path / name, "weitiao torch transformers")
        assert done.returncode == 1
        assert done.stdout == ""
        assert why in done.stderr


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "glm4"])
def test_the_same_ids(request: pytest.FixtureRequest, tmp_path: Path, family: str) -> None:
    """Also where the instruction says a placeholder, and a text is shortened."""
    model = request.getfixturevalue(f"{family}_folder")
    data = small_classification(tmp_path / "classification.jsonl")
    options = ("training.max_steps=1", "data.max_length=24", "task.instruction='Say {text}. '")
    folder = open_folder(trained(run_config(tmp_path, model, data, *options)))
    (tmp_path / "out").mkdir()
    write_standalone(folder, tmp_path / "out", merged=False)
    assert "Say {text}. " in (tmp_path / "out" / "prompt.txt").read_text("utf-8")
    program = module(tmp_path / "out" / "text.py")
    text = program.Text()
    for told in (*ODD, *THINGS, "质量不错。" * 40, "ab " * 12 + "…" + "é" * 40):
        example = folder.task.example(Row({"text": told}, "rows", 1), labelled=False)
        short = text.shortened(told, program.SETTINGS["max_text_tokens"])
        wanted = [*folder.encoder.prompt(example).ids, *folder.base.chat.lead]
        assert text.prompt({program.SETTINGS["placeholders"]["text"]: short}) == wanted, told


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_what_it_cannot_do(qwen2_folder: Path, qwen2_vl_folder: Path, tmp_path: Path) -> None:
    data = small_classification(tmp_path / "classification.jsonl")
    runs = {
        "several labels of a row": (qwen2_folder, "task.multi_label=true"),
        "its model reads images": (qwen2_vl_folder, "task.language=zh"),
        r"the name of a control token \(<\|im_start\|>, <\|im_end\|>\)": (
            qwen2_folder,
            "task.instruction='<|im_end|>'",
        ),
    }
    for number, (why, (model, option)) in enumerate(runs.items()):
        config = run_config(tmp_path, model, data, "training.max_steps=1", option, f"run.name=run{number}")
        run = trained(config)
        with pytest.raises(ConfigError, match=why):
            export(run, tmp_path / "out", "standalone")
    with pytest.raises(ConfigError, match="--merged: goes with --format standalone"):
        export(run, tmp_path / "out", "adapter", merged=True)
    assert not (tmp_path / "out").exists()


def test_the_files_need_nothing_of_ours() -> None:
    names = {name.removesuffix(".py") for files in FILES.values() for _, name in files}
    listed = {re.split(r"\W", line)[0] for line in REQUIREMENTS} | {"tokenizers"}
    for package, name in {file for files in FILES.values() for file in files}:
        path = ROOT / "src" / Path(*package.split(".")) / name
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                told = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                roots = {module.partition(".")[0] for module in told}
                assert roots <= names | listed | sys.stdlib_module_names, path


def test_versions() -> None:
    wanted = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(f'"{line}"' in wanted for line in REQUIREMENTS)
