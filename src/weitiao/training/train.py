"""The walk of a training run: config → rows → examples → tokens → model → loop → metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.config import SCHEMA_VERSION, RunConfig, load_config
from weitiao.data.encode import Encoder, shortening_note
from weitiao.data.prefix import common_prefix, prefix_groups
from weitiao.data.splits import Splits, fingerprint, load, read_as
from weitiao.data.summary import summary
from weitiao.engine.build import Building, build_ahead
from weitiao.model.ahead import FOR_THE_REPORT, FOR_TRAINING, import_ahead, libraries_ahead
from weitiao.model.base import open_base
from weitiao.run_folder import RunFolder, TaskFile, write_json
from weitiao.tasks.base import Task, task_options
from weitiao.tracking.machine import machine, peak_memory
from weitiao.tracking.record import Record
from weitiao.tracking.screen import Screen
from weitiao.tracking.trackers import refuse_missing
from weitiao.types import Encoded, PlacedImage


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
    run.refuse_blocked()
    if run.exists and not overwrite:
        run.refuse_other(config, facts)
        if run.finished:
            screen.note(f"{run.path}: this run is finished; here are its metrics (--overwrite trains again)")
            return run.read_metrics()
    return _train(config, run, task, splits, facts, overwrite, screen)


def _train(
    config: RunConfig,
    run: RunFolder,
    task: Task,
    splits: Splits,
    facts: dict[str, Any],
    overwrite: bool,
    screen: Screen,
) -> dict[str, Any]:
    if config.evaluation.metric:
        task.check_metric(config.evaluation.metric, splits.train[0])
    refuse_missing(config.tracking)
    base = open_base(config.model)
    base.fingerprint  # noqa: B018  (damaged weights are told here)
    encoder = base.encoder(task, config.data.max_length, base.image_limits(config.data))
    building = Building()
    kernels = config.engine.fast_layer and config.engine.triton and config.engine.packing
    if kernels and config.model.device in ("auto", "cuda") and config.model.dtype != "float16":
        building = build_ahead(
            base.folder, config.lora.r, config.lora.lora_dropout > 0, config.model.cache_dir, config.model.dtype
        )
    libraries = libraries_ahead(FOR_TRAINING, base.folder, config.model.device)
    encoded, images, facts_of_splits, notes = _encoded(encoder, splits, config.training.samples_per_step)

    # torch takes seconds to import; a wrong key, a broken row or a damaged file is told before that.
    libraries.join()
    from weitiao.engine.attention_plan import choose_way
    from weitiao.model.load import choose_device, choose_dtype, load_model
    from weitiao.model.placement import place
    from weitiao.training import parts
    from weitiao.training.on_cpu import refuse_large

    device = choose_device(config.model.device)
    dtype = choose_dtype(config.model.dtype, device)
    choose_way(config.engine.attention, device, dtype)
    if device.type == "cpu":
        refuse_large(config, base.folder, dtype, encoded, len(common_prefix(encoded)))
    for note in [*read_as(config.data), *splits.notes, *splits.repeats, *notes]:
        screen.once(note)
    placement = place(config.model.placement, base.folder, device, dtype)
    screen.note(f"loading {config.model.name} ({base.family_name}) on {device} as {str(dtype).removeprefix('torch.')}")
    if placement.note:
        screen.note(placement.note)
    model = parts.adapted(config, base, load_model(base.folder, device, dtype, placement.kind), screen)
    told = parts.task_file(config, task, base, encoded, placement.kind)
    predictor = parts.predictor(config, base, task, encoder, model, told)
    building.finish()
    loop = parts.loop(config, model, predictor, encoded, [example.row.place for example in splits.train], screen)
    screen.note(parts.disk(config, run, loop))
    parts.look_at(images, predictor, screen)

    # From here on the folder changes: all that can be refused has been checked.
    if overwrite:
        run.clear()
    checkpoint = run.newest_checkpoint() if run.exists else None
    if checkpoint is not None:
        loop.resume(checkpoint)
        screen.note(f"going on from {checkpoint}")
    run.start(config, facts)
    import_ahead(FOR_THE_REPORT)
    with Record(run, config, screen, loop.progress.step) as log:
        log.write(loop.progress.step, started=machine(device), data=facts_of_splits)
        _run_loop(loop, run, told, parts.evaluation(config, task, predictor, splits, screen), log, screen)
        if checkpoint is not None or loop.progress.best_step not in (None, loop.progress.step):
            parts.use_best(model, run)  # else it is what the last step left
        parts.calibrate(config, predictor, splits, run, screen)
        metrics = _measure(config, run, task, predictor, splits, screen)
        log.write(loop.progress.step, finished=peak_memory(device))
        log.result(loop.progress.step, metrics, run.predictions)
    _report(run, screen)
    return metrics


def _report(run: RunFolder, screen: Screen) -> None:
    """A page that cannot be made is no reason to lose hours of training: whatever goes wrong is one line."""
    try:
        from weitiao.report.page import write_report

        screen.note(f"report in {write_report(run.path)}")
    except Exception as error:
        screen.note(f"no report ({type(error).__name__}: {error}); `weitiao report {run.path}` tries again")


def _encoded(
    encoder: Encoder, splits: Splits, samples_per_step: int
) -> tuple[list[Encoded], list[PlacedImage], dict[str, Any], list[str]]:
    """(training rows as tokens, images of all rows, a summary of each split, what to tell of them). Held-out rows are
    rendered once too, so that none fails after hours of training."""
    notes, facts, images = [], {}, []
    for name in ("test", "validation", "train"):
        examples = getattr(splits, name)
        encoded = encoder.trainings(examples)
        facts[name] = summary(encoder.task, examples, encoded)
        images += [image for e in encoded for image in e.images]
        if note := shortening_note(examples, encoded, encoder.task, name):
            notes.append(note)
    notes.append(
        f"{len(encoded)} training rows, {sum(len(e.ids) for e in encoded):,} tokens, "
        f"of which each row shares the first {_shared(encoded, samples_per_step)}; "
        f"{len(splits.validation)} validation and {len(splits.test)} test rows"
    )
    return encoded, images, facts, notes


def _shared(encoded: Sequence[Encoded], samples_per_step: int) -> str:
    """Tokens, or with the fewest and most of several groups."""
    lengths = [len(group.prefix) for group in prefix_groups(encoded, samples_per_step)]
    if len(lengths) == 1:
        return str(lengths[0])
    return f"{min(lengths)} to {max(lengths)} with its group, of {len(lengths)}"


def _run_loop(loop: Any, run: RunFolder, told: TaskFile, evaluate: Any, log: Record, screen: Screen) -> None:
    start = time.monotonic()
    loop.run(run, told, evaluate, log, screen)
    seconds = time.monotonic() - start
    log.write(loop.progress.step, training_seconds=round(seconds, 3))
    screen.note(f"trained in {seconds:.1f} s; adapter in {run.adapter}")


def _measure(
    config: RunConfig, run: RunFolder, task: Task, predictor: Any, splits: Splits, screen: Screen
) -> dict[str, Any]:
    """Metrics of the best adapter on the test rows (or, for want of them, on the validation rows), written last:
    a run with `metrics.json` is finished."""
    from weitiao.prediction.evaluate import answers_of_systems, measured, write_predictions

    split, rows = ("test", splits.test) if splits.test else ("validation", splits.validation)
    section = config.evaluation
    systems = {}
    if rows:
        systems = answers_of_systems(
            predictor, splits.train, rows, baselines=section.baselines, untuned=section.untuned, screen=screen
        )
        write_predictions(run.predictions, task, rows, systems["finetuned"])
    else:
        screen.note("nothing was measured, for want of test and validation rows")
    metrics = measured(
        task,
        systems,
        rows,
        split=split,
        bootstrap=section.bootstrap,
        seed=config.run.seed,
        temperature=predictor.temperature,
    )
    write_json(run.metrics, metrics)
    return metrics


def _data_facts(config: RunConfig, splits: Splits) -> dict[str, Any]:
    sizes = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    return {"schema_version": SCHEMA_VERSION, "files": fingerprint(config.data), "rows": sizes}
