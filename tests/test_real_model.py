"""The real thing from end to end: a real model, both tasks, through the command line as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runs import lines
from tiny import write_rows

pytestmark = pytest.mark.slow
MODEL = "pypi:smollm2-135m-instruct"
THINGS = ("phone", "hotel", "film", "book", "camera", "meal", "course", "jacket")
OPINIONS = {
    "positive": ("The {} was wonderful, I am very happy.", "I love this {}.", "An excellent {}, I recommend it."),
    "negative": ("The {} was terrible, I am very upset.", "I hate this {}.", "An awful {}, I want my money back."),
}
PEOPLE = ("Anna Smith", "Peter Jones", "Mary Brown", "John Miller", "Laura Davis", "Paul Wilson")
PLACES = ("London", "Paris", "Berlin", "Madrid", "Vienna", "Oslo", "Dublin", "Prague")


def opinions() -> list[dict[str, Any]]:
    return [
        {"id": f"{thing}-{at}-{label}", "text": patterns[at].format(thing), "label": label}
        for thing in THINGS
        for at in range(3)
        for label, patterns in OPINIONS.items()
    ]


def sentences() -> list[dict[str, Any]]:
    found = []
    for at in range(48):
        person, place = PEOPLE[at % 6], PLACES[at // 6]
        text = f"{person} moved to {place} last year." if at % 2 else f"In {place} we met {person} again."
        named = sorted((text.index(name), name, kind) for name, kind in ((person, "person"), (place, "place")))
        entities = [{"start": s, "end": s + len(n), "type": kind, "text": n} for s, n, kind in named]
        found.append({"text": text, "entities": entities})
    return found


@pytest.mark.parametrize(("task", "headline"), [("classification", "accuracy"), ("ner", "f1")])
def test_a_model_is_tuned_measured_and_used(tmp_path: Path, task: str, headline: str) -> None:
    data = write_rows(tmp_path / "data.jsonl", opinions() if task == "classification" else sentences())
    config = {
        "run": {"output_dir": str(tmp_path), "name": "run"},
        "task": {"name": task},
        "model": {"name": MODEL, "device": "cpu"},
        "data": {"train": str(data), "validation": None, "test": 0.25},
        "training": {"learning_rate": 1e-3, "samples_per_step": 8, "max_steps": 8, "logging_steps": 1},
        "evaluation": {"bootstrap": 100},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config), "utf-8")  # JSON is YAML

    shown = weitiao("preview", tmp_path / "config.yaml")
    assert "answer, supervised" in shown

    table = weitiao("train", tmp_path / "config.yaml")
    assert "fine-tuned" in table
    run = tmp_path / "run"
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert metrics["rows"] == 12
    systems = metrics["systems"]
    assert systems["finetuned"][headline] > max(0.7, systems["untuned"][headline])
    losses = [line["loss"] for line in lines(run / "log.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] / 2

    again = json.loads(weitiao("evaluate", run, "--json"))
    assert again["systems"]["finetuned"][headline] == systems["finetuned"][headline]
    assert again.keys() == metrics.keys()

    texts = [{"id": at, "text": row["text"]} for at, row in enumerate(lines(run / "predictions.jsonl"))]
    weitiao("predict", run, write_rows(tmp_path / "in.jsonl", texts), "-o", tmp_path / "out.jsonl")
    told = lines(tmp_path / "out.jsonl")
    assert [row["id"] for row in told] == list(range(12))
    expected = lines(run / "predictions.jsonl")
    assert [without_probabilities(row["prediction"]) for row in told] == [
        without_probabilities(row["prediction"]) for row in expected
    ]


def without_probabilities(prediction: Any) -> Any:
    """Those of entities may differ in their last digits."""
    if isinstance(prediction, str):
        return prediction
    return [{key: value for key, value in entity.items() if key != "probability"} for entity in prediction]


def weitiao(*arguments: Any) -> str:
    """Standard output of a command that must succeed. It may use all cores, unlike the tests of tiny models."""
    command = [sys.executable, "-m", "weitiao.cli", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout
