"""docs/first-hour.md, section 8: its commands, one after another, with a tiny model and few steps."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from tiny import small_classification, small_ner, tiny_model

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "first-hour.md"
SMALL = {
    "init": ["--model", "./model"],
    "train": ["training.max_steps=2", "training.samples_per_step=4", "evaluation.untuned=false"],
}
"""What is added to a command to make it small."""
MADE = [
    ("答案.csv", "评论-adapter/adapter_model.safetensors", "check.html"),
    ("sorted.jsonl", "output/messages/report.html"),
    ("found.jsonl", "people-alone/predict.py", "output/people/metrics.json"),
]
"""Of each block, some files that are there in the end."""


def blocks(page: Path = PAGE) -> list[list[str]]:
    whole = page.read_text("utf-8").partition("## 8.")[2]
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", whole, re.DOTALL)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    tiny_model(folder / "model", "qwen2")
    rows = [json.loads(line) for line in small_classification(folder / "rows.jsonl").read_text("utf-8").splitlines()]
    pairs = [(f"{row['text']}{at}", row["label"]) for at, row in enumerate(rows)]
    table = "".join(f"{text},{label}\r\n" for text, label in [("内容", "类别"), *pairs])
    (folder / "评论.csv").write_bytes(table.encode("gb18030"))
    (folder / "新评论.csv").write_bytes(
        "".join(f"{text}\r\n" for text, _ in [("内容", ""), *pairs[:9]]).encode("gb18030")
    )
    book = openpyxl.Workbook()
    for row in [("留言", "部门"), *pairs]:
        book.active.append(row)
    book.save(folder / "留言.xlsx")
    small_ner(folder / "people.jsonl")
    return folder


def test_each_block_is_known() -> None:
    assert len(blocks()) == len(MADE)


def test_both_languages_have_the_same_commands() -> None:
    """In all sections; what stands behind a command is in the page's own language."""
    pages = (PAGE, DOCS / "zh" / "first-hour.md")
    assert blocks(pages[1]) == blocks()
    told = [re.findall(r"^(?:echo .*\| )?weitiao [^#\n]*", page.read_text("utf-8"), re.MULTILINE) for page in pages]
    assert [line.strip() for line in told[1]] == [line.strip() for line in told[0]]


@pytest.mark.slow
@pytest.mark.parametrize("at", range(len(MADE)))
def test_block(at: int, desk: Path, weitiao: Any) -> None:
    for line in blocks()[at]:
        program, name, *arguments = shlex.split(line)
        assert program == "weitiao"
        done = weitiao(desk, name, *arguments, *SMALL.get(name, []))
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    for path in MADE[at]:
        assert (desk / path).exists(), path
