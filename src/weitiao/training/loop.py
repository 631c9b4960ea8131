"""The training loop: our own, on accelerate, short enough to read at one sitting.

A step is `training.samples_per_step` examples, however many packs they fill. Its loss is the mean over all answer
tokens of the step, so it does not depend on how the examples are packed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from transformers import get_scheduler

from weitiao.config import RunConfig
from weitiao.data.collate import Batch, packed_batch, padded_batch
from weitiao.data.pack import PackRow, bins, pack, samples_of_step, steps_per_epoch, training_row
from weitiao.engine.forward import Forward
from weitiao.model.adapter import adapter_parameters
from weitiao.run_folder import RunFolder, TaskFile, whole_folder
from weitiao.tracking.record import Record
from weitiao.tracking.screen import Screen
from weitiao.training.checkpoint import Progress, load_checkpoint, save_checkpoint, write_adapter
from weitiao.training.guards import GradientGuard, NonFiniteError
from weitiao.types import Encoded

Evaluate = Callable[[], tuple[float, dict[str, float]]]
"""Value that chooses the best adapter (higher is better), and the figures to log."""


@dataclass
class Step:
    """What one optimizer update saw, still on the device."""

    loss: torch.Tensor
    norm: torch.Tensor
    rate: float
    samples: int
    tokens: int


class Loop:
    def __init__(
        self,
        config: RunConfig,
        model: Any,
        forward: Forward,
        examples: Sequence[Encoded],
        places: Sequence[str],
        prefix: tuple[int, ...],
        accelerator: Accelerator,
    ) -> None:
        """model: a PeftModel on its device, computed by `forward`. places: `file:line` of each of `examples`, which all
        begin with `prefix`."""
        self.config, self.model, self.forward, self.accelerator = config, model, forward, accelerator
        self.places, self.prefix = places, prefix
        self.rows = [training_row(e, len(prefix)) for e in examples]
        section = config.training
        self.per_epoch = steps_per_epoch(len(examples), section.samples_per_step)
        self.total = section.max_steps or max(1, round(section.num_train_epochs * self.per_epoch))
        self.parameters = [parameter for _, parameter in adapter_parameters(model)]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=section.learning_rate, weight_decay=section.weight_decay, fused=True
        )
        self.schedule = get_scheduler(section.lr_scheduler_type, self.optimizer, section.warmup_steps, self.total)
        self.guard = GradientGuard(self.optimizer, forward.device)
        self.progress = Progress()
        self._since: list[Step] = []
        """Steps since the last line of the log."""
        self._clock = time.monotonic()

    def resume(self, folder: Any) -> None:
        """Go on from a checkpoint folder."""
        self.progress = load_checkpoint(folder, self.model, self.optimizer)
        state = self.schedule.state_dict()
        state["last_epoch"] = self.progress.step
        self.schedule.load_state_dict(state)
        for group, base, scale in zip(
            self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * scale(self.progress.step)

    def run(self, folder: RunFolder, told: TaskFile, evaluate: Evaluate | None, log: Record, screen: Screen) -> None:
        """Train to the end; the best adapter is in `folder.adapter` afterwards.

        evaluate: measures the validation rows. None: the last adapter is the best.
        Raises NonFiniteError when a gradient was NaN or infinite; the weights are those before it.
        """
        every = self.config.evaluation.steps or self.per_epoch
        self.model.train()
        self._clock = time.monotonic()
        with screen.bar("training", self.total, "steps", self.progress.step) as advance:
            while self.progress.step < self.total and not self.progress.finished:
                self._update(log, advance)
                last = self.progress.step == self.total
                due = evaluate is not None and (self.progress.step % every == 0 or last)
                if evaluate is not None and due:
                    self._evaluate(evaluate, folder, told, log, screen)
                if due or last or self.progress.step % self.config.training.save_steps == 0:
                    self._save(folder, told)
        if evaluate is None:
            self._keep_as_best(folder, told)

    def _update(self, log: Record, advance: Callable[..., None]) -> None:
        """One step, and at the log interval its line."""
        self._since.append(self.step(self.progress.step))
        self.progress.step += 1
        step, note = self.progress.step, ""
        if step % self.config.training.logging_steps == 0 or step == self.total:
            self._refuse_non_finite()
            figures = self._figures(time.monotonic() - self._clock)
            log.write(step, epoch=round(step / self.per_epoch, 4), **figures)
            note = f"loss {figures['loss']:.3f}"
            self._since, self._clock = [], time.monotonic()
        advance(1, note)

    def step(self, number: int) -> Step:
        """One optimizer update, on the samples of step `number`."""
        seed, section = self.config.run.seed, self.config.training
        members = samples_of_step(len(self.rows), section.samples_per_step, seed, number)
        batches = self._batches([self.rows[i] for i in members])
        wanted = sum(len(batch.labels) for batch in batches)
        if self.config.lora.lora_dropout:
            torch.manual_seed(seed * 1_000_003 + number)
        total = torch.zeros((), device=self.forward.device)
        for batch in batches:
            with self.accelerator.autocast():
                loss = self.forward.loss(batch) / wanted
            self.accelerator.backward(loss)
            total += loss.detach().to(total.device)
        norm = self.guard.clip(self.parameters, section.max_grad_norm, number)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(total, norm, rate, len(members), sum(batch.input_ids.numel() for batch in batches))

    def _batches(self, rows: Sequence[PackRow]) -> list[Batch]:
        room = self.config.engine.tokens_per_pack
        if self.config.engine.packing:
            return [packed_batch(packed) for packed, _ in pack(self.prefix, rows, room)]
        lengths = [len(self.prefix) + len(row.ids) for row in rows]
        widest = max(lengths)
        # Bins of equal width: `room` bounds what padding fills, too.
        return [padded_batch(self.prefix, [rows[i] for i in members]) for members in bins([widest] * len(rows), room)]

    def _figures(self, seconds: float) -> dict[str, float]:
        """Means over the steps since the last line. Waits for the device."""
        steps = self._since
        losses = torch.stack([step.loss for step in steps]).tolist()
        norms = torch.stack([step.norm for step in steps]).tolist()
        return {
            "loss": sum(losses) / len(losses),
            "grad_norm": sum(norms) / len(norms),
            "learning_rate": steps[-1].rate,
            "samples_per_second": sum(step.samples for step in steps) / seconds,
            "tokens_per_second": sum(step.tokens for step in steps) / seconds,
        }

    def _refuse_non_finite(self) -> None:
        bad = self.guard.first_bad_step()
        if bad is not None:
            section = self.config.training
            members = samples_of_step(len(self.rows), section.samples_per_step, self.config.run.seed, bad)
            raise NonFiniteError(
                f"step {bad + 1}: the gradient is not finite; that update was left out, and nothing was saved since. "
                f"Lower training.learning_rate, or look at its rows: {', '.join(self.places[i] for i in members)}"
            )

    def _evaluate(self, evaluate: Evaluate, folder: RunFolder, told: TaskFile, log: Record, screen: Screen) -> None:
        self._refuse_non_finite()
        start = time.monotonic()
        value, figures = evaluate()
        progress = self.progress
        better = progress.best_value is None or value > progress.best_value
        log.write(progress.step, evaluation=figures, best=better)
        shown = ", ".join(f"{name} {number:.3f}" for name, number in figures.items())
        screen.note(f"step {progress.step}: validation {shown}{' (best so far)' if better else ''}")
        if better:
            progress.best_value, progress.best_step = value, progress.step
            progress.evaluations_without_gain = 0
            self._keep_as_best(folder, told)
        else:
            progress.evaluations_without_gain += 1
        patience = self.config.evaluation.early_stopping_patience
        if patience is not None and progress.evaluations_without_gain >= patience:
            screen.note(f"stopping early: no better adapter in {patience} evaluations")
            progress.finished = True
        # Rates in the log are those of training alone.
        self._clock += time.monotonic() - start

    def _keep_as_best(self, folder: RunFolder, told: TaskFile) -> None:
        with whole_folder(folder.adapter) as draft:
            write_adapter(draft, self.model, told)

    def _save(self, folder: RunFolder, told: TaskFile) -> None:
        self._refuse_non_finite()
        save_checkpoint(folder.checkpoint(self.progress.step), self.model, told, self.optimizer, self.progress)
        folder.keep_checkpoints(self.progress.best_step)
