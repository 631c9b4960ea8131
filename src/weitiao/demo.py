"""`weitiao demo`: a real pre-trained model, real data, a CPU, a few minutes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from rich.console import Console

from weitiao.config import load_config
from weitiao.data.fetch import fetch
from weitiao.hub.cache import cache_root
from weitiao.report.table import metrics_table, predictions_table
from weitiao.run_folder import RunFolder
from weitiao.tracking.screen import Screen
from weitiao.training.train import train

DATA = "movie-reviews"
SHOWN = 10
"""Predictions that are printed."""


def demo(output_dir: Path, seed: int) -> None:
    """Train the shipped config `demo`, print its metrics and ten predictions, and name the next commands."""
    screen = Screen()
    folder = cache_root() / "data" / DATA
    fetch(DATA, folder, overwrite=True)
    config = load_config(
        "demo",
        [
            f"run.output_dir={output_dir}",
            f"run.seed={seed}",
            *(f"data.{name}={folder / name}.jsonl" for name in ("train", "test")),
        ],
    )
    metrics = train(config, screen=screen)
    run = RunFolder(config.folder)
    with run.predictions.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, SHOWN)]
    console = Console()
    console.print(predictions_table(rows))
    console.print(metrics_table(metrics))
    console.print(
        f"The run is in {run.path}. Next:\n"
        f'  echo "A quiet film that stays with you." | weitiao predict {run.path} -\n'
        f"  weitiao evaluate {run.path}\n"
        f"  weitiao data fetch product-reviews    (Chinese; see the README for a config)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
