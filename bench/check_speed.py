"""How fast `weitiao check` is on this machine, in rows a second and core, and how much memory it takes.

    python bench/check_speed.py [CONFIG] [--rows 20000] [--length 200] [--repeats 3]

Without CONFIG the rows are texts of 200 characters, made of clauses of Chinese product reviews. Seconds are
of the processor, summed over its cores, the best of the repeats; each stage is taken alone. Peak memory is that of a
process of its own, at so many rows and at four times as many.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from weitiao.check.base import Batch, Check, Setting
from weitiao.check.checks import checks
from weitiao.check.reading import Trouble, examples, task_of
from weitiao.check.table import Table
from weitiao.check.walk import batches_of, setting_of, walked
from weitiao.config import RunConfig, load_config
from weitiao.data.fetch import fetch
from weitiao.hub.cache import cache_root
from weitiao.model.base import open_base
from weitiao.tasks.base import task_options

MODEL = "pypi:smollm2-135m-instruct"
WANTED = {"read and typed": 50_000, "checked": 20_000, "tokenised": 12_000, "near texts": 5_000}
"""Rows a second and core."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--length", type=int, default=200, help="Characters of a text.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(_peak(asked.peak))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = asked.config or str(_made(Path(folder), asked.rows, asked.length))
        _speeds(load_config(path), asked.repeats)
        sizes = [path] if asked.config else [path, str(_made(Path(folder) / "4", 4 * asked.rows, asked.length))]
        for size in sizes:
            parallel = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
            told = subprocess.check_output([sys.executable, __file__, "--peak", size], text=True, env=parallel)
            print(told.strip())


def _made(folder: Path, rows: int, length: int) -> Path:
    """A config with so many training rows, of clauses drawn at random."""
    source = cache_root() / "data" / "product-reviews"
    fetch("product-reviews", source, overwrite=True)
    read = [json.loads(line) for line in (source / "train.jsonl").read_text("utf-8").splitlines()]
    clauses = [clause for row in read for clause in re.findall(r"[^，。！？,.!?]+[，。！？,.!?]", row["text"])]
    rng = random.Random(0)
    folder.mkdir(exist_ok=True)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for at in range(rows):
            text = ""
            while len(text) < length:
                text += rng.choice(clauses)
            row = {"text": text[:length], "label": read[at % len(read)]["label"]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    config = {
        "task": {"name": "classification"},
        "model": {"name": MODEL},
        "data": {"train": str(folder / "rows.jsonl"), "validation": None},
    }
    (folder / "config.yaml").write_text(json.dumps(config), "utf-8")
    return folder / "config.yaml"


def _speeds(config: RunConfig, repeats: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    task = task_of(config.data, task_options(config.task))
    base = open_base(config.model)
    setting = setting_of(config, task, base)
    rows = sum(1 for _ in examples(config.data, task, Trouble()))
    texts = [example.text for _, example in examples(config.data, task, Trouble())]
    print(f"{rows:,} rows of {sum(map(len, texts)) // rows} characters")
    batches = list(batches_of(setting, Table()))
    quick = [name for name in checks() if name not in ("tokens", "near", "round_trip")]
    stages: dict[str, Callable[[], object]] = {
        "read and typed": lambda: sum(1 for _ in examples(config.data, task, Trouble())),
        "checked": lambda: _whole(setting, quick),
        "tokenised": lambda: _shown(checks()["tokens"](setting), batches),
        "near texts": lambda: _near(setting, batches),
        "all of it": lambda: _whole(setting, list(checks())),
    }
    for name, stage in stages.items():
        seconds = min(_seconds(stage) for _ in range(repeats))
        wanted = f"  (wanted: {WANTED[name]:,})" if name in WANTED else ""
        print(f"{name:<16}{rows / seconds:>10,.0f} rows/s{wanted}")


def _whole(setting: Setting, names: list[str]) -> None:
    """From the files to the findings of some checks."""
    looked = [checks()[name](setting) for name in names]
    table = walked(setting, looked)
    for one in looked:
        list(one.findings(table))


def _near(setting: Setting, batches: list[Batch]) -> None:
    near = checks()["near"](setting)
    _shown(near, batches)
    list(near.findings(walked(setting, [])))


def _shown(check: Check, batches: list[Batch]) -> None:
    for batch in batches:
        check.look(batch)


def _seconds(stage: Callable[[], object]) -> float:
    start = time.process_time()
    stage()
    return time.process_time() - start


def _peak(path: str) -> str:
    config = load_config(path)
    setting = setting_of(config, task_of(config.data, task_options(config.task)), open_base(config.model))
    before, start = _resident(), time.monotonic()
    _whole(setting, list(checks()))
    seconds = time.monotonic() - start
    return f"peak memory {_resident():,} MiB, of which {before:,} before the first row; {seconds:.1f} s on all cores"


def _resident() -> int:
    """Most MiB of this process so far. `getrusage` would tell that of its parent, if that had more."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("utf-8"), flags=re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


if __name__ == "__main__":
    main()
