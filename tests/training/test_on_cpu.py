"""A model too large for a CPU: refused before its weights are loaded, with the time that it would take."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
import torch

from runs import SILENT, run_config, trained
from weitiao.config import RunConfig
from weitiao.errors import ConfigError
from weitiao.training import on_cpu
from weitiao.training.on_cpu import duration, in_products, operations_per_second, refuse_large, tokens_of_run
from weitiao.training.train import train
from weitiao.types import Encoded

ROWS = [Encoded(tuple(range(100)), 90)] * 40


def config(**training: object) -> RunConfig:
    values = {"task": {"name": "ner"}, "model": {"name": "ORG/Large"}, "data": {"train": "y"}, "training": training}
    return RunConfig.model_validate(values)


def weights(folder: Path, *shapes: tuple[int, int]) -> Path:
    """A folder with headers of such weights, and holes where the numbers would be."""
    entries, end = {}, 0
    for at, (rows, width) in enumerate(shapes):
        begin, end = end, end + 2 * rows * width
        entries[f"layer.{at}.weight"] = {"dtype": "BF16", "shape": [rows, width], "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return folder


def test_a_large_model_is_refused_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cpu, "operations_per_second", lambda dtype: 50e9)
    folder = weights(tmp_path, *[(4096, 4096)] * 90)
    with pytest.raises(ConfigError) as caught:
        refuse_large(config(num_train_epochs=10), folder, torch.float32, ROWS, prefix=60)
    # 3 steps an epoch of 40 rows with 40 own tokens, behind 60 shared ones: 10 × (40 × 40 + 3 × 60).
    assert str(caught.value) == (
        "ORG/Large has 1.5 billion parameters, and would be trained on a CPU: at least about 36 minutes for "
        "17,800 tokens at 50 GFLOP/s, as measured here; use a card or a smaller model, or set training.on_cpu=allow"
    )
    refuse_large(config(on_cpu="allow"), folder, torch.float32, ROWS, prefix=60)


def test_a_model_below_a_billion_is_not_looked_at_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cpu, "operations_per_second", lambda dtype: pytest.fail("measured"))
    refuse_large(config(), weights(tmp_path, *[(4096, 4096)] * 59), torch.float32, ROWS, prefix=0)


def test_training_refuses_before_anything_is_loaded_or_written(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_cpu, "MOST", 1000)
    settings = run_config(tmp_path, qwen2_folder, classification_file, "training.max_steps=2")
    with monkeypatch.context() as patch:
        patch.setattr("weitiao.model.load.load_model", lambda *args: pytest.fail("weights were loaded"))
        with pytest.raises(ConfigError, match=r"would be trained on a CPU: at least about 1 minutes .*on_cpu=allow"):
            train(settings, screen=SILENT)
    assert not settings.folder.exists()
    allowed = run_config(tmp_path, qwen2_folder, classification_file, "training.max_steps=2", "training.on_cpu=allow")
    assert (trained(allowed) / "metrics.json").is_file()


def test_tokens_of_a_run_by_steps() -> None:
    assert tokens_of_run(config(max_steps=6), [100] * 40, 60) == 2 * 40 * 40 + 6 * 60
    assert tokens_of_run(config(num_train_epochs=2), [10] * 16, 0) == 320


def test_embeddings_and_towers_are_in_no_product() -> None:
    shapes = {
        "model.embed_tokens.weight": [100, 8],
        "lm_head.weight": [100, 8],
        "visual.blocks.0.weight": [8, 8],
        "model.layers.0.mlp.up_proj.weight": [16, 8],
        "model.norm.weight": [8],
    }
    assert in_products(shapes) == 128


def test_the_rate_is_measured() -> None:
    assert 1e8 < operations_per_second(torch.float32) < 1e15


@pytest.mark.parametrize(
    ("seconds", "told"), [(3, "1 minutes"), (5400, "90 minutes"), (18_000, "5 hours"), (1_000_000, "12 days")]
)
def test_durations(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_bad_value_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=re.escape("'refuse' or 'allow'")):
        config(on_cpu="maybe")
