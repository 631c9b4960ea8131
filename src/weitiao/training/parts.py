"""What a training run is put together from. `train` calls these in order; each makes one part from the ones before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from weitiao.config import RunConfig
from weitiao.data.encode import Encoder, answer_budget
from weitiao.data.formats.text_file import text_encoding
from weitiao.data.prefix import common_prefix
from weitiao.data.source import data_file
from weitiao.data.splits import Splits
from weitiao.engine.image_features import image_features, unique
from weitiao.engine.memory import wants_recompute
from weitiao.errors import CheckpointError, ConfigError
from weitiao.model.adapter import add_lora, native
from weitiao.model.base import Base
from weitiao.model.placement import Kind
from weitiao.model.quiet import quiet
from weitiao.prediction.calibration import fit_temperature
from weitiao.prediction.predictor import Predictor
from weitiao.prediction.thresholds import fit_thresholds, thresholds_note, with_thresholds
from weitiao.run_folder import TASK_FILE, BaseName, RunFolder, TaskFile, damage, read_task_file, write_json
from weitiao.tasks.base import Example, Task
from weitiao.tracking.screen import Screen
from weitiao.training.checkpoint import load_weights
from weitiao.training.disk import checkpoints_at_most, told_disk
from weitiao.training.loop import Evaluate, Loop
from weitiao.types import Encoded, PlacedImage


def adapted(config: RunConfig, base: Base, frozen: Any, screen: Screen) -> Any:
    """The frozen model with fresh adapters."""
    if config.lora.lora_dropout and config.engine.packing:
        screen.note("lora_dropout > 0: rows that share a prefix share its dropout mask; lora.lora_dropout=0 is exact")
    other = [t for t in config.lora.target_modules or () if t in base.family.lora_aliases]
    if other:
        told = "; ".join(f"{target} is {', '.join(native(target, base.family))}" for target in other)
        screen.note(f"lora.target_modules: in this model {told}")
    return add_lora(frozen, config.lora, base.family, config.run.seed)


def task_file(config: RunConfig, task: Task, base: Base, encoded: Sequence[Encoded], placement: Kind) -> TaskFile:
    return TaskFile(
        task=task.options.model_dump(mode="json"),
        family=base.family_name,
        template_hash=base.chat.hash,
        tokenizer_hash=base.tokenizer.hash,
        stop_ids=list(base.chat.stops),
        base=BaseName(
            name=config.model.name,
            fingerprint=base.fingerprint,
            cache_dir=config.model.cache_dir,
            quantization="nf4" if placement == "nf4" else None,
        ),
        max_length=config.data.max_length,
        max_answer_tokens=answer_budget(max(len(e.answer) for e in encoded)),
        images=base.image_limits(config.data),
        columns=config.data.columns,
        encoding=text_encoding(data_file(config.data.train), config.data.encoding),
    )


def predictor(config: RunConfig, base: Base, task: Task, encoder: Encoder, model: Any, told: TaskFile) -> Predictor:
    limit = config.engine.image_cache_gib
    return Predictor(
        task,
        encoder,
        model,
        budget=told.max_answer_tokens,
        batch_tokens=config.evaluation.batch_tokens,
        attention=config.engine.attention,
        fast_layer=config.engine.fast_layer,
        triton=config.engine.triton,
        cuda_graphs=config.engine.cuda_graphs,
        images=image_features(model.get_base_model(), base.folder, config.model.cache_dir, limit),
    )


def look_at(images: Sequence[PlacedImage], predictor: Predictor, screen: Screen) -> None:
    """Ask a frozen vision tower about every image that is not known from an earlier run."""
    features = predictor.forward.images
    if features is None or not images:
        return
    if features.trained:
        with screen.bar("reading", len(images), "images") as advance:
            for image in unique(images):
                features.reader.pixels(image)
                advance(1)
        return
    with screen.bar("looking at", len(unique(images)), "images") as advance:
        features.prepare(images, advance)


def loop(
    config: RunConfig,
    model: Any,
    predictor: Predictor,
    encoded: Sequence[Encoded],
    places: Sequence[str],
    screen: Screen,
) -> Loop:
    weight = predictor.forward.head.weight
    # accelerate keeps the device and type of a process's first run; a notebook may have another one now.
    AcceleratorState._reset_state(reset_partial_state=True)
    # The adapters are float32; next to a bfloat16 base they compute in bfloat16, which PEFT's own do under autocast.
    ours = predictor.forward.fast is not None and config.engine.packing
    mixed = weight.dtype == torch.bfloat16 and not ours
    accelerator = Accelerator(cpu=weight.device.type == "cpu", mixed_precision="bf16" if mixed else "no")
    if accelerator.num_processes > 1:
        raise ConfigError("training on several processes is not supported; start one process with one visible GPU")
    if not ours and wants_recompute(
        config.training.gradient_checkpointing, model.config, config.engine.tokens_per_pack, weight.device
    ):
        with quiet():
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        screen.note("activations are recomputed in the backward pass (training.gradient_checkpointing)")
    made = Loop(config, model, predictor.forward, encoded, places, common_prefix(encoded), accelerator)
    if predictor.forward.slow_because:
        screen.note(f"layers are left to transformers (engine.fast_layer): {predictor.forward.slow_because}")
    if made.fit.recompute != "nothing":
        what = "whole layers" if made.fit.recompute == "layer" else "gate and up"
        screen.note(f"{what} are computed again in the backward pass (training.gradient_checkpointing)")
    if made.fit.bytes_per_token:
        screen.note(f"packs of {made.fit.tokens:,} tokens, of {made.fit.bytes_per_token / 2**20:.2f} MiB each")
    return made


def disk(config: RunConfig, run: RunFolder, loop: Loop) -> str:
    """What the run takes on the disk; ConfigError when it has no room."""
    adapter = sum(parameter.numel() * parameter.element_size() for parameter in loop.parameters)
    return told_disk(run, adapter, checkpoints_at_most(config, loop.total, loop.per_epoch))


def evaluation(config: RunConfig, task: Task, predictor: Predictor, splits: Splits, screen: Screen) -> Evaluate | None:
    """Measures the validation rows by the metric that chooses the best adapter; None when there are none."""
    rows = _validation_rows(config, splits)
    if not rows:
        return None
    name = config.evaluation.metric or task.headline

    def evaluate() -> tuple[float, dict[str, float]]:
        with screen.bar("validating", len(rows), "rows") as advance:
            answers = predictor.answer(rows, advance)
        figures = task.measure(answers, rows, bootstrap=100, seed=config.run.seed)
        return float(figures[name]), {name: float(figures[name])}

    return evaluate


def calibrate(config: RunConfig, predictor: Predictor, splits: Splits, run: RunFolder, screen: Screen) -> None:
    """Fit thresholds (of several labels) and temperature of the best adapter on the validation rows, and write them
    into its `task.json`; there are none for free text, of which hardly any equals its reference."""
    rows = _validation_rows(config, splits)
    if not rows or not predictor.task.has_labels:
        return
    with screen.bar("calibrating", len(rows), "rows") as advance:
        answers = predictor.answer(rows, advance)
    task = predictor.task
    predictor.thresholds = fit_thresholds(answers, rows)
    if note := thresholds_note(task, answers, rows, predictor.thresholds):
        screen.note(note)
    # The temperature is that of the answers that are given.
    chosen = [with_thresholds(task, answer, predictor.thresholds) for answer in answers]
    predictor.temperature = fit_temperature(task, chosen, rows)
    fitted = {"temperature": predictor.temperature, "thresholds": predictor.thresholds}
    told = read_task_file(run.adapter).model_copy(update=fitted)
    write_json(run.adapter / TASK_FILE, told.model_dump(mode="json"))
    screen.note(f"probabilities calibrated on {len(rows)} validation rows (temperature {predictor.temperature:.2f})")


def _validation_rows(config: RunConfig, splits: Splits) -> list[Example]:
    rows, limit = list(splits.validation), config.evaluation.max_rows
    if limit is None or len(rows) <= limit:
        return rows
    return random.Random(config.split_seed).sample(rows, limit)


def use_best(model: Any, run: RunFolder) -> None:
    """Put the run's best adapter into the model that was trained. Raises CheckpointError when it is damaged."""
    problem = damage(run.adapter, editable=[TASK_FILE])
    if problem:
        raise CheckpointError(f"{run.adapter}: damaged adapter ({problem}); train again with --overwrite")
    load_weights(run.adapter, model)
