"""A standalone folder's own program, tried on rows that its run was measured on: it is used where nobody compares."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from weitiao.errors import ModelError
from weitiao.prediction.adapter_folder import AdapterFolder
from weitiao.prediction.agreement import LEAST_EQUAL, LEAST_EQUAL_TEXTS, MOST_NATS, ROWS, Agreement, held_out
from weitiao.standalone.prompt import row_settings
from weitiao.tasks.base import Example
from weitiao.tracking.screen import Screen
from weitiao.types import Prediction


def tried(folder: AdapterFolder, draft: Path, merged: bool, screen: Screen) -> str:
    """How up to 16 rows were answered by the program in `draft`, beside the run; ModelError when not alike."""
    refused = row_settings(folder)["refused_fields"]
    rows = [e for e in held_out(folder, ROWS, screen) if _answerable(folder, e, refused)]
    if not rows:
        screen.note("no rows to compare predict.py's answers with the run's on")
        return "not compared, as no held-out rows that it takes were at hand"
    screen.note(f"comparing predict.py's answers with the run's, on {len(rows)} held-out rows")
    wanted, kind = _of_run(folder, rows)
    agreed = _compared(folder, wanted, _of_program(folder, draft, merged, rows))
    screen.note(f"predict.py beside the run: {agreed}")
    least = LEAST_EQUAL if folder.task.has_labels else LEAST_EQUAL_TEXTS
    most = MOST_NATS["bfloat16" if merged else kind]
    if not agreed.holds(least, most):
        raise ModelError(
            f"predict.py does not answer as the run does ({agreed}; wanted {least:.0%} and {most:g} nats), "
            "so the folder is not kept; use --format adapter"
        )
    return f"on held-out rows of the run, {agreed}"


def _answerable(folder: AdapterFolder, example: Example, refused: list[str]) -> bool:
    """Rows whose prompt has more than a text, or whose text is answered in windows, are refused by the program."""
    if any(example.row.fields.get(name) not in (None, "") for name in refused):
        return False
    return not (folder.task.in_windows and folder.encoder.prompt(example).removed)


def _of_run(folder: AdapterFolder, rows: list[Example]) -> tuple[list[Prediction], str]:
    """Answers, and the type of the weights. The model is gone from memory when the program loads its own."""
    import torch

    from weitiao.prediction.predictor import Predictor

    predictor = Predictor.open(folder)
    answers = predictor.answer(rows)
    kind = str(predictor.forward.head.weight.dtype).removeprefix("torch.")
    del predictor
    gc.collect()
    torch.cuda.empty_cache()
    return answers, kind


def _of_program(folder: AdapterFolder, draft: Path, merged: bool, rows: list[Example]) -> list[dict[str, Any]]:
    base = [] if merged else ["--base", str(folder.base.folder)]
    with TemporaryDirectory() as place:
        asked = Path(place) / "rows.jsonl"
        lines = (json.dumps(dict(row.row.fields), ensure_ascii=False) for row in rows)
        asked.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        command = [sys.executable, "-B", str(draft / "predict.py"), str(asked), *base]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        told = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ModelError(f"predict.py failed ({told[-1]}), so the folder is not kept; use --format adapter")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _compared(folder: AdapterFolder, wanted: list[Prediction], found: list[dict[str, Any]]) -> Agreement:
    equal, gap = 0, 0.0
    for answer, told in zip(wanted, found, strict=True):
        same = folder.task.read_record(told["prediction"]) == answer.answer
        equal += same
        if same and answer.probability and told["probability"]:
            gap = max(gap, abs(math.log(answer.probability) - math.log(told["probability"])))
    return Agreement(len(wanted), equal, gap)
