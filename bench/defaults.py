"""How near the values that `weitiao init` proposes come to the best of a small sweep: 12 runs a set and size.

    python bench/defaults.py RUNS.jsonl --data FOLDER [--model NAME] [--minutes 9]
    python bench/defaults.py RUNS.jsonl --table

FOLDER has a folder for each set, as `weitiao data fetch` writes them; what is missing is fetched. Runs are put together
from the parts of `weitiao train`, around one base model that is loaded once: the adapter goes back to what it began as,
and all runs of a set are measured on the same test rows. The values around which the sweep is laid, and `max_length`,
warm-up and rank, are `init/proposals.py`'s for so many rows. Each run is one line of RUNS.jsonl as soon as it is done,
and is not done again; `--table` prints what the file holds as Markdown, by the rules as they are now.

Unlike `weitiao train`, a run is validated at most twice, not once an epoch, and nothing is computed again to save
memory. Without a card, --gib proposes as for one.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weitiao.config import RunConfig, load_config
from weitiao.cost.at_hand import Card, card
from weitiao.data.fetch import fetch
from weitiao.data.pack import steps_per_epoch
from weitiao.data.splits import Splits, load
from weitiao.init.counts import lengths_of
from weitiao.init.proposals import Proposal, Rows, proposal
from weitiao.metrics.classification import share
from weitiao.metrics.entities import f1
from weitiao.metrics.intervals import Statistic, paired_difference
from weitiao.tasks.base import Task, task_options

Line = dict[str, Any]
SETS = {"product-reviews": "classification", "peoples-daily-ner": "ner", "movie-reviews": "classification"}
MEASURED = ("product-reviews", "peoples-daily-ner")
SIZES = (200, 1000, 5000)
MODEL = "pypi:qwen2.5-coder-1.5b-instruct"
SEED = 42
RESAMPLES = 1000
POINT = 0.01
SWEEP = (
    (1, 1, 1),
    (2, 1, 1),
    (1, 2, 1),
    (0.5, 1, 1),
    (4, 1, 1),
    (2, 2, 1),
    (1, 1, 0.5),
    (1, 0.5, 1),
    (1, 1, 2),
    (2, 1, 2),
    (4, 1, 2),
    (4, 0.5, 1),
)
"""Multiples of the proposed learning rate, epochs and samples a step; those that tell most come first."""
TOGETHER = 4
"""So many points of each set and size are tried before the next ones of all."""
VALIDATIONS = 2
STATISTICS: dict[str, Statistic] = {"accuracy": share, "f1": f1}
KEY = ("set", "rows", "model", "seed", "test_rows", "validation_rows", "learning_rate", "epochs", "samples_per_step")


@dataclass(frozen=True)
class Point:
    """A run of the sweep."""

    set: str
    rows: int
    learning_rate: float
    epochs: float
    samples_per_step: int

    def told(self) -> str:
        return f"{self.learning_rate:.3g} × {self.epochs:g} epochs × {self.samples_per_step}"


def points(asked: argparse.Namespace) -> Iterator[Point]:
    """All runs, in the order in which they are done."""
    for first in range(0, len(SWEEP[: asked.runs]), TOGETHER):
        for rows in asked.rows:
            for name in asked.sets:
                for multiples in SWEEP[: asked.runs][first : first + TOGETHER]:
                    yield point(name, rows, proposed(asked, name, rows), multiples)


def point(name: str, rows: int, made: Proposal, multiples: Sequence[float] = (1, 1, 1)) -> Point:
    rate, epochs, samples = multiples
    return Point(
        name,
        rows,
        float(f"{made.model.learning_rate * rate:.3g}"),
        made.epochs.value * epochs,
        max(1, round(made.samples.value * samples)),
    )


def proposed(asked: argparse.Namespace, name: str, rows: int, texts: Sequence[str] = ()) -> Proposal:
    """What `weitiao init` would write for a file of so many training rows."""
    here = card_here()
    made = proposal(
        SETS[name],
        Rows(rows, asked.validation_rows, asked.test_rows),
        list(map(lengths_of, texts)),
        0,
        here.gib if here else asked.gib,
        asked.model,
    )
    if "train_rows" in made.limits:
        sys.exit(f"--rows {rows}: without a card init takes {made.limits['train_rows']} of them; say --gib 80")
    return made


@cache
def card_here() -> Card | None:
    return card()


def key(asked: argparse.Namespace, one: Point) -> tuple[Any, ...]:
    told = {**vars(one), **{name: getattr(asked, name) for name in ("test_rows", "validation_rows")}}
    return tuple({**told, "model": asked.model, "seed": SEED}[name] for name in KEY)


class Setting:
    """What all runs of a set and a number of rows share."""

    predictor: Any = None

    def __init__(self, asked: argparse.Namespace, bench: Bench, name: str, rows: int) -> None:
        self.asked, self.bench, self.name, self.rows = asked, bench, name, rows
        first = load_config({**self._sections(1024), "lora": {}, "training": {}})
        self.task: Task
        self.splits: Splits
        self.task, self.splits = load(first.data, task_options(first.task), SEED)
        self.made = proposed(asked, name, rows, [example.text for example in self.splits.train])
        self.encoder = bench.base.encoder(self.task, self.made.max_length.value, None)
        self.encoded = self.encoder.trainings(self.splits.train)

    def open(self) -> None:
        """Weights are laid together for one setting at a time."""
        from weitiao.training import parts

        bench, config = self.bench, self.config(point(self.name, self.rows, self.made))
        model = bench.adapted(config)
        self.told = parts.task_file(config, self.task, bench.base, self.encoded, "one")
        self.predictor = parts.predictor(config, bench.base, self.task, self.encoder, model, self.told)

    def config(self, one: Point) -> RunConfig:
        per_epoch = steps_per_epoch(len(self.splits.train), one.samples_per_step)
        total = max(1, round(one.epochs * per_epoch))
        return load_config(
            {
                **self._sections(self.made.max_length.value),
                "lora": dict(self.made.model.lora),
                "training": {
                    "samples_per_step": one.samples_per_step,
                    "num_train_epochs": one.epochs,
                    "learning_rate": one.learning_rate,
                    "warmup_steps": self.made.model.warmup_steps,
                    "gradient_checkpointing": "off",
                    "save_steps": total,
                    "keep_checkpoints": 1,
                    "on_cpu": "allow",
                },
                "evaluation": {"steps": max(per_epoch, -(-total // VALIDATIONS))},
            }
        )

    def _sections(self, max_length: int) -> dict[str, Any]:
        asked, folder = self.asked, self.asked.data / self.name
        return {
            "run": {"output_dir": str(self.bench.folder), "name": "run", "seed": SEED},
            "task": {"name": SETS[self.name]},
            "model": {"name": asked.model},
            "data": {
                **{split: str(folder / f"{split}.jsonl") for split in ("train", "test")},
                "validation": str(folder / "validation.jsonl") if asked.validation_rows else None,
                "train_rows": self.rows,
                "validation_rows": asked.validation_rows or None,
                "test_rows": asked.test_rows,
                "max_length": max_length,
            },
        }


class Bench:
    """The base model, and the one adapter that is trained again and again."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        from weitiao.config import ModelSection
        from weitiao.model.base import open_base
        from weitiao.tracking.screen import Screen

        self.asked, self.folder, self.screen = asked, folder, Screen(silent=True)
        self.base = open_base(ModelSection(name=asked.model))
        self._adapted: Any = None
        self._begun: dict[str, Any] = {}

    @cached_property
    def frozen(self) -> Any:
        from weitiao.model.load import choose_device, choose_dtype, load_model

        device = choose_device("auto")
        return load_model(self.base.folder, device, choose_dtype("auto", device), "one")

    def adapted(self, config: RunConfig) -> Any:
        from weitiao.model.adapter import adapter_parameters
        from weitiao.training import parts

        if self._adapted is None:
            self._adapted, self._lora = parts.adapted(config, self.base, self.frozen, self.screen), config.lora
            self._begun = {name: p.detach().clone() for name, p in adapter_parameters(self._adapted)}
        assert config.lora == self._lora, "all runs train an adapter of the same shape"
        return self._adapted

    def begin_again(self) -> None:
        """The adapter is what `add_lora` made."""
        import torch

        from weitiao.model.adapter import adapter_parameters

        with torch.no_grad():
            for name, parameter in adapter_parameters(self._adapted):
                parameter.copy_(self._begun[name])
                parameter.grad = None


def trained(setting: Setting, one: Point) -> Line:
    """A run as `weitiao train` does it; its line of the file."""
    from weitiao.run_folder import RunFolder
    from weitiao.tracking.record import Record
    from weitiao.training import parts

    clock = Clock()
    bench, splits, config = setting.bench, setting.splits, setting.config(one)
    bench.begin_again()
    places = [example.row.place for example in splits.train]
    loop = parts.loop(config, bench.adapted(config), setting.predictor, setting.encoded, places, bench.screen)
    run = RunFolder(config.folder)
    run.clear()
    run.start(config, {})
    clock.note("preparing")
    validate = parts.evaluation(config, setting.task, setting.predictor, splits, bench.screen)
    timed = Timed(loop.model, validate) if validate else None
    with Record(run, config, bench.screen) as log:
        loop.run(run, setting.told, timed, log, bench.screen)
    clock.note("training")
    if loop.progress.best_step not in (None, loop.progress.step):
        parts.use_best(loop.model, run)
    loop.model.eval()  # else what answers were written with is given back, and made anew for the next run
    answers = setting.predictor.answer(splits.test)
    clock.note("answering")
    figures = setting.task.measure(answers, splits.test, bootstrap=RESAMPLES, seed=SEED)
    counts, _ = setting.task.counts([answer.answer for answer in answers], splits.test)
    headline = setting.task.headline
    seconds = {**clock.seconds, "validating": timed.seconds if timed else 0.0}
    seconds["training"] -= seconds["validating"]
    return {
        "steps": loop.progress.step,
        "best_step": loop.progress.best_step,
        "max_length": config.data.max_length,
        "headline": headline,
        **{name: figures[f"{headline}{name.removeprefix('score')}"] for name in ("score", "score_low", "score_high")},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "device": str(loop.forward.device),
        "counts": counts.tolist(),
    }


class Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


class Timed:
    """An evaluation that keeps what answers are written with, for here there is memory enough."""

    def __init__(self, model: Any, evaluate: Callable[[], tuple[float, dict[str, float]]]) -> None:
        self.model, self.evaluate, self.seconds = model, evaluate, 0.0

    def __call__(self) -> tuple[float, dict[str, float]]:
        start = time.perf_counter()
        self.model.eval()
        found = self.evaluate()
        self.model.train()
        self.seconds += time.perf_counter() - start
        return found


def sweep(asked: argparse.Namespace) -> int:
    """The number of runs that are still to be done."""
    end = time.monotonic() + 60 * asked.minutes
    done = {tuple(line[name] for name in KEY) for line in lines(asked.file)}
    left = [one for one in points(asked) if key(asked, one) not in done]
    said(f"{len(left)} runs to do")
    if not left:
        return 0
    with tempfile.TemporaryDirectory(prefix="weitiao-defaults-") as folder:
        bench, known = Bench(asked, Path(folder)), dict[tuple[str, int], Setting]()
        for number, one in enumerate(left, 1):
            if time.monotonic() > end:
                said(f"{asked.minutes:g} minutes are over; the same command goes on")
                return len(left) - number + 1
            start = time.perf_counter()
            place = one.set, one.rows
            if place not in known:
                fetched(asked.data, one.set)
                known[place] = Setting(asked, bench, *place)
            setting = known[place]
            if setting.predictor is None:
                for other in known.values():
                    other.predictor = None
                gc.collect()
                setting.open()
            told = dict(zip(KEY, key(asked, one), strict=True)) | trained(setting, one)
            gc.collect()  # graphs and their memory hang in cycles
            told["seconds"]["whole"] = round(time.perf_counter() - start, 2)
            written(asked.file, told)
            said(
                f"{number} of {len(left)}: {one.set}, {one.rows} rows, {one.told()}: {told['headline']} "
                f"{told['score']:.3f}, {told['steps']} steps, seconds {told['seconds']}"
            )
    return 0


def fetched(folder: Path, name: str) -> None:
    if not (folder / name / "train.jsonl").exists():
        fetch(name, folder / name)


def written(file: Path, told: Line) -> None:
    whole = not file.exists() or file.read_bytes()[-1:] in (b"", b"\n")
    with file.open("a", encoding="utf-8") as opened:
        opened.write("\n" * (not whole) + json.dumps(told, ensure_ascii=False) + "\n")


def lines(file: Path) -> list[Line]:
    """Finished runs; a line that was cut off by a kill is none."""
    found = []
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            said(f"{file}: one line is cut off, and its run is done again")
    return found


def table(asked: argparse.Namespace) -> str:
    """In Markdown."""
    rows = [
        "| set | training rows | runs | best: learning rate × epochs × samples a step | score | proposed | score "
        "| gap, points | within 1 point |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in asked.sets:
        for size in asked.rows:
            shown = [
                line
                for line in lines(asked.file)
                if (line["set"], line["rows"]) == (name, size) and line["model"] == asked.model
            ]
            if shown:
                rows.append(_row(asked, shown, name, size))
    return "\n".join(rows)


def _row(asked: argparse.Namespace, runs: Sequence[Line], name: str, size: int) -> str:
    wanted = key(asked, point(name, size, proposed(asked, name, size)))
    best = max(runs, key=lambda line: line["score"])
    ours = next((line for line in runs if tuple(line[part] for part in KEY) == wanted), None)
    cells = [name, f"{size:,}", len(runs), _told(best), _score(best), "not measured", "", "", ""]
    if ours is not None:
        gap = [100 * value for value in _difference(best, ours)]
        within = "yes" if best["score"] - ours["score"] <= POINT else "no"
        cells[5:] = [_told(ours), _score(ours), f"{gap[0]:.1f} [{gap[1]:.1f}, {gap[2]:.1f}]", within]
    return f"| {' | '.join(map(str, cells))} |"


def _difference(best: Line, ours: Line) -> tuple[float, float, float]:
    """Of the two scores, with the interval of a paired bootstrap over the test rows."""
    first, second = (np.array(line["counts"]) for line in (best, ours))
    return paired_difference(first, second, STATISTICS[best["headline"]], resamples=RESAMPLES, seed=SEED)


def _told(line: Line) -> str:
    return Point(**{name: line[name] for name in Point.__dataclass_fields__}).told()


def _score(line: Line) -> str:
    return f"{line['headline']} {line['score']:.3f} [{line['score_low']:.3f}, {line['score_high']:.3f}]"


def said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="RUNS.jsonl")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the sets")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=MEASURED)
    parser.add_argument("--rows", nargs="+", type=int, default=SIZES, help="training rows")
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--validation-rows", type=int, default=100, help="0: the last adapter is taken")
    parser.add_argument("--runs", type=int, default=len(SWEEP), help="of each set and size, the first of the sweep")
    parser.add_argument("--gib", type=float, help="of a card, where none is here")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no run is begun after so many")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    if asked.table:
        print(table(asked))
    else:
        asked.file.parent.mkdir(parents=True, exist_ok=True)
        print(json.dumps({"left": sweep(asked)}))


if __name__ == "__main__":
    main()
