"""The command line on good input: help without torch, preview, and the round trip of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from weitiao import __version__

COMMANDS = (
    [],
    ["init"],
    ["train"],
    ["preview"],
    ["evaluate"],
    ["predict"],
    ["demo"],
    ["report"],
    ["export"],
    ["resend"],
    ["data"],
    ["data", "fetch"],
    ["bench"],
    ["bench", "train"],
    ["doctor"],
    ["runs"],
)
HEAVY = ("torch", "transformers", "peft", "accelerate", "sklearn", "scipy", "numpy", "pyarrow", "httpx")


@pytest.mark.parametrize("names", COMMANDS, ids=lambda names: " ".join(names) or "weitiao")
def test_help(names: list[str], work: Path, weitiao: Any) -> None:
    done = weitiao(work, *names, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert done.stderr == ""


def test_help_names_every_command(work: Path, weitiao: Any) -> None:
    told = weitiao(work, "--help").stdout
    assert [
        name
        for name in ("init", "train", "check", "preview", "evaluate", "predict", "demo", "doctor", "data")
        if name not in told
    ] == []


def test_no_line_of_the_help_is_cut(work: Path, weitiao: Any) -> None:
    usage, *told = weitiao(work, "--help").stdout.strip().splitlines()
    assert usage.startswith("Usage: ")
    assert [line for line in told if line.endswith("...") or len(line) > 80] == []


def test_version(work: Path, weitiao: Any) -> None:
    done = weitiao(work, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"weitiao {__version__}\n", "")


def modules_after(arguments: list[str], folder: Path) -> set[str]:
    """Top-level modules that are imported when the command line has ended, however it does."""
    script = (
        "import atexit, sys, weitiao.cli\n"
        "atexit.register(lambda: print(*{m.partition('.')[0] for m in sys.modules}, file=open('modules', 'w')))\n"
        f"sys.argv = ['weitiao', *{arguments!r}]\n"
        "weitiao.cli.main()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, timeout=120, check=False)
    return set((folder / "modules").read_text("utf-8").split())


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["doctor", "--help"], ["init", "--help"], ["check", "--help"], ["--version"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert modules_after(arguments, tmp_path).intersection(HEAVY) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "rows.jsonl"],
        ["preview", "config.yaml"],
        ["check", "config.yaml"],
        ["train", "config.yaml", "model.family=none"],
        ["predict", "output/run", "missing.jsonl"],
        ["evaluate", "output/run", "--data", "missing.jsonl"],
    ],
    ids=lambda a: a[0],
)
def test_files_are_checked_without_torch(arguments: list[str], trained: Path) -> None:
    assert modules_after(arguments, trained).intersection({"torch", "transformers", "sklearn", "pyarrow"}) == set()


def test_preview_shows_three_sections(work: Path, weitiao: Any) -> None:
    done = weitiao(work, "preview", "config.yaml", "--row", "1")
    assert done.returncode == 0, done.stderr
    assert "rows.jsonl:" in done.stdout
    for title in ("shared by all rows", "the row's own prompt", "answer, supervised"):
        assert f"── {title}: " in done.stdout
    answer = done.stdout.partition("answer, supervised")[2]
    assert "<|im_end|>" in answer
    assert "好评" in answer.replace("·", "") or "差评" in answer.replace("·", "")


def test_predict_evaluate_and_train_again(trained: Path, weitiao: Any) -> None:
    run = trained / "output/run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    predicted = weitiao(trained, "predict", "output/run", "rows.jsonl", "-o", "answers.jsonl")
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout == ""
    answers = [json.loads(line) for line in (trained / "answers.jsonl").read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in (trained / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [answer["text"] for answer in answers] == [row["text"] for row in rows]
    assert {answer["prediction"] for answer in answers} <= {"好评", "差评"}
    right = sum(answer["prediction"] == row["label"] for answer, row in zip(answers, rows, strict=True))

    evaluated = weitiao(trained, "evaluate", "output/run", "--data", "rows.jsonl", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["systems"]["finetuned"]["accuracy"] == pytest.approx(right / len(rows))

    own = weitiao(trained, "evaluate", "output/run", "--json")
    assert own.returncode == 0, own.stderr
    assert json.loads(own.stdout) == json.loads((run / "metrics.json").read_text("utf-8"))

    again = weitiao(trained, "train", "config.yaml")
    assert again.returncode == 0, again.stderr
    assert "this run is finished" in again.stderr
    assert "accuracy" in again.stdout
    assert "The fine-tuned model reaches 0." in again.stdout
    assert again.stdout.endswith("next:\n  weitiao predict output/run FILE -o answers.csv\n")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_merged_and_exported(trained: Path, weitiao: Any) -> None:
    apart = weitiao(trained, "predict", "output/run", "rows.jsonl")
    merged = weitiao(trained, "predict", "output/run", "rows.jsonl", "--merged")
    assert merged.returncode == 0, merged.stderr
    assert "merged weights beside the adapter apart: 16 of 16 answers equal" in merged.stderr
    first, second = ([json.loads(line)["prediction"] for line in done.stdout.splitlines()] for done in (apart, merged))
    assert first == second
    piped = weitiao(trained, "predict", "output/run", "-", "--merged", stdin="很好\n太差了\n".encode())
    assert "2 of 2 answers equal" in piped.stderr
    for format in ("adapter", "merged"):
        done = weitiao(trained, "export", "output/run", format, "--format", format)
        assert (done.returncode, done.stdout) == (0, f"{format}\n"), done.stderr
        assert "vllm serve " in done.stderr
        assert (trained / format / "README.md").is_file()
        done = weitiao(trained, "export", "output/run", format, "--format", format)
        assert (done.returncode, done.stderr) == (2, f"weitiao: {format}: is there already; name a new folder\n")


def test_predict_reads_standard_input(trained: Path, weitiao: Any) -> None:
    lines = '\ufeff这个手机很好\r\n\n{"text": "这个手机太差", "id": 7}\n'
    done = weitiao(trained, "predict", "output/run", "-", stdin=lines.encode())
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["text"] == "这个手机很好"
    assert second["id"] == 7
    assert {"prediction", "probability"} <= second.keys()


def test_answers_below_a_probability_are_withheld(trained: Path, weitiao: Any) -> None:
    plain = weitiao(trained, "predict", "output/run", "rows.jsonl")
    told = [json.loads(line) for line in plain.stdout.splitlines()]
    limit = sorted(row["probability"] for row in told)[len(told) // 2]
    done = weitiao(trained, "predict", "output/run", "rows.jsonl", "--abstain-below", repr(limit))
    assert done.returncode == 0, done.stderr
    below = sum(row["probability"] < limit for row in told)
    assert 0 < below < len(told)
    assert f"{below} of {len(told)} answers withheld" in done.stderr
    for before, after in zip(told, map(json.loads, done.stdout.splitlines()), strict=True):
        if before["probability"] < limit:
            suggestion = {"prediction": None, "suggestion": before["prediction"]}
            assert after == {**before, **suggestion}
        else:
            assert after == before
    assert weitiao(trained, "predict", "output/run", "rows.jsonl", "--abstain-below", "2").returncode == 2


def test_the_likeliest_labels(trained: Path, weitiao: Any) -> None:
    done = weitiao(trained, "predict", "output/run", "rows.jsonl", "--top", "5")
    assert done.returncode == 0, done.stderr
    for answer in map(json.loads, done.stdout.splitlines()):
        assert {label["label"] for label in answer["top"]} == {"好评", "差评"}
        assert answer["top"][0] == {"label": answer["prediction"], "probability": answer["probability"]}
        assert sum(label["probability"] for label in answer["top"]) == pytest.approx(1)


def test_the_decoding(trained: Path, weitiao: Any) -> None:
    exact, greedy = (
        weitiao(trained, "predict", "output/run", "rows.jsonl", "--decoding", way) for way in ("exact", "greedy")
    )
    assert (exact.returncode, greedy.returncode) == (0, 0), exact.stderr + greedy.stderr
    for first, second in zip(*(map(json.loads, done.stdout.splitlines()) for done in (exact, greedy)), strict=True):
        assert second["prediction"] in ("好评", "差评")
        assert second["probability"] <= first["probability"] + 1e-6
    done = weitiao(trained, "predict", "output/run", "rows.jsonl", "--decoding", "beam")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "weitiao: decoding 'beam': no such way; choices: exact, greedy\n"


@pytest.mark.slow
def test_overwrite_trains_again(trained: Path, weitiao: Any) -> None:
    done = weitiao(trained, "train", "config.yaml", "--overwrite", "data.validation=null", "lora.r=4")
    assert done.returncode == 0, done.stderr
    assert "going on from" not in done.stderr
    assert "nothing was measured" in done.stderr
    assert json.loads((trained / "output/run/adapter/adapter_config.json").read_text("utf-8"))["r"] == 4
    assert not (trained / "output/run/predictions.jsonl").exists()


@pytest.mark.slow
def test_entities_are_to_be_answered_as_json(work: Path, weitiao: Any) -> None:
    """In a cell of a table they are hard to read."""
    done = weitiao(work, "train", "ner.yaml", "training.max_steps=1", "evaluation.untuned=false", "run.name=names")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("next:\n  weitiao predict output/names FILE -o answers.jsonl\n")
