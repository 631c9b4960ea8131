"""Which model and data show the product best in the demo's few minutes: quality of several pairs, over seeds.

    python bench/demo_pairs.py MODEL DATA_FOLDER [--device cuda] [--seeds 42 43 44]

DATA_FOLDER holds `movie-reviews`, `product-reviews` and `peoples-daily-ner` as `weitiao data fetch` writes them. The
quality of a run depends on rows, epochs and learning rate, not on the device; its seconds on a CPU are measured by
`weitiao demo` itself.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

from weitiao.tracking.screen import Screen
from weitiao.training.train import train

TASKS: dict[str, dict[str, Any]] = {
    "movie-reviews": {"name": "classification", "instruction": "Is the film review positive or negative?"},
    "product-reviews": {"name": "classification"},
    "peoples-daily-ner": {"name": "ner", "types": ["人名", "地点"], "other_types": "ignore"},
}


def main() -> None:
    args = arguments()
    print(f"{'data':18} {'rows':>5} {'epochs':>6} {'lr':>7} {'r':>3} {'seed':>4} {'s':>6}  systems")
    for name, rows, epochs, rate, rank, seed in itertools.product(
        args.data, args.rows, args.epochs, args.learning_rates, args.ranks, args.seeds
    ):
        start = time.monotonic()
        metrics = run(args, name, rows, epochs, rate, rank, seed)
        headline = metrics["headline"]
        shown = "  ".join(
            f"{system} {values[headline]:.3f} [{values[headline + '_low']:.3f}, {values[headline + '_high']:.3f}]"
            for system, values in metrics["systems"].items()
        )
        seconds = time.monotonic() - start
        print(f"{name:18} {rows:5} {epochs:6g} {rate:7g} {rank:3} {seed:4} {seconds:6.1f}  {shown}", flush=True)


def run(
    args: argparse.Namespace, name: str, rows: int, epochs: float, rate: float, rank: int, seed: int
) -> dict[str, Any]:
    folder = Path(args.folder) / name
    with tempfile.TemporaryDirectory() as output:
        config = {
            "run": {"output_dir": output, "seed": seed},
            "task": TASKS[name],
            "model": {"name": args.model, "dtype": args.dtype, "device": args.device},
            "data": {
                "train": f"{folder}/train.jsonl",
                "validation": None,
                "test": f"{folder}/test.jsonl",
                "train_rows": rows,
                "test_rows": args.test_rows,
                "max_length": args.max_length,
            },
            "lora": {"r": rank, "lora_alpha": 2 * rank},
            "training": {
                "learning_rate": rate,
                "num_train_epochs": epochs,
                "warmup_steps": 5,
                "samples_per_step": args.samples_per_step,
                "save_steps": 100_000,
            },
            "evaluation": {"batch_tokens": 16_384},
        }
        return train(config, screen=Screen(silent=True))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--data", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", nargs="+", type=int, default=[800])
    parser.add_argument("--epochs", nargs="+", type=float, default=[2])
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[5e-4])
    parser.add_argument("--ranks", nargs="+", type=int, default=[16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--test-rows", type=int, default=400)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--samples-per-step", type=int, default=16)
    return parser.parse_args()


if __name__ == "__main__":
    main()
