"""The walk of a training run: config → rows → examples → tokens → model → loop → metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.config import SCHEMA_VERSION, RunConfig, load_config
from weitiao.data.splits import Splits, fingerprint, load
from weitiao.run_folder import RunFolder, TaskFile, write_json
from weitiao.tasks.base import Task, task_options
from weitiao.tracking.jsonl import JsonlLog
from weitiao.tracking.screen import Screen


def train(
    config: RunConfig | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    *,
    overwrite: bool = False,
    screen: Screen | None = None,
) -> dict[str, Any]:
    """Fine-tune, measure, and leave a run folder. Returns the content of its `metrics.json`.

    config: a RunConfig, a mapping, a YAML file, or the name of a shipped config.
    The same call goes on with an unfinished run and returns a finished one's metrics; a folder that holds a run of
    another config is refused, unless `overwrite`.
    """
    config = config if isinstance(config, RunConfig) else load_config(config, overrides)
    screen = screen or Screen()
    run = RunFolder(config.folder)
    task, splits = load(config.data, task_options(config.task), config.run.seed)
    facts = _data_facts(config, splits)
    if run.exists and overwrite:
        run.clear()
    if run.exists:
        run.refuse_other(config, facts)
        if run.finished:
            screen.note(f"{run.path}: this run is finished; here are its metrics (--overwrite trains again)")
            return json.loads(run.metrics.read_text("utf-8"))
    for note in splits.notes:
        screen.note(note)
    return _train(config, run, task, splits, facts, screen)


def _train(
    config: RunConfig, run: RunFolder, task: Task, splits: Splits, facts: dict[str, Any], screen: Screen
) -> dict[str, Any]:
    # torch takes seconds to import; a wrong key or a broken row is told before that.
    from weitiao.model.load import choose_device, choose_dtype, load_model
    from weitiao.training import parts

    base = parts.open_base(config)
    encoder = parts.encoder(config, task, base)
    encoded = parts.encoded(encoder, splits, screen)
    device = choose_device(config.model.device)
    dtype = choose_dtype(config.model.dtype, device)
    screen.note(f"loading {config.model.name} ({base.family_name}) on {device} as {str(dtype).removeprefix('torch.')}")
    model = parts.adapted(config, base, load_model(base.folder, device, dtype), screen)
    told = parts.task_file(config, task, base, encoded)
    predictor = parts.predictor(config, task, encoder, model, told)
    loop = parts.loop(config, model, predictor, encoded, screen)

    checkpoint = run.newest_checkpoint() if run.exists else None
    if checkpoint is not None:
        loop.resume(checkpoint)
        screen.note(f"going on from {checkpoint}")
    run.start(config, facts)
    _run_loop(loop, run, told, parts.evaluation(config, task, predictor, splits, screen), screen)
    parts.use_best(model, run)
    return _measure(config, run, task, predictor, splits, screen)


def _run_loop(loop: Any, run: RunFolder, told: TaskFile, evaluate: Any, screen: Screen) -> None:
    log = JsonlLog(run.log, loop.progress.step)
    start = time.monotonic()
    try:
        loop.run(run, told, evaluate, log, screen)
        seconds = time.monotonic() - start
        log.write(loop.progress.step, training_seconds=round(seconds, 3))
    finally:
        log.close()
    screen.note(f"trained in {seconds:.1f} s; adapter in {run.adapter}")


def _measure(
    config: RunConfig, run: RunFolder, task: Task, predictor: Any, splits: Splits, screen: Screen
) -> dict[str, Any]:
    """Metrics of the best adapter on the test rows (or, for want of them, on the validation rows), written last:
    a run with `metrics.json` is finished."""
    from weitiao.prediction.evaluate import answers_of_systems, measured, write_predictions

    split, rows = ("test", splits.test) if splits.test else ("validation", splits.validation)
    section = config.evaluation
    systems = answers_of_systems(
        predictor, splits.train, rows, baselines=section.baselines, untuned=section.untuned, screen=screen
    )
    metrics = measured(task, systems, rows, split=split, bootstrap=section.bootstrap, seed=config.run.seed)
    write_predictions(run.predictions, task, rows, systems["finetuned"])
    write_json(run.metrics, metrics)
    return metrics


def _data_facts(config: RunConfig, splits: Splits) -> dict[str, Any]:
    sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    return {"schema_version": SCHEMA_VERSION, "files": fingerprint(config.data), "rows": sizes}
