"""A tiny Qwen2-VL that is made from its config, all of it random and frozen but its adapters, learns to read digits."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from runs import SILENT, lines
from tiny import tiny_model, write_rows
from weitiao.config import load_config
from weitiao.prediction.evaluate import evaluate
from weitiao.prediction.predictor import load
from weitiao.training.train import train


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's 1,797 scanned digits of 8 × 8 pixels, as files and rows {"image", "label"}."""
    folder = tmp_path_factory.mktemp("digits")
    found = load_digits()
    rows = []
    for at, (pixels, digit) in enumerate(zip(found.images, found.target, strict=True)):
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{at}.png")
        rows.append({"image": f"{at}.png", "label": str(digit)})
    return write_rows(folder / "digits.jsonl", rows)


@pytest.mark.slow
def test_digits_are_learnt(digits: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", "qwen2_vl", hidden_size=128, intermediate_size=256, initializer_range=0.1)
    values = {
        "run": {"output_dir": str(tmp_path), "name": "digits"},
        "task": {"name": "classification"},
        "model": {"name": str(model), "device": "cpu", "cache_dir": str(tmp_path / "cache")},
        "data": {"train": str(digits), "validation": None, "test": 0.2, "image_size": [56, 56]},
        "lora": {"r": 64, "lora_alpha": 64},
        "training": {
            "num_train_epochs": 8,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 20,
            "samples_per_step": 32,
        },
    }
    metrics = train(load_config(values), screen=SILENT)
    systems = metrics["systems"]
    assert metrics["rows"] == 359
    assert systems["finetuned"]["accuracy"] >= 0.9
    assert systems["untuned"]["accuracy"] < 0.3
    assert systems["finetuned"]["accuracy_low"] > systems["majority"]["accuracy_high"]
    assert systems["pixels"]["accuracy"] > 0.9, "the pixels alone say it, too"
    assert "tfidf" not in systems

    # Every image once: one file for each that differs.
    files = list((tmp_path / "cache" / "image-features").rglob("*.safetensors"))
    different = {path.read_bytes() for path in digits.parent.glob("*.png")}
    assert len(files) == len(different)
    before = {path: path.stat().st_ino for path in files}

    run = tmp_path / "digits"
    assert json.loads((run / "adapter" / "task.json").read_text("utf-8"))["images"]["size"] == [56, 56]
    assert evaluate(run)["systems"]["finetuned"]["accuracy"] == systems["finetuned"]["accuracy"]
    told = lines(run / "predictions.jsonl")[:20]
    answers = load(run).predict([{"image": row["image"]} for row in told], images=digits.parent)
    assert [answer.answer for answer in answers] == [row["prediction"] for row in told]
    assert {path: path.stat().st_ino for path in before} == before
