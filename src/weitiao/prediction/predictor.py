"""Answers for examples: labels are scored (`labelled.py`), what a grammar allows is written (`written.py`).

`weitiao.load(run).predict(rows)` is the Python API; training and `evaluate` use `answer` on the model in hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from weitiao.data.encode import Encoder
from weitiao.engine.attention_plan import choose_way
from weitiao.engine.bare import open_bare
from weitiao.engine.forward import Forward, kernels_ahead
from weitiao.engine.image_features import ImageFeatures, image_features
from weitiao.model.adapter import open_adapter
from weitiao.model.ahead import beside, nothing_collected
from weitiao.model.load import choose_device, choose_dtype, load_model
from weitiao.model.merge import Merged
from weitiao.model.placement import place
from weitiao.prediction.adapter_folder import AdapterFolder, open_folder
from weitiao.prediction.calibration import given, with_temperature
from weitiao.prediction.columns import columns_for
from weitiao.prediction.grammar import GrammarCompiler
from weitiao.prediction.greedy import refuse_decoding
from weitiao.prediction.labelled import Labelled
from weitiao.prediction.prompts import Prompts
from weitiao.prediction.thresholds import with_thresholds
from weitiao.prediction.windows import Advance
from weitiao.prediction.written import Written
from weitiao.run_folder import Thresholds
from weitiao.tasks.base import Example, Task
from weitiao.tracking.screen import Screen
from weitiao.types import Prediction, Row

BATCH_TOKENS = {"cuda": 16_384, "cpu": 2048}
"""Tokens of a prediction batch, unless the config says otherwise."""
LARGE = 40 * 2**30
"""Bytes of a card on which twice as many are computed at once: the host has half as many kernels to start."""
MANY = 32
"""Rows of a call from which on weights are laid out anew for it on a CPU: that takes as long as it saves some 2,000
tokens. By the call, so that the same call has the same bits."""
NEAR = 0.15
"""Nats between the two likeliest labels, or tokens, below which 16 bits may take the other one: with 1.5 billion
weights that difference is 0.03 off in the median and 0.1 in 1 of 100 reviews, with random ones more (decision 0023)."""


def load(run: str | Path, device: str = "auto", dtype: str = "auto", merged: bool = False) -> Predictor:
    """The fine-tuned model of a run folder (or of an adapter or checkpoint folder), ready to answer.

    merged: fold the adapter into the weights, if some of the run's held-out rows are then answered as without.
    """
    folder = open_folder(run)
    if not merged:
        return Predictor.open(folder, device, dtype)
    from weitiao.prediction import agreement

    screen = Screen()
    rows = agreement.held_out(folder, agreement.ROWS, screen)
    return agreement.open_merged(folder, rows, screen, device, dtype)


class Predictor:
    def __init__(
        self,
        task: Task,
        encoder: Encoder,
        model: Any,
        *,
        budget: int,
        batch_tokens: int | None = None,
        attention: str = "auto",
        fast_layer: bool = True,
        triton: bool = True,
        cuda_graphs: bool = True,
        images: ImageFeatures | None = None,
        grammars: GrammarCompiler | None = None,
    ) -> None:
        """model: a PeftModel, `Bare` or `Merged`. budget: most tokens of a decoded answer. images: for a model that
        reads them. grammars: for the encoder's tokenizer, if there is one already."""
        self.task, self.encoder, self.model = task, encoder, model
        base = model.get_base_model()
        weight = base.get_output_embeddings().weight
        self.forward = Forward(base, choose_way(attention, weight.device, weight.dtype), images, fast_layer, triton)
        self.batch_tokens = batch_tokens or _batch_tokens(weight.device)
        grammars = grammars or GrammarCompiler(encoder.chat.tokenizer, weight.shape[0], encoder.chat.stop)
        self._prompts = Prompts(encoder, images, self.batch_tokens)
        self._labelled = Labelled(self._prompts, self.forward)
        self._written = Written(self._prompts, self.forward, grammars, budget, cuda_graphs)
        self.near = NEAR
        """What hinges on less, in nats, is decided in float32 where a model rounds to 16 bits; 0: nothing is."""
        self.columns: Mapping[str, str] = {}
        self.temperature = 1.0
        """Of the probabilities; see calibration.py."""
        self.thresholds = Thresholds()
        """Of several labels; see thresholds.py."""

    @classmethod
    def open(cls, folder: AdapterFolder, device: str = "auto", dtype: str = "auto", merging: bool = False) -> Predictor:
        """The model with its adapter in memory. merging: the adapter will be folded in, so it has to be PEFT's."""
        where = choose_device(device)
        type_ = choose_dtype(dtype, where)
        # On a card, the weights that it was trained on, whatever would fit here; elsewhere there are no 4 bits.
        wanted = (folder.told.base.quantization or "auto") if where.type == "cuda" else "one"
        kind = place(wanted, folder.base.folder, where, type_).kind
        quick = folder.outline if kind == "one" and not merging else None
        model = grammars = None
        if quick:
            chat = folder.encoder.chat
            grammars = GrammarCompiler(chat.tokenizer, quick.config["vocab_size"], chat.stop)
            # Reading weights leaves Python's lock to others.
            ready = beside(partial(_make_ready, where, None if folder.task.lists_labels else grammars))
            try:
                model = open_bare(quick, where, type_)
            finally:
                ready.join()
        if model is None:
            base = load_model(folder.base.folder, where, type_, kind)
            model = open_adapter(base, folder.path).eval()
        return cls.around(folder, model, grammars=grammars)

    @classmethod
    def around(
        cls, folder: AdapterFolder, model: Any, image_cache_gib: float = 20, grammars: GrammarCompiler | None = None
    ) -> Predictor:
        """A model in memory, with its adapter apart or folded in. image_cache_gib: 0 keeps no features of images.
        grammars: as in `Predictor`."""
        base = model.get_base_model()
        if isinstance(model, Merged) and any("visual" in name.split(".") for name in model.layers):
            image_cache_gib = 0  # the folder's tower gives others
        found = cls(
            folder.task,
            folder.encoder,
            model,
            budget=folder.told.max_answer_tokens,
            images=image_features(base, folder.base.folder, folder.told.base.cache_dir, image_cache_gib),
            grammars=grammars,
        )
        found.columns = folder.told.columns
        found.temperature, found.thresholds = folder.told.temperature, folder.told.thresholds
        return found

    @property
    def wants_many(self) -> bool:
        """Whether many rows at once are faster than a few hundred. The images of all of them would be kept."""
        return self.forward.device.type == "cuda" and self.forward.images is None

    def predict(
        self,
        rows: Sequence[Mapping[str, Any] | str],
        abstain_below: float | None = None,
        images: str | Path = ".",
        decoding: str = "exact",
    ) -> list[Prediction]:
        """Answers to rows, given as mappings with the fields of the training file, or the standard names in their
        place, or as bare texts.

        images: folder that the paths of images are relative to, and below which they must lie.
        abstain_below: an answer of a lower probability is None; its `text` still says it.
        decoding: of one label: `exact` is the likeliest one, `greedy` the one that taking the likeliest token each time
            leads to (`greedy.py`). Probabilities are the same.
        Raises DataError, which counts the rows from 1, for a row that is none; ConfigError for a decoding that the task
        does not have.
        """
        refuse_decoding(self.task, decoding)
        whole = [{self.columns.get("text", "text"): row} if isinstance(row, str) else dict(row) for row in rows]
        given_rows = [Row(fields, "rows", number, self.columns, str(images)) for number, fields in enumerate(whole, 1)]
        examples = [
            self.task.example(replace(row, columns=columns_for(self.task, row, labelled=False)), labelled=False)
            for row in given_rows
        ]
        return [given(answer, abstain_below) for answer in self.answer(examples, decoding=decoding)]

    def answer(
        self, examples: Sequence[Example], advance: Advance = lambda rows: None, decoding: str = "exact"
    ) -> list[Prediction]:
        """A prediction for each example, in order; `advance` is told how many rows are done.

        decoding: as in `predict`, which refuses what the task does not have.
        """
        if not examples:
            return []
        was_training = self.model.training
        self.model.eval()
        # Prompts with labels are packed; answers are written by few at a time.
        together = self.batch_tokens if self.task.lists_labels else MANY
        rows = together if len(examples) >= MANY else 0
        try:
            with torch.inference_mode(), self.forward.steady(rows), nothing_collected():
                if self.task.lists_labels:
                    answers = self._labelled.answers(examples, advance, decoding, self.near)
                else:
                    answers = self._written.answers(examples, advance, self.near)
        finally:
            self.model.train(was_training)
            if was_training:
                self._written.rest()  # training needs the memory
        chosen = [with_thresholds(self.task, answer, self.thresholds) for answer in answers]
        return [_believable(answer, self.temperature) for answer in chosen]

    @contextlib.contextmanager
    def untuned(self) -> Iterator[None]:
        """The base model alone, under the same constraint."""
        fitted = self.temperature, self.thresholds, self.near
        self.temperature, self.thresholds, self.near = 1.0, Thresholds(), 0.0
        try:
            with self.model.disable_adapter():
                yield
        finally:
            self.temperature, self.thresholds, self.near = fitted


def _make_ready(device: torch.device, grammars: GrammarCompiler | None) -> None:
    """What a first answer needs besides weights; grammars: where answers are written."""
    if grammars is not None:
        grammars.read_vocabulary()
    if device.type == "cuda":
        kernels_ahead()


def _batch_tokens(device: torch.device) -> int:
    tokens = BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])
    large = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= LARGE
    return 2 * tokens if large else tokens


def _believable(prediction: Prediction, temperature: float) -> Prediction:
    """With the probabilities of a temperature. It was fitted to whole answers and is taken for their parts as well: one
    model wrote both, and each part stays at least as likely as the whole."""
    # As an answer that has a probability alone.
    parts = [with_temperature(Prediction((), probability=part), temperature).probability for part in prediction.parts]
    return replace(with_temperature(prediction, temperature), parts=tuple(part or 0.0 for part in parts))
