"""The training loop: our own, on accelerate, short enough to read at one sitting.

A step is `training.samples_per_step` examples, however many packs they fill. Its loss is the mean over all answer
tokens of the step, so it does not depend on how the examples are packed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from weitiao.config import RunConfig
from weitiao.data.collate import Batch, packed_batch, padded_batch
from weitiao.data.pack import Pack, PackRow, bins, pack, samples_of_step, steps_per_epoch, training_row
from weitiao.data.prefix import PrefixGroup, prefix_groups
from weitiao.engine import plain
from weitiao.engine.forward import Forward
from weitiao.engine.graphs import PackGraphs, RecordedCall, Size
from weitiao.engine.memory import fit
from weitiao.engine.room import DEFAULT, Fit
from weitiao.engine.split_attention import split_layout, worth_sharing
from weitiao.model.adapter import adapter_parameters
from weitiao.run_folder import RunFolder, TaskFile, whole_folder
from weitiao.tracking.record import Record
from weitiao.tracking.screen import Screen
from weitiao.training.checkpoint import Progress, load_checkpoint, save_checkpoint, write_adapter
from weitiao.training.guards import GradientGuard, LossScale, NonFiniteError
from weitiao.training.schedule import learning_rate_shares
from weitiao.training.stopping import Stopping
from weitiao.types import Encoded

Evaluate = Callable[[], tuple[float, dict[str, float]]]
"""Value that chooses the best adapter (higher is better), and the figures to log."""

PACKS = 4096
"""More than a step has."""
ROOM_TO_EVALUATE = 4 * 2**30
"""Bytes on the card below which training's graphs make room for the validation rows."""
LOOKED_AHEAD = 200
"""Steps whose packs tell what sizes to prepare for."""


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
        begin with `prefix`; packs begin with it, with more where some share that, or with nothing where that is
        faster."""
        self.config, self.model, self.forward, self.accelerator = config, model, forward, accelerator
        self.places = places
        section = config.training
        # Padded rows have a copy of the prefix each: groups would gain nothing.
        groups = [PrefixGroup(prefix, tuple(range(len(examples))))]
        if config.engine.packing:
            groups = [self._worth(group, examples) for group in prefix_groups(examples, section.samples_per_step)]
        self.prefixes = list(dict.fromkeys(group.prefix for group in groups))
        self.prefix_of = {i: self.prefixes.index(group.prefix) for group in groups for i in group.members}
        """Row → index of its prefix."""
        self.rows = [training_row(e, len(self.prefixes[self.prefix_of[i]])) for i, e in enumerate(examples)]
        self.per_epoch = steps_per_epoch(len(examples), section.samples_per_step)
        self.total = section.max_steps or max(1, round(section.num_train_epochs * self.per_epoch))
        self.parameters = [parameter for _, parameter in adapter_parameters(model)]
        self.fit = self._fit()
        self.graphs = self._graphs() if self._recordable() else None
        rate: Any = section.learning_rate
        if self.graphs is not None:
            rate = torch.tensor(rate, device=forward.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=rate,
            weight_decay=section.weight_decay,
            fused=True,
            capturable=self.graphs is not None,
        )
        self.share_of_rate = learning_rate_shares(section.lr_scheduler_type, section.warmup_steps, self.total)
        self.guard = GradientGuard(self.optimizer, forward.device)
        self.scale = LossScale(None, 0) if forward.head.weight.dtype == torch.float16 else None
        self._norm = torch.zeros((), device=forward.device)
        self._change_weights: Callable[[], None] = self._changed
        if self.graphs is not None:
            self._change_weights = RecordedCall(self._changed)
        self.progress = Progress()
        self._since: list[Step] = []
        """Steps since the last line of the log."""
        self._clock = time.monotonic()

    def _worth(self, group: PrefixGroup, examples: Sequence[Encoded]) -> PrefixGroup:
        """The group, or its rows with nothing in common where that is faster."""
        own = [len(examples[i].ids) - 1 - len(group.prefix) for i in group.members]
        shared = self.forward.way != "split" or worth_sharing(len(group.prefix), own)
        return group if shared else group._replace(prefix=())

    def resume(self, folder: Any) -> None:
        """Go on from a checkpoint folder."""
        self.progress = load_checkpoint(folder, self.model, self.optimizer)
        if self.scale is not None:
            self.scale = LossScale(self.progress.loss_scale, self.progress.without_overflow)

    def run(self, folder: RunFolder, told: TaskFile, evaluate: Evaluate | None, log: Record, screen: Screen) -> None:
        """Train to the end; the best adapter is in `folder.adapter` afterwards.

        evaluate: measures the validation rows. None: the last adapter is the best.
        Raises NonFiniteError when a gradient was NaN or infinite; the weights are those before it. KeyboardInterrupt
        in a step comes behind it, once there is its checkpoint.
        """
        every = self.config.evaluation.steps or self.per_epoch
        self.model.train()
        self._clock = time.monotonic()
        stopping = Stopping(screen, self.accelerator.num_processes == 1)
        with screen.bar("training", self.total, "steps", self.progress.step) as advance:
            while self.progress.step < self.total and not self.progress.finished:
                self._update(log, advance, stopping)
                last = self.progress.step == self.total
                due = evaluate is not None and (self.progress.step % every == 0 or last)
                if evaluate is not None and due:
                    self._evaluate(evaluate, folder, told, log, screen)
                saved = self.progress.step % self.config.training.save_steps == 0
                if due or last or saved or stopping.asked:
                    self._save(folder, told)
                if stopping.asked:
                    raise KeyboardInterrupt
        if evaluate is None:
            self._keep_as_best(folder, told)
        if self.graphs is not None:
            self.graphs.rest()

    def _update(self, log: Record, advance: Callable[..., None], stopping: Stopping) -> None:
        """One step, and at the log interval its line."""
        with stopping.at_the_end():
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
        share = 1 / sum(len(self.rows[i].labels) for i in members)
        noise = (seed * 1_000_003 + number) * PACKS
        rate = section.learning_rate * self.share_of_rate(number)
        self._set_rate(rate)
        gradient = self._recorded_gradient if self.graphs else self._gradient
        loss, tokens = gradient(members, share, noise)
        self._change_weights()
        while self.scale is not None and self.scale.again(self.guard.raised):
            loss, tokens = gradient(members, share, noise)
            self._change_weights()
        self.guard.note(number)
        return Step(loss, self._norm.clone(), rate, len(members), tokens)

    def _gradient(self, members: Sequence[int], share: float, noise: int) -> tuple[torch.Tensor, int]:
        """Loss and computed tokens of rows, by index; the gradient is with the parameters. noise: seed of the first
        pack."""
        batches = self._batches(members)
        total = torch.zeros((), device=self.forward.device)
        for at, batch in enumerate(batches):
            self._seed_dropout(noise + at)
            with self.accelerator.autocast():
                loss = self.forward.loss(batch) * share
            self.accelerator.backward(loss if self.scale is None else loss * self.scale.value)
            total += loss.detach().to(total.device)
        return total, sum(batch.input_ids.numel() for batch in batches)

    def _recorded_gradient(self, members: Sequence[int], share: float, noise: int) -> tuple[torch.Tensor, int]:
        """The same by CUDA graphs."""
        assert self.graphs is not None
        self.graphs.loss.zero_()
        packs = self._packs(members)
        for at, packed in enumerate(packs):
            self._seed_dropout(noise + at)
            self.graphs.add(packed, share)
        return self.graphs.loss.clone(), sum(packed.tokens for packed in packs)

    def _changed(self) -> None:
        """Gradients to weights; of what a graph holds, nothing moves."""
        if self.scale is not None:
            self.scale.unscale(self.parameters)
        norm = self.guard.clip(self.parameters, self.config.training.max_grad_norm)
        self._norm.copy_(norm)
        self.guard.update()
        self.optimizer.zero_grad(set_to_none=self.graphs is None)

    def _seed_dropout(self, number: int) -> None:
        """Masks depend on run, step and pack alone, so that a run goes on as if it had not been interrupted."""
        if not self.config.lora.lora_dropout:
            return
        torch.manual_seed(number)  # for layers that are left to PEFT
        if self.forward.fast is not None:
            self.forward.fast.seed.fill_(number)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _fit(self) -> Fit:
        config, forward = self.config, self.forward
        asked = config.engine.tokens_per_pack
        if not (config.engine.packing and forward.fast is not None):
            return Fit(asked or DEFAULT["cpu"], "nothing")
        longest = max(len(self.prefixes[self.prefix_of[i]]) + len(row.ids) for i, row in enumerate(self.rows))
        reads = sorted((len(row.labels) for row in self.rows), reverse=True)[: config.training.samples_per_step]
        found = fit(forward, config.training.gradient_checkpointing, asked, longest, sum(reads))
        forward.fast.recompute = found.recompute
        return found

    def _graphs(self) -> PackGraphs:
        """For packs as those of the first steps are."""
        section = self.config.training
        needs: list[Size] = []
        steps = min(self.total, LOOKED_AHEAD)
        for number in range(steps):
            members = samples_of_step(len(self.rows), section.samples_per_step, self.config.run.seed, number)
            needs += [Size.of(packed) for packed in self._packs(members)]
        return PackGraphs(self.forward, self.parameters, needs, round(len(needs) / steps * self.total))

    def _packs(self, members: Sequence[int]) -> list[Pack]:
        """Rows of one group in each."""
        groups: dict[int, list[PackRow]] = defaultdict(list)
        for i in members:
            groups[self.prefix_of[i]].append(self.rows[i])
        room = self.fit.tokens
        return [packed for at, rows in groups.items() for packed, _ in pack(self.prefixes[at], rows, room)]

    def _recordable(self) -> bool:
        """Whether a step can be CUDA graphs. What a trained vision tower sees is of no fixed size, and torch's dropout
        is no function of what a graph reads."""
        engine, forward = self.config.engine, self.forward
        if not (engine.cuda_graphs and engine.packing and forward.fast is not None):
            return False
        unsteady = self.config.lora.lora_dropout > 0 and forward.kernels is plain and forward.device.type == "cuda"
        trained = forward.images is not None and forward.images.trained
        longest = max(*map(len, self.prefixes), *(len(row.ids) for row in self.rows))
        layout = split_layout(0, (longest,))
        took = layout.takes(forward.head.weight.dtype, forward.fast.layers[0].heads, forward.kernels)
        return forward.way == "split" and took and not unsteady and not trained

    def _batches(self, members: Sequence[int]) -> list[Batch]:
        if self.config.engine.packing:
            return [packed_batch(packed) for packed in self._packs(members)]
        [prefix], rows = self.prefixes, [self.rows[i] for i in members]
        widest = len(prefix) + max(len(row.ids) for row in rows)
        # Bins of equal width: `room` bounds what padding fills, too.
        room = self.fit.tokens
        return [padded_batch(prefix, [rows[i] for i in at]) for at in bins([widest] * len(rows), room)]

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
            hint = "; float16 overflows sooner than other types: model.dtype=float32" if self.scale else ""
            raise NonFiniteError(
                f"step {bad + 1}: the gradient is not finite; that update was left out, and nothing was saved since. "
                f"Lower training.learning_rate, or look at its rows: {', '.join(self.places[i] for i in members)}{hint}"
            )

    def _evaluate(self, evaluate: Evaluate, folder: RunFolder, told: TaskFile, log: Record, screen: Screen) -> None:
        self._refuse_non_finite()
        start = time.monotonic()
        if self.graphs is not None and torch.cuda.mem_get_info(self.forward.device)[0] < ROOM_TO_EVALUATE:
            self.graphs.rest()
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
        if self.scale is not None:
            self.progress.loss_scale, self.progress.without_overflow = self.scale.value, self.scale.without
        save_checkpoint(folder.checkpoint(self.progress.step), self.model, told, self.optimizer, self.progress)
        folder.keep_checkpoints(self.progress.best_step, self.config.training.keep_checkpoints)
