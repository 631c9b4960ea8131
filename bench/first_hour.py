"""The commands of docs/first-hour.md, section 8, as they stand there, on real rows with a model of your choice.

    python bench/first_hour.py FOLDER [--model NAME] [--data data] [--rows 1000] [key=value …]

FOLDER gets the page's three files, made of product-reviews and peoples-daily-ner (fetched into --data where they are
missing). The model is added to `weitiao init`, and each key=value to `weitiao train`. Prints a line for each command;
at the end JSON: seconds and exit status of each, and the headline metric of each run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from weitiao.data.fetch import fetch

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-hour.md"
NEW = 50
"""Rows without labels."""


def commands() -> list[list[str]]:
    whole = PAGE.read_text("utf-8").partition("## 8.")[2]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", whole, re.DOTALL) for line in block.strip().splitlines()]
    return [shlex.split(line) for line in lines]


def write_files(folder: Path, data: Path, rows: int) -> None:
    import openpyxl

    folder.mkdir(parents=True, exist_ok=True)
    reviews, people = (first(data, name, rows + NEW) for name in ("product-reviews", "peoples-daily-ner"))
    pairs = [(row["text"], row["label"]) for row in map(json.loads, reviews)]
    book = openpyxl.Workbook()
    for pair in [("留言", "部门"), *pairs[:rows]]:
        book.active.append(pair)
    book.save(folder / "留言.xlsx")
    write_csv(folder / "评论.csv", [("内容", "类别"), *pairs[:rows]])
    write_csv(folder / "新评论.csv", [("内容",), *((text,) for text, _ in pairs[rows:])])
    (folder / "people.jsonl").write_text("\n".join(people[:rows]) + "\n", "utf-8")


def first(data: Path, name: str, count: int) -> list[str]:
    """Lines of a set's training file, spread over all of it."""
    file = data / name / "train.jsonl"
    if not file.exists():
        fetch(name, data / name)
    lines = file.read_text("utf-8").rstrip("\n").split("\n")
    return lines[:: max(1, len(lines) // count)][:count]


def write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    import csv

    with path.open("w", encoding="gb18030", errors="replace", newline="") as file:
        csv.writer(file).writerows(rows)


def walked(folder: Path, added: dict[str, list[str]]) -> list[dict[str, Any]]:
    told = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)}
    for program, name, *arguments in commands():
        assert program == "weitiao", "the page's commands are weitiao's"
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "weitiao", name, *arguments, *added.get(name, [])],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = round(time.perf_counter() - start, 1)
        told.append({"command": shlex.join([name, *arguments]), "seconds": seconds, "status": done.returncode})
        print(f"{done.stdout}\n== {told[-1]}", file=sys.stderr, flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", help="section.key=value of each training")
    parser.add_argument("--model", default="pypi:qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--rows", type=int, default=1000, help="labelled rows of each file")
    asked = parser.parse_intermixed_args()
    write_files(asked.folder, asked.data, asked.rows)
    model = str(Path(asked.model).resolve()) if Path(asked.model).exists() else asked.model
    told = walked(asked.folder, {"init": ["--model", model], "train": ["--overwrite", *asked.overrides]})
    runs = {}
    for file in sorted(asked.folder.glob("output/*/metrics.json")):
        metrics = json.loads(file.read_text("utf-8"))
        headline = metrics["headline"]
        runs[file.parent.name] = {name: found[headline] for name, found in metrics["systems"].items()}
    print(json.dumps({"model": asked.model, "rows": asked.rows, "commands": told, "runs": runs}, ensure_ascii=False))


if __name__ == "__main__":
    main()
