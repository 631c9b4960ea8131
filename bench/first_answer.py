"""How long `weitiao predict` takes from its start to the line with the answer of one row, by a run of a model of true
size.

    python bench/first_answer.py FOLDER [--shape qwen2-1.5b] [--runs 3]

Weights and tokenizer are random, each run is one step of training, so that what a user's training leaves behind (the
base's fingerprint, kernels) is there. Each command is called once before, so weights lie in the page cache. Prints the
median in seconds and the range, beside `import torch` alone, as a process.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from weitiao.bench.shapes import SHAPES, model_maker
from weitiao.bench.vocabulary import characters, draw_text, write_tokenizer
from weitiao.model.load import choose_device, choose_dtype

ROWS = 64
TASKS = ("classification", "ner")
WEITIAO = [sys.executable, "-m", "weitiao"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", default="qwen2-1.5b", choices=SHAPES)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    folder: Path = asked.folder.resolve()
    letters = characters(SHAPES[asked.shape].config["vocab_size"])
    write_model(folder / "model", asked.shape)
    runs = {task: trained(folder, task, letters) for task in TASKS}
    commands = {"import torch": [sys.executable, "-c", "import torch"]}
    commands |= {f"predict, {task}": [*WEITIAO, "predict", str(run), "-"] for task, run in runs.items()}
    row = "".join(letters[:40]).encode()
    for name, command in commands.items():
        seconds(command, row)
        times = [seconds(command, row) for _ in range(asked.runs)]
        print(f"{name:24} {statistics.median(times):.2f} s   ({min(times):.2f} to {max(times):.2f})", flush=True)


def write_model(folder: Path, shape: str) -> None:
    device = choose_device("auto")
    model_maker(shape, device, choose_dtype("auto", device)).master.save_pretrained(folder)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    write_tokenizer(folder, SHAPES[shape].family, SHAPES[shape].config["vocab_size"])


def trained(folder: Path, task: str, letters: list[str]) -> Path:
    draw = random.Random(0)
    rows, names = [], [letters[0], letters[-1]]
    for at in range(ROWS):
        text = draw_text(draw, 40, letters)
        name = names[at % 2]
        answer = {"entities": [{"start": 3, "end": 6, "type": name}]} if task == "ner" else {"label": name}
        rows.append(json.dumps({"text": text, **answer}, ensure_ascii=False))
    (folder / f"{task}.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    config = {
        "run": {"output_dir": str(folder), "name": f"run-{task}"},
        "task": {"name": task} | ({"types": names} if task == "ner" else {}),
        "model": {"name": str(folder / "model")},
        "data": {"train": str(folder / f"{task}.jsonl"), "validation": 0.125, "test": 0.125},
        "training": {"max_steps": 1, "samples_per_step": 16},
        "evaluation": {"baselines": False, "untuned": False},
    }
    path = folder / f"{task}.yaml"
    path.write_text(json.dumps(config, ensure_ascii=False), "utf-8")
    done = subprocess.run([*WEITIAO, "train", str(path), "--overwrite"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return folder / f"run-{task}"


def seconds(command: list[str], row: bytes) -> float:
    """Until its first line, or its end where it prints none."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        asked, answer, told = process.stdin, process.stdout, process.stderr
        asked.write(row)  # type: ignore[union-attr]
        asked.close()  # type: ignore[union-attr]
        answer.readline()  # type: ignore[union-attr]
        passed = time.perf_counter() - start
        why = told.read()  # type: ignore[union-attr]
    if process.returncode:
        sys.exit(why.decode())
    return passed


if __name__ == "__main__":
    main()
