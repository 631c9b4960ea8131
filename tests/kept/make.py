"""Makes a folder of runs that later versions have to open (`test_kept.py`): once for each version that changes what a
run folder holds.

    cd tests && python -m kept.make FOLDER

`model` is the base, `classification` and `ner` are runs with all that training leaves but the report and all
checkpoints but the last; `rows` are what they learnt, and `answers.json` is what they answered then.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from runs import SILENT, lively_model
from tiny import small_classification, small_ner, tiny_model
from weitiao import load
from weitiao.config import load_config
from weitiao.training.train import train

TEXTS = ["手机很好，非常满意。", "讨厌这个酒店，浪费钱。", "王小明住在南京。", "李华从北京到上海。"]
STEPS = 60
TASKS = ("classification", "ner")
ROWS = {"classification": small_classification, "ner": small_ner}


def main(folder: Path) -> None:
    folder.mkdir()
    tiny_model(folder / "plain", "qwen2")
    lively_model(folder / "model", folder / "plain")
    shutil.rmtree(folder / "plain")
    # Paths in a run are those of its config: none of them may be this machine's.
    os.chdir(folder)
    Path("rows").mkdir()
    answers = {}
    for task in TASKS:
        rows = ROWS[task](Path("rows") / f"{task}.jsonl")
        train(load_config(values(task, rows)), screen=SILENT)
        answers[task] = [
            {"text": text, "answer": answer.text, "probability": answer.probability}
            for text, answer in zip(TEXTS, load(task, device="cpu").predict(TEXTS), strict=True)
        ]
        (Path(task) / "report.html").unlink()
        for checkpoint in Path(task).glob("checkpoint-*"):
            if checkpoint.name != f"checkpoint-{STEPS}":
                shutil.rmtree(checkpoint)
    Path("answers.json").write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", "utf-8")


def values(task: str, rows: Path) -> dict[str, object]:
    return {
        "run": {"output_dir": ".", "name": task},
        "task": {"name": task},
        "model": {"name": "./model", "device": "cpu"},
        "data": {"train": str(rows), "validation": 0.2, "test": 0.2},
        "lora": {"r": 4},
        "training": {"learning_rate": 1e-2, "samples_per_step": 16, "max_steps": STEPS, "save_steps": STEPS},
        "evaluation": {"bootstrap": 100},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
