"""Packing with one shared prefix changes nothing but speed: the same loss and the same gradient of every adapter as
plain Hugging Face code, sample by sample."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from parity.oracle import TOLERANCE, gradients, lora_model, loss_and_gradients, worst_error
from tiny import OPINIONS, THINGS
from weitiao.data.collate import Batch, packed_batch, padded_batch
from weitiao.data.encode import Encoder
from weitiao.data.pack import pack, training_row
from weitiao.data.prefix import common_prefix, prefix_groups
from weitiao.engine.fast_layer import FastDecoder
from weitiao.engine.forward import Forward
from weitiao.families.base import families, family_of
from weitiao.families.tokenizer import TextTokenizer
from weitiao.tasks.classification import Classification, ClassificationOptions
from weitiao.types import Encoded, Row

WAYS = ("rows", "dense", "padded", "fast")
"""`fast`: as `rows`, the layers by `engine/fast_layer`."""
Change = Callable[[Batch], Batch]


@dataclass
class Setup:
    ours: Any
    oracle: Any
    samples: list[Encoded]
    """Rendered rows of a task: one instruction, texts and answers of several lengths."""

    def step(
        self,
        samples: Sequence[Encoded],
        prefix: int,
        way: str,
        tokens_per_pack: int = 4096,
        change: Change = lambda batch: batch,
    ) -> tuple[float, dict[str, torch.Tensor], int]:
        """Loss and gradients of Weitiao's engine, and in how many passes; `change` spoils a batch on purpose."""
        shared = samples[0].ids[:prefix]
        rows = [training_row(sample, prefix) for sample in samples]
        if way == "padded":
            batches = [padded_batch(shared, rows)]
        else:
            batches = [packed_batch(packed) for packed, _ in pack(shared, rows, tokens_per_pack)]
        return self.computed(samples, batches, way, change)

    def computed(
        self, samples: Sequence[Encoded], batches: Sequence[Batch], way: str, change: Change = lambda batch: batch
    ) -> tuple[float, dict[str, torch.Tensor], int]:
        attention = "dense" if way == "dense" else "rows"
        forward = Forward(self.ours.get_base_model(), attention, fast=way == "fast")  # type: ignore[arg-type]
        assert (forward.fast is not None) == (way == "fast")
        wanted = sum(len(sample.answer) for sample in samples)
        self.ours.zero_grad()
        total = 0.0
        for batch in batches:
            loss = forward.loss(change(batch)) / wanted
            loss.backward()
            total += loss.item()
        return total, gradients(self.ours), len(batches)

    def assert_equal(self, samples: Sequence[Encoded], prefix: int, way: str, tokens_per_pack: int = 4096) -> int:
        loss, found, passes = self.step(samples, prefix, way, tokens_per_pack)
        wanted_loss, wanted = loss_and_gradients(self.oracle, samples)
        assert loss == pytest.approx(wanted_loss, rel=TOLERANCE)
        error, name = worst_error(found, wanted)
        assert error <= TOLERANCE, f"{name}: ‖Δ‖/‖g‖ = {error:.2e}"
        return passes


@pytest.fixture(scope="module", params=[*sorted(families()), "glm4_0414", "qwen2_5_vl"])
def setup(request: pytest.FixtureRequest) -> Setup:
    folder = request.getfixturevalue(f"{request.param}_folder")
    return Setup(lora_model(folder), lora_model(folder), rendered(folder))


def rendered(folder: Path) -> list[Encoded]:
    _, family = family_of(folder)
    chat = family.chat_format(TextTokenizer(folder))
    labels = ["好评", "差评，要求退货", "中"]
    task = Classification(ClassificationOptions(options="fixed", labels=labels, language="zh"))
    encoder = Encoder(task, chat, 512, 2048)
    texts = [OPINIONS["好评"][at % 3].format(thing) * (1 + at % 4) for at, thing in enumerate(THINGS[:6])]
    rows = [Row({"text": text, "label": labels[at % 3]}, "rows", at) for at, text in enumerate(texts)]
    return [encoder.training(task.example(row)) for row in rows]


def random_samples(lengths: Sequence[tuple[int, int]], shared: int = 0, seed: int = 0) -> list[Encoded]:
    """Samples of random ids, (prompt length, answer length) each, of which the first `shared` are common to all."""
    draw = random.Random(seed)
    common = [draw.randrange(500) for _ in range(shared)]
    return [
        Encoded((*common, *(draw.randrange(500) for _ in range(prompt - shared + answer))), prompt)
        for prompt, answer in lengths
    ]


@pytest.mark.parametrize("way", WAYS)
def test_rendered_rows(setup: Setup, way: str) -> None:
    prefix = len(common_prefix(setup.samples))
    assert prefix > 20
    setup.assert_equal(setup.samples, prefix, way)


@pytest.mark.parametrize("way", WAYS)
def test_without_prefix(setup: Setup, way: str) -> None:
    setup.assert_equal(setup.samples, 0, way)


@pytest.mark.parametrize("way", WAYS)
def test_prefix_of_all_but_one_token_of_the_prompt(setup: Setup, way: str) -> None:
    first = setup.samples[0]
    samples = [replace(first, ids=(*first.prompt, *sample.answer)) for sample in setup.samples]
    prefix = len(common_prefix(samples))
    assert prefix == first.prompt_length - 1
    setup.assert_equal(samples, prefix, way)


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_many_lengths(setup: Setup, way: str) -> None:
    """From one own token, the answer's only one besides, to hundreds; a prefix of one token too."""
    samples = random_samples([(8, 1), (60, 2), (9, 40), (150, 1), (8, 150), (17, 17)], shared=7)
    for prefix in (1, 7):
        setup.assert_equal(samples, prefix, way)


@pytest.mark.parametrize("way", ["rows", "dense"])
def test_several_packs_and_a_row_longer_than_a_pack(setup: Setup, way: str) -> None:
    samples = random_samples([(30, 5), (40, 6), (400, 9), (50, 1), (35, 20)], shared=20)
    passes = setup.assert_equal(samples, 20, way, tokens_per_pack=100)
    assert passes == 3
    assert setup.assert_equal(samples, 20, way, tokens_per_pack=1) == len(samples)


@pytest.mark.parametrize("way", ["rows", "dense", "fast"])
def test_rows_behind_several_prefixes(setup: Setup, way: str) -> None:
    """Each group's rows in packs of their own; one group is of rows that share less."""
    samples = [
        *random_samples([(120, 3), (130, 5), (125, 1), (118, 9)], shared=100, seed=1),
        *random_samples([(90, 2), (80, 7), (99, 30)], shared=70, seed=2),
        *random_samples([(20, 4), (31, 2)], seed=3),
    ]
    groups = prefix_groups(samples, len(samples), pack_cost=0)
    assert [len(group.prefix) for group in groups] == [100, 70, 0]
    batches = []
    for prefix, members in groups:
        rows = [training_row(samples[i], len(prefix)) for i in members]
        batches += [packed_batch(packed) for packed, _ in pack(prefix, rows, 180)]
    loss, found, passes = setup.computed(samples, batches, way)
    assert passes > len(groups)
    wanted_loss, wanted = loss_and_gradients(setup.oracle, samples)
    assert loss == pytest.approx(wanted_loss, rel=TOLERANCE)
    error, name = worst_error(found, wanted)
    assert error <= TOLERANCE, f"{name}: ‖Δ‖/‖g‖ = {error:.2e}"


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("way", ["rows", "padded"])
def test_recomputed_activations(setup: Setup, way: str) -> None:
    base = setup.ours.get_base_model()
    base.gradient_checkpointing_enable({"use_reentrant": False})
    setup.ours.train()
    calls = []
    handle = base.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        setup.assert_equal(setup.samples, len(common_prefix(setup.samples)), way)
    finally:
        handle.remove()
        setup.ours.eval()
        base.gradient_checkpointing_disable()
    # The oracle is another model: one pass forward, one more in the backward pass.
    assert len(calls) == 2, "the layer was not computed again in the backward pass"


@pytest.mark.parametrize(("recompute", "products"), [("nothing", 8), ("gate_up", 10), ("layer", 16)])
def test_recomputed_activations_of_fast_layers(
    qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch, recompute: str, products: int
) -> None:
    """Of two layers with four products each."""
    setup = Setup(lora_model(qwen2_folder), lora_model(qwen2_folder), rendered(qwen2_folder))
    calls = []
    right = F.linear
    monkeypatch.setattr(FastDecoder, "recompute", property(lambda self: recompute, lambda self, value: None), False)
    prefix, (_, wanted) = len(common_prefix(setup.samples)), loss_and_gradients(setup.oracle, setup.samples)
    monkeypatch.setattr(F, "linear", lambda *args: calls.append(1) or right(*args))
    _, found, _ = setup.step(setup.samples, prefix, "fast")
    error, name = worst_error(found, wanted)
    assert error <= TOLERANCE, f"{name}: ‖Δ‖/‖g‖ = {error:.2e}"
    assert len(calls) == products + 1  # and the head


def test_answers_of_more_than_one_chunk(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weitiao.engine.supervised_loss.CHUNK", 4)
    samples = random_samples([(9, 13), (12, 1), (10, 6)], shared=6)
    setup.assert_equal(samples, 6, "rows")


# -- A wrong plan is found: the tolerance is far below what it changes.


def _one_long_row(batch: Batch) -> Batch:
    """Every row sees the rows before it."""
    return replace(batch, lengths=(sum(batch.lengths),), parents=(None,))


def _prefix_unseen(batch: Batch) -> Batch:
    """The prefix belongs to the first row alone."""
    own = (batch.prefix_length + batch.lengths[0], *batch.lengths[1:])
    return replace(batch, prefix_length=0, lengths=own)


def _shifted(batch: Batch) -> Batch:
    """Rows stand one further from the prefix."""
    places = torch.arange(batch.input_ids.shape[1])
    return replace(batch, positions=batch.positions + (places >= batch.prefix_length).long())


def _last_token_unseen(batch: Batch) -> Batch:
    """The answer is read one token too early."""
    return replace(batch, keep=(batch.keep - 1).clamp(min=0))


@pytest.mark.parametrize("change", [_one_long_row, _prefix_unseen, _shifted, _last_token_unseen])
@pytest.mark.parametrize("way", ["rows", "dense"])
def test_a_spoilt_plan_is_found(setup: Setup, way: str, change: Change) -> None:
    _, found, _ = setup.step(setup.samples, len(common_prefix(setup.samples)), way, change=change)
    _, wanted = loss_and_gradients(setup.oracle, setup.samples)
    errors = [float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted]
    assert min(errors) > 100 * TOLERANCE


def test_a_spoilt_padded_batch_is_found(setup: Setup) -> None:
    """Positions and places read; padding stands behind every token and cannot be seen."""
    _, found, _ = setup.step(setup.samples, len(common_prefix(setup.samples)), "padded", change=_shifted)
    _, wanted = loss_and_gradients(setup.oracle, setup.samples)
    assert worst_error(found, wanted)[0] > 100 * TOLERANCE
