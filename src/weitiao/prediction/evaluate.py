"""Predictions and their measure: the fine-tuned model beside the untuned one and the task's baselines."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weitiao.config import SCHEMA_VERSION, RunConfig
from weitiao.data.formats.text_file import encoding_like
from weitiao.data.source import data_file, read_rows
from weitiao.data.splits import fingerprint, load
from weitiao.errors import ConfigError, DataError
from weitiao.metrics.classification import calibration
from weitiao.prediction.adapter_folder import open_folder
from weitiao.prediction.baselines import BASELINES
from weitiao.prediction.calibration import with_temperature, withheld
from weitiao.prediction.columns import columns_of_file
from weitiao.prediction.thresholds import chooses_several, headline_at
from weitiao.run_folder import RunFolder, Thresholds, find_adapter
from weitiao.tasks.base import Example, Task
from weitiao.tracking.screen import Screen
from weitiao.types import Prediction

if TYPE_CHECKING:
    from weitiao.prediction.predictor import Predictor

Systems = dict[str, list[Prediction]]


def answers_of_systems(
    predictor: Predictor,
    train: Sequence[Example],
    test: Sequence[Example],
    *,
    baselines: bool,
    untuned: bool,
    screen: Screen,
) -> Systems:
    """System → its predictions for `test`; `train` is what the baselines learn from."""
    systems: Systems = {"finetuned": _answers(predictor, test, "predicting", screen)}
    if untuned:
        with predictor.untuned():
            systems["untuned"] = _answers(predictor, test, "predicting untuned", screen)
    if baselines:
        for name, baseline in BASELINES.get(predictor.task.name, {}).items():
            answers = baseline(train, test)
            if answers is not None:
                systems[name] = answers
    return systems


def measured(
    task: Task,
    systems: Systems,
    test: Sequence[Example],
    *,
    split: str,
    bootstrap: int,
    seed: int,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """The content of `metrics.json`.

    temperature: of the fine-tuned system's probabilities; where it has an `ece`, `ece_uncalibrated` says what that was
        without it. Where it chooses several labels, `micro_f1_at_half` says what the headline metric would be if each
        were given from a probability of 0.5 on.
    `ceiling` is the headline metric of every reference answer, written and read back: what the output format allows.
    """
    figures = {name: task.measure(answers, test, bootstrap=bootstrap, seed=seed) for name, answers in systems.items()}
    if "ece" in figures.get("finetuned", {}):
        raw = [with_temperature(answer, 1 / temperature) for answer in systems["finetuned"]]
        right = np.array([task.right(a.answer, e) for a, e in zip(raw, test, strict=True)])
        figures["finetuned"]["ece_uncalibrated"] = calibration([a.probability for a in raw], right)["ece"]
    if any(map(chooses_several, systems.get("finetuned", ()))):
        at_half = headline_at(Thresholds(), task, systems["finetuned"], test)
        figures["finetuned"][f"{task.headline}_at_half"] = at_half
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "split": split,
        "rows": len(test),
        "headline": task.headline,
        "ceiling": task.best_possible(test)[task.headline] if test else None,
        "systems": figures,
    }


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    *,
    images: str | None = None,
    baselines: bool = False,
    screen: Screen | None = None,
) -> dict[str, Any]:
    """Measure a run's adapter anew, on its own test rows or on the labelled rows of the file `data`.

    images: folder of that file's images; by default the run's `data.images`, or the folder of the file.
    A file without the run's columns is read by the standard names, such as `text` and `label` (`columns.py`).
    With `baselines`, the untuned model and the task's baselines too (they learn from the run's training rows).
    Returns the shape of `metrics.json`; writes nothing.
    """
    screen = screen or Screen(silent=True)
    config = run_config(run)
    folder = open_folder(run)
    train: Sequence[Example] = ()
    if data is None or baselines:
        _refuse_changed_data(folder.path.parent, config)
        _, splits = load(config.data, folder.task.options, config.run.seed)
        split, test, train = (
            ("test", splits.test, splits.train) if splits.test else ("validation", splits.validation, splits.train)
        )
    if data is not None:
        told = {"encoding": encoding_like(data_file(data), folder.told.encoding), "columns": folder.told.columns}
        told |= {"images": images} if images else {}
        section = config.data.model_copy(update=told)
        columns = columns_of_file(folder.task, data, section, labelled=True, screen=screen)
        section = section.model_copy(update={"columns": columns})
        split, test = str(data), [folder.task.example(row) for row in read_rows(str(data), section)]
    if not test:
        raise ConfigError(f"{run}: the run has no test or validation rows; name a labelled file with --data")

    from weitiao.prediction.predictor import Predictor  # torch takes seconds to import

    predictor = Predictor.open(folder)
    systems = answers_of_systems(predictor, train, test, baselines=baselines, untuned=baselines, screen=screen)
    section_ = config.evaluation
    return measured(
        folder.task,
        systems,
        test,
        split=split,
        bootstrap=section_.bootstrap,
        seed=config.run.seed,
        temperature=folder.told.temperature,
    )


def run_config(run: str | Path) -> RunConfig:
    """Config of the run that a run, adapter or checkpoint folder belongs to."""
    folder = find_adapter(run)
    return RunFolder(folder.parent).read_config()


def _refuse_changed_data(run: Path, config: RunConfig) -> None:
    """Other files would give other splits, and rows that were trained on among those to measure."""
    trained = RunFolder(run).read_data()["files"]
    changed = [path for path, digest in fingerprint(config.data).items() if trained.get(path) != digest]
    if changed:
        raise DataError(
            f"{changed[0]}: is not the file that {run} was trained with; "
            "restore it, or name a labelled file with --data"
        )


def write_predictions(path: Path, task: Task, examples: Sequence[Example], answers: Sequence[Prediction]) -> None:
    """One JSON line a row, see `prediction_record`."""
    draft = path.with_name(f".{path.name}.partial")
    with draft.open("w", encoding="utf-8") as file:
        for example, answer in zip(examples, answers, strict=True):
            file.write(json.dumps(prediction_record(task, example, answer), ensure_ascii=False, default=str) + "\n")
    draft.replace(path)


def prediction_record(
    task: Task, example: Example, answer: Prediction, abstain_below: float | None = None, top: int = 0
) -> dict[str, Any]:
    """A row of `predictions.jsonl`: the input's own fields, `prediction`, `probability` and, where it has one,
    `reference`. Below the probability `abstain_below` the prediction is null, and `suggestion` says what it was.
    top: so many of the likeliest labels are listed, too, each with its probability."""
    told = {"prediction": task.told(answer), "probability": answer.probability}
    if withheld(answer, abstain_below):
        told = {"prediction": None, "suggestion": told["prediction"], "probability": answer.probability}
    if top:
        likeliest = sorted(answer.scores.items(), key=lambda item: -item[1])[:top]
        told["top"] = [{"label": label, "probability": probability} for label, probability in likeliest]
    record = {**example.row.fields, **told}
    if example.answer is not None:
        record["reference"] = task.record(example.answer)
    return record


def _answers(predictor: Predictor, examples: Sequence[Example], title: str, screen: Screen) -> list[Prediction]:
    start = time.monotonic()
    with screen.bar(title, len(examples), "rows") as advance:
        answers = predictor.answer(examples, advance)
    screen.note(f"{title}: {len(examples)} rows in {time.monotonic() - start:.1f} s")
    return answers
