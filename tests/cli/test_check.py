"""`weitiao check` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import write_rows


def test_clean_rows(work: Path, weitiao: Any) -> None:
    done = weitiao(work, "check", "config.yaml")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "36 training, 12 validation, 0 test" in done.stdout
    assert "nothing found" in done.stdout
    assert done.stdout.splitlines()[-3].endswith("check.html")
    assert done.stdout.splitlines()[-1].startswith("  weitiao train ")
    assert (work / "check.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_errors_give_exit_code_2(work: Path, weitiao: Any) -> None:
    write_rows(work / "bad.jsonl", [{"text": "很好", "label": "好评"}, *[{"text": "", "label": "好评"}] * 2])
    done = weitiao(work, "check", "config.yaml", "data.train=bad.jsonl", "data.validation=null")
    assert done.returncode == 2
    assert done.stderr == ""
    assert "✗ bad-row  2 rows without what the task needs" in done.stdout
    assert "bad.jsonl:2  the text is empty" in done.stdout
    refused = weitiao(work, "train", "config.yaml", "data.train=bad.jsonl", "data.validation=null")
    assert refused.returncode == 2
    assert "bad.jsonl:2: the text is empty" in refused.stderr
    assert "(and 1 more: `weitiao check` lists what training refuses)" in refused.stderr


def test_json_and_another_page(work: Path, weitiao: Any) -> None:
    done = weitiao(work, "check", "ner.yaml", "--json", "-o", "page.html")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema_version"], told["task"], told["rows"]["train"]) == (1, "ner", 18)
    assert (work / "page.html").is_file()
    assert not (work / "check.html").exists()


def test_what_leaves_nothing_to_look_at(work: Path, weitiao: Any) -> None:
    cases = {
        ("data.train=row.jsonl",): "no such file; did you mean 'rows.jsonl'?",
        ("model.name=missing/",): "missing",
        ("data.max_lenght=7",): "did you mean `max_length`?",
        ("data.columns={label: klasse}",): "no column 'klasse'",
        ("-o", "none/page.html"): "its folder does not exist",
        ("-o", "model"): "is a folder",
    }
    for arguments, said in cases.items():
        done = weitiao(work, "check", "config.yaml", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
        assert done.stderr.startswith("weitiao: ")
        assert done.stderr.count("\n") == 1
        assert not (work / "check.html").exists()
