"""Answers for examples: the task's constraint decides how. Labels are scored, grammars are decoded.

`weitiao.load(run).predict(rows)` is the Python API; training and `evaluate` use `answer` on the model in hand.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from heapq import nlargest
from pathlib import Path
from typing import Any

import torch

from weitiao.data.encode import Encoder
from weitiao.data.pack import Prompt, prompt_row
from weitiao.data.prefix import prefix_groups
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
from weitiao.prediction.decode import Decoder
from weitiao.prediction.grammar import GrammarCompiler, Guide
from weitiao.prediction.greedy import refuse_decoding
from weitiao.prediction.label_scores import Asked, LabelScorer
from weitiao.prediction.slot_state import Decoded
from weitiao.prediction.thresholds import with_thresholds
from weitiao.prediction.token_places import TokenPlaces
from weitiao.prediction.windows import Advance, Windows
from weitiao.run_folder import Thresholds
from weitiao.tasks.base import Example, Task
from weitiao.tracking.screen import Screen
from weitiao.types import Choice, Constraint, Encoded, Grammar, Prediction, Row

BATCH_TOKENS = {"cuda": 16_384, "cpu": 2048}
"""Tokens of a prediction batch, unless the config says otherwise."""
LARGE = 40 * 2**30
"""Bytes of a card on which twice as many are computed at once: the host has half as many kernels to start."""
FIRST, AHEAD = 128, 1024
"""Rows that are encoded at once, where a card may compute others meanwhile: few at first, for it waits for them, then
twice as many each time, up to the second number."""
SLOTS = 16
"""Times as many may lie in the slots of answers that are being written, if the card has room: K and V take less than
what is computed."""
ALIKE = 4
MANY = 32
"""Rows of a call from which on weights are laid out anew for it on a CPU: that takes as long as it saves some 2,000
tokens. By the call, so that the same call has the same bits."""
NEAR = 0.1
"""Nats between the two likeliest labels below which 16 bits may take the other one. With 1.5 billion weights, of 1,730
reviews' differences 1 % are more than that off those in float32 (docs/speed.md)."""
EXACT = 4
"""As many times fewer tokens of a batch are computed at once in float32, which is as large again as two of 16 bits."""


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
        chat = encoder.chat
        self._labels = LabelScorer(self.forward, chat, self.batch_tokens)
        self._exact_labels = LabelScorer(self.forward, chat, self.batch_tokens // EXACT)
        self._grammars = grammars or GrammarCompiler(chat.tokenizer, weight.shape[0], chat.stop)
        self._decoder = Decoder(self.forward, chat.stop, budget, cuda_graphs)
        self._places = TokenPlaces(chat.tokenizer.decode)
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
        try:
            with torch.inference_mode(), self.forward.steady(len(examples) >= MANY), nothing_collected():
                way = self._labelled if self.task.lists_labels else self._written
                answers = way(examples, advance, decoding)
        finally:
            self.model.train(was_training)
            if was_training:
                self._decoder.rest()  # training needs the memory
        chosen = [with_thresholds(self.task, answer, self.thresholds) for answer in answers]
        return [_believable(answer, self.temperature) for answer in chosen]

    @contextlib.contextmanager
    def untuned(self) -> Iterator[None]:
        """The base model alone, under the same constraint."""
        fitted = self.temperature, self.thresholds
        self.temperature, self.thresholds = 1.0, Thresholds()
        try:
            with self.model.disable_adapter():
                yield
        finally:
            self.temperature, self.thresholds = fitted

    def _labelled(self, examples: Sequence[Example], advance: Advance, decoding: str) -> list[Prediction]:
        """By the scores of labels. While a card computes some rows, the next ones are encoded."""
        windows: list[tuple[Windows, dict[int, Prediction]]] = []
        coming: deque[tuple[dict[int, Prediction], Sequence[int]]] = deque()

        def asks() -> Iterator[Asked]:
            for block in _blocks(examples):
                asked = Windows(self.encoder, block)
                found: dict[int, Prediction] = {}
                windows.append((asked, found))
                constraints, counted = self._constraints(asked.rows), asked.counted(advance)
                for prefix, members, prompts in self._behind_prefixes(asked.encoded):
                    coming.append((found, members))
                    choices = [constraint for i in members if isinstance(constraint := constraints[i], Choice)]
                    yield Asked(prefix, prompts, choices, counted)

        for answers in self._labels.answers(asks(), decoding):
            found, members = coming.popleft()
            found.update(zip(members, answers, strict=True))
        if self.forward.rounds:
            self._decide_exactly(windows, decoding)
        return [
            answer for asked, found in windows for answer in asked.merged([found[i] for i in range(len(asked.rows))])
        ]

    def _decide_exactly(self, windows: Sequence[tuple[Windows, dict[int, Prediction]]], decoding: str) -> None:
        """Again, in float32, which one of two labels it is where 16 bits leave that open."""
        near = [(asked, found, i) for asked, found in windows for i, answer in found.items() if near_tie(answer)]
        limits = self._constraints([asked.rows[i] for asked, _, i in near])
        open_ = [
            (*row, limit)
            for row, limit in zip(near, limits, strict=True)
            if isinstance(limit, Choice) and not limit.many
        ]
        if not open_:
            return
        with self.forward.exactly():
            for prefix, members, prompts in self._behind_prefixes([asked.encoded[i] for asked, _, i, _ in open_]):
                choices = [open_[at][3] for at in members]
                answers = self._exact_labels.choose(Asked(prefix, prompts, choices), decoding)
                for at, answer in zip(members, answers, strict=True):
                    _, found, i, _ = open_[at]
                    found[i] = answer

    def _written(self, examples: Sequence[Example], advance: Advance, decoding: str) -> list[Prediction]:
        """Token by token."""
        asked = Windows(self.encoder, examples)
        constraints, counted = self._constraints(asked.rows), asked.counted(advance)
        out: dict[int, Prediction] = {}
        for prefix, members, prompts in self._behind_prefixes(asked.encoded):
            limits, rows = [constraints[i] for i in members], [asked.rows[i] for i in members]
            out.update(zip(members, self._decode(prefix, prompts, limits, rows, counted), strict=True))
        return asked.merged([out[i] for i in range(len(asked.rows))])

    def _constraints(self, rows: Sequence[Example]) -> list[Constraint]:
        normalize = self.encoder.chat.tokenizer.normalize
        return [self.task.constraint(row, normalize) for row in rows]

    def _behind_prefixes(
        self, encoded: Sequence[Encoded]
    ) -> Iterator[tuple[tuple[int, ...], Sequence[int], list[Prompt]]]:
        """Each shared prefix, the rows behind it, and what they ask there."""
        if self.forward.images is not None:
            self.forward.images.prepare([image for e in encoded for image in e.images])
        # Kernel by kernel, a batch of few rows takes about as long as a full one.
        for prefix, members in prefix_groups(encoded, len(encoded), pack_cost=self.batch_tokens):
            yield prefix, members, [prompt_row(encoded[i], len(prefix), self.encoder.chat.lead) for i in members]

    def _decode(
        self,
        prefix: tuple[int, ...],
        prompts: Sequence[Prompt],
        constraints: Sequence[Constraint],
        examples: Sequence[Example],
        advance: Advance,
    ) -> list[Prediction]:
        out: dict[int, Prediction] = {}

        def done(members: Sequence[int], answer: int, decoded: Decoded) -> None:
            out[members[answer]] = self._read(decoded, examples[members[answer]])
            advance(1)

        # A slot has room for the prefix, a prompt and its answer; few answers are longer than their prompt.
        sizes = [len(prefix) + len(prompt.ids) + min(len(prompt.ids), self._decoder.budget) for prompt in prompts]
        for members in _of_one_size(sizes):
            slots = max(1, SLOTS * self.batch_tokens // max(sizes[i] for i in members))
            guide = self._guide([constraints[i] for i in members])
            spent = partial(self._spent, [examples[i] for i in members])
            self._decoder.decode(prefix, [prompts[i] for i in members], guide, slots, spent, partial(done, members))
        return [out[i] for i in range(len(prompts))]

    def _guide(self, constraints: Sequence[Constraint]) -> Guide:
        grammars = [c for c in constraints if isinstance(c, Grammar)]
        return self._grammars.guide(grammars) if grammars else self._grammars.any_text

    def _spent(self, examples: Sequence[Example], row: int, ids: list[int]) -> bool:
        return self.task.spent(self.encoder.chat.tokenizer.decode(ids), examples[row])

    def _read(self, decoded: Decoded, example: Example) -> Prediction:
        whole = self.encoder.chat.tokenizer.decode(decoded.ids)
        text = whole if decoded.complete else self.task.complete_part(whole)
        probability = _exp(decoded.log_probability) if decoded.complete else None
        answer, parts = self.task.read(text, example)
        # A token that reaches over the end of a part counts for the part that it begins in.
        starts = self._places.starts(decoded.ids, whole) if parts else []
        chances = [
            _exp(sum(chance for at, chance in zip(starts, decoded.chances, strict=True) if start <= at < end))
            for start, end in parts
        ]
        return Prediction(answer, text, probability, parts=tuple(chances))


def _blocks(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    start, size = 0, FIRST
    while start < len(examples):
        yield examples[start : start + size]
        start, size = start + size, min(2 * size, AHEAD)


def near_tie(answer: Prediction) -> bool:
    """Whether the two likeliest labels are nearer to each other than 16 bits are sure to tell apart."""
    best = nlargest(2, answer.scores.values())
    return len(best) == 2 and best[0] < best[1] * math.exp(NEAR)


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


def _exp(log_probability: float) -> float:
    return min(math.exp(log_probability), 1.0)


def _believable(prediction: Prediction, temperature: float) -> Prediction:
    """With the probabilities of a temperature. It was fitted to whole answers and is taken for their parts as well: one
    model wrote both, and each part stays at least as likely as the whole."""
    # As an answer that has a probability alone.
    parts = [with_temperature(Prediction((), probability=part), temperature).probability for part in prediction.parts]
    return replace(with_temperature(prediction, temperature), parts=tuple(part or 0.0 for part in parts))


def _of_one_size(sizes: Sequence[int]) -> list[list[int]]:
    """Indices in groups whose sizes differ by a factor of `ALIKE` at most: slots are as large as the largest needs, and
    each group ends with a few long answers alone."""
    groups: list[list[int]] = []
    for at in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        if groups and sizes[groups[-1][0]] <= ALIKE * sizes[at]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return [sorted(group) for group in groups]
