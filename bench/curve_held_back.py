"""Whether the intervals of `weitiao curve` hold: a set is cut, the curve is fitted on what is left, and the score on
twice and four times the rows, which were held back, is trained and compared.

    python bench/curve_held_back.py FOLDER --learner tfidf       reviews: TF-IDF and logistic regression
    python bench/curve_held_back.py FOLDER --learner dictionary  entities: the dictionary of training entities
    python bench/curve_held_back.py FOLDER --learner model       `weitiao curve` itself: real fine-tuning, on a card

FOLDER: train.jsonl and test.jsonl as `weitiao data fetch` writes them. A case is one draw of rows (the last point of
the curve), test rows and seeds. --keep FOLDER keeps what was learned, so that another method is tried in seconds.
The cheap learners are deterministic: their seeds differ in the subset alone, and on all rows not at all. A model is
fine-tuned as `weitiao init` proposes for the last point's rows, and the last line is what was found as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from weitiao.config import DataSection, load_config
from weitiao.curve.fit import errors_at, falls, interval
from weitiao.curve.plan import SHARES, seeds_of
from weitiao.curve.points import Measured, points
from weitiao.data.source import read_rows
from weitiao.init.proposals import Rows, proposal
from weitiao.metrics.intervals import Statistic
from weitiao.prediction.baselines import dictionary, tfidf
from weitiao.tasks.base import Task, task_class, task_options

LEARNERS = {"tfidf": tfidf, "dictionary": dictionary}
TIMES = (2, 4)
CARD_GIB = 80.0
"""A card for which is proposed."""
VALIDATION_ROWS = 100
MAX_LENGTH = 512
"""Tokens; the sets' rows are shorter."""
Case = dict[str, Any]


def main() -> None:
    args = arguments()
    if args.learner == "model":
        found = with_a_model(args)
        told(found)
        print(json.dumps({"cases": found}))
        return
    task, train, test = examples(Path(args.source), args.learner)
    found = []
    for rows in args.rows:
        if 2 * rows > len(train):
            continue
        for case in range(args.cases):
            learned = kept(args, task, train, test, rows, case)
            found.append(judged(learned, statistic_of(task, test), args.seeds, rows))
    told(found)


def examples(folder: Path, learner: str) -> tuple[Task, list[Any], list[Any]]:
    section = DataSection(train=f"{folder}/train.jsonl")
    kind = "ner" if learner == "dictionary" else "classification"
    rows = {name: read_rows(folder / f"{name}.jsonl", section) for name in ("train", "test")}
    options = task_class(kind).resolve(task_options({"name": kind}), rows["train"])
    task = task_class(kind)(options)
    return task, *([task.example(row) for row in rows[name]] for name in ("train", "test"))


def task_of(source: str) -> str:
    """Of a folder of `weitiao data fetch`."""
    return "ner" if Path(source).name == "peoples-daily-ner" else "classification"


def statistic_of(task: Task, test: list[Any]) -> Statistic:
    return task.counts([e.answer for e in test], test)[1]


def kept(args: argparse.Namespace, task: Task, train: list[Any], test: list[Any], rows: int, case: int) -> Case:
    """Counts of each test row: `n-seed` → [test rows, k]."""
    file = Path(args.keep) / f"{args.learner}-{Path(args.source).name}-{rows}-{case}-{args.test_rows}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **learned(args, task, train, test, rows, case))
    return dict(np.load(file))


def learned(args: argparse.Namespace, task: Task, train: list[Any], test: list[Any], rows: int, case: int) -> Case:
    rng = random.Random(f"{rows} {case}")
    pool, asked = rng.sample(train, len(train)), rng.sample(test, min(args.test_rows, len(test)))
    ours = pool[:rows]
    parts = {f"{rows * k}-0": pool[: rows * k] for k in (1, *TIMES) if rows * k <= len(pool)}
    for share, seeds in zip(SHARES, seeds_of(SHARES, 3), strict=True):
        for seed in range(seeds if share < 100 else 0):
            few = round(share / 100 * rows)
            parts[f"{few}-{seed}"] = random.Random(f"{case} {seed}").sample(ours, rows)[:few]
    found = {}
    for name, part in parts.items():
        answers = LEARNERS[args.learner](part, asked)
        assert answers is not None
        found[name] = task.counts([a.answer for a in answers], asked)[0]
    return found


def judged(case: Case, statistic: Statistic, seeds: int, rows: int) -> Case:
    measured: dict[int, list[Any]] = {}
    for name, counts in case.items():
        number, seed = map(int, name.split("-"))
        if number <= rows and seed < seeds:
            measured.setdefault(number, []).append(counts)
    held = [k for k in TIMES if f"{rows * k}-0" in case]
    curve = points([Measured(n, counts) for n, counts in measured.items()], statistic, 1.0, seed=0)
    middle, low, high = interval(errors_at(curve, [rows * k for k in held], seed=0), curve)
    truth = np.array([1 - float(statistic(case[f"{rows * k}-0"].sum(axis=0))) for k in held])
    return {
        "rows": rows,
        "falls": falls(curve),
        "last": curve.errors[-1],
        "held": dict(zip(held, zip(middle, low, high, truth, strict=True), strict=True)),
    }


def told(cases: list[Case]) -> None:
    print(
        f"{'rows':>6} {'times':>5} {'cases':>5} {'within':>6} {'below':>6} {'above':>6} {'width':>6} "
        f"{'off':>7} {'last off':>8}"
    )
    for rows in [*sorted({case["rows"] for case in cases}), None]:
        for times in TIMES:
            some = [c for c in cases if times in c["held"] and rows in (c["rows"], None)]
            if not some:
                continue
            middle, low, high, truth = np.array([c["held"][times] for c in some]).T
            last = np.array([c["last"] for c in some])
            inside = np.mean((low <= truth) & (truth <= high))
            print(
                f"{rows or 'all':>6} {times:>5} {len(some):>5} {inside:6.3f} {np.mean(truth < low):6.3f} "
                f"{np.mean(truth > high):6.3f} {np.mean(high - low):6.3f} {np.mean(np.abs(middle - truth)):7.4f} "
                f"{np.mean(np.abs(last - truth)):8.4f}"
            )
    print(f"points that fall: {np.mean([case['falls'] for case in cases]):.3f}")


def with_a_model(args: argparse.Namespace) -> list[Case]:
    """Of each number of rows and seed, `weitiao curve`, and a run on twice and on four times the rows."""
    from weitiao.curve.walk import curve
    from weitiao.training.train import train

    found = []
    for rows, seed in product(args.rows, range(args.first_case, args.first_case + args.cases)):
        whole = proposed(args, rows, seed)
        said, cut = curve(load_config(told_rows(whole, rows, "cut")), seeds=args.seeds), {}
        for one in said["predictions"]:
            if one["times"] not in args.times:
                continue
            many = rows * one["times"]
            metrics = train(load_config(told_rows(whole, many, f"{one['times']}-times")))
            truth = metrics["systems"]["finetuned"][metrics["headline"]]
            cut[one["times"]] = tuple(1 - value for value in (one["score"], one["high"], one["low"], truth))
            print(
                f"seed {seed}, {one['times']} × {rows} rows: said {one['score']:.3f} [{one['low']:.3f}, "
                f"{one['high']:.3f}], found {truth:.3f}",
                flush=True,
            )
        found.append({"rows": rows, "falls": said["rises"], "last": 1 - said["points"][-1]["score"], "held": cut})
    return found


def proposed(args: argparse.Namespace, rows: int, seed: int) -> dict[str, Any]:
    """A config as `weitiao init` proposes it for so many rows, on a card, but for what takes time and tells nothing."""
    task = task_of(args.source)
    made = proposal(task, Rows(rows, 0, args.test_rows), [], 0, CARD_GIB, args.model)
    folder = Path(args.source)
    return {
        "run": {"output_dir": str(Path(args.keep) / "runs"), "name": f"{folder.name}-{rows}-{seed}", "seed": seed},
        "task": {"name": task},
        "model": {"name": args.model},
        "data": {
            "train": str(folder / "train.jsonl"),
            "test": str(folder / "test.jsonl"),
            "test_rows": args.test_rows,
            "validation_rows": VALIDATION_ROWS,
            "max_length": MAX_LENGTH,
        },
        "lora": dict(made.model.lora),
        "training": {
            "samples_per_step": made.samples.value,
            "num_train_epochs": made.epochs.value,
            "learning_rate": made.model.learning_rate,
            "warmup_steps": made.model.warmup_steps,
            "check_first": False,
            "on_cpu": "allow",
        },
        "evaluation": {"untuned": False},
    }


def told_rows(whole: dict[str, Any], rows: int, name: str) -> dict[str, Any]:
    run = {**whole["run"], "name": f"{whole['run']['name']}-{name}"}
    return {**whole, "run": run, "data": {**whole["data"], "train_rows": rows}}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER")
    parser.add_argument("--learner", choices=[*LEARNERS, "model"], default="tfidf")
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 200, 400, 800, 1600], help="of the last point")
    parser.add_argument("--cases", type=int, default=20, help="for each number of rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--times", type=int, nargs="+", default=TIMES, choices=TIMES, help="with --learner model")
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--keep", default="held-back", metavar="FOLDER")
    parser.add_argument("--model", default="pypi:qwen2.5-coder-1.5b-instruct", help="with --learner model")
    parser.add_argument("--first-case", type=int, default=1, help="with --learner model: the first one's seed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
