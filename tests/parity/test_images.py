"""Images change nothing that transformers' own processor and model would not: pixels, grids, prompts and positions are
theirs, and a pack of image rows has the loss and the gradients of its rows one by one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from parity.oracle import TARGETS, TOLERANCE, gradients, lora_model, plain_model, random_head, worst_error
from tiny import write_rows
from weitiao.config import DataSection, ModelSection
from weitiao.data.collate import packed_batch, padded_batch, row_positions
from weitiao.data.encode import Encoder
from weitiao.data.pack import PackRow, Prompt, pack, prompt_row, training_row
from weitiao.data.prefix import common_prefix
from weitiao.data.source import read_rows
from weitiao.engine.forward import Forward
from weitiao.engine.image_features import ImageFeatures, PixelReader, image_features
from weitiao.model.base import Base, open_base
from weitiao.prediction.decode import Decoder
from weitiao.prediction.grammar import GrammarCompiler
from weitiao.prediction.label_scores import Asked, LabelScorer
from weitiao.tasks.generation import Generation, GenerationExample, GenerationOptions
from weitiao.types import Choice, Encoded, ImagePart, PlacedImage

WAYS = ("rows", "dense", "padded", "fast")
ANSWERS = ("手机很好", "电影", "a book, not a phone", "7")


@dataclass
class Setup:
    folder: Path
    base: Base
    encoder: Encoder
    examples: list[GenerationExample]
    processor: Any

    def theirs(self, example: GenerationExample, answer: str = "") -> dict[str, torch.Tensor]:
        """What transformers' processor makes of a row, with an answer and its stop behind the prompt."""
        turns = [
            {
                "role": message.role,
                "content": [
                    {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
                    for part in message.parts
                ],
            }
            for message in self.encoder.task.prompt(example)
        ]
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True)
        images = [Image.open(path).convert("RGB") for path in example.images]
        return dict(self.processor(text=[text], images=images or None, return_tensors="pt"))


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = request.getfixturevalue(f"{request.param}_folder")
    rows = tmp_path_factory.mktemp("rows")
    return setup_of(folder, image_rows(rows, 120, seed=1))


def setup_of(folder: Path, file: Path, **data: Any) -> Setup:
    base = open_base(ModelSection(name=str(folder)))
    section = DataSection(train=str(file), **data)
    task = Generation(GenerationOptions(language="en", metrics=["rouge_l"]))
    encoder = base.encoder(task, 1500, base.image_limits(section))
    examples = [task.example(row) for row in read_rows(file, section)]
    return Setup(folder, base, encoder, examples, processor_of(folder))


def image_rows(folder: Path, count: int, seed: int, most: int = 420) -> Path:
    """Rows with up to four images of random sizes, and text before, between and behind them; every seventh has none."""
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    rows = []
    for at in range(count):
        names = []
        for number in range(0 if at % 7 == 3 else draw.choice((1, 1, 2, 3, 4))):
            height, width = draw.randint(4, most), draw.randint(4, most)
            names.append(f"{at}-{number}.png")
            pixels = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / names[-1], compress_level=1)
        places = "".join(f"{draw.choice(('', '图一：', 'a b'))}<image>" for _ in names)
        text = draw.choice((places + "有什么？", places, f"{places}\n\n  here?", "看。" + places + " 手机"))
        text = text if names else "没有图片，只有 text。"
        rows.append(
            {"messages": [{"role": "user", "content": text}], "images": names, "output": ANSWERS[at % len(ANSWERS)]}
        )
    return write_rows(folder / "rows.jsonl", rows)


def processor_of(folder: Path) -> Any:
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

    class WithoutVideo(Qwen2VLProcessor):
        """Its video processor needs torchvision, which nothing here does."""

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return (
                None
                if argument_name == "video_processor"
                else super().check_argument_for_proper_class(argument_name, argument)
            )

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return WithoutVideo(
        Qwen2VLImageProcessorPil.from_pretrained(folder), tokenizer, None, chat_template=tokenizer.chat_template
    )


def test_prompts_pixels_grids_and_positions(setup: Setup) -> None:
    reader = PixelReader(setup.folder)
    model: Any = plain_model(setup.folder).model
    sizes = set()
    for example in setup.examples:
        ours, theirs = setup.encoder.prompt(example), setup.theirs(example)
        assert list(ours.ids) == theirs["input_ids"][0].tolist(), example.row.place
        if not ours.images:
            assert "pixel_values" not in theirs
            continue
        pixels = torch.cat([reader.patches(reader.pixels(image)) for image in ours.images])
        assert torch.equal(pixels, theirs["pixel_values"]), example.row.place
        grids = [[1, image.rows * 2, image.columns * 2] for image in ours.images]
        assert grids == theirs["image_grid_thw"].tolist()
        wanted, _ = model.get_rope_index(theirs["input_ids"], theirs["mm_token_type_ids"], theirs["image_grid_thw"])
        found = row_positions(PackRow(ours.ids, (), images=ours.images))
        assert torch.equal(found, wanted[:, 0]), example.row.place
        for image in ours.images:
            with Image.open(image.path) as opened:
                sizes.add(opened.size)
            run = ours.ids[image.start : image.start + image.tokens]
            assert set(run) == {setup.encoder.chat.image}
    assert len(sizes) >= 200
    assert {len(example.images) for example in setup.examples} == {0, 1, 2, 3, 4}


def test_a_fixed_size(setup: Setup, tmp_path: Path) -> None:
    """As in the tutorial, whose image utilities resize to 280 × 280 before the processor sees it."""
    fixed = setup_of(setup.folder, image_rows(tmp_path, 6, seed=2), image_size=(140, 200))
    reader = PixelReader(fixed.folder)
    for example in fixed.examples:
        for path, image in zip(example.images, fixed.encoder.prompt(example).images, strict=True):
            resized = Image.open(path).convert("RGB").resize((196, 140), Image.Resampling.BICUBIC)
            theirs = fixed.processor.image_processor(images=[resized], return_tensors="pt")
            assert torch.equal(reader.patches(reader.pixels(image)), theirs["pixel_values"])
            assert theirs["image_grid_thw"].tolist() == [[1, 2 * image.rows, 2 * image.columns]]


def few(setup: Setup, count: int = 6) -> list[Encoded]:
    return [setup.encoder.training(example) for example in setup.examples[:count]]


def oracle_step(setup: Setup, model: Any, count: int = 6) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean cross-entropy over all answer tokens and its gradients by the model's own forward, row by row."""
    samples = few(setup, count)
    wanted = sum(len(sample.answer) for sample in samples)
    total = 0.0
    model.zero_grad()
    for example, sample in zip(setup.examples, samples, strict=False):
        inputs = setup.theirs(example)
        answer = torch.tensor([sample.answer])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
        inputs["mm_token_type_ids"] = F.pad(inputs["mm_token_type_ids"], (0, answer.shape[1]))
        del inputs["attention_mask"]
        logits = model(**inputs, use_cache=False).logits[0].float()
        first = sample.prompt_length
        loss = F.cross_entropy(logits[first - 1 : -1], answer[0], reduction="sum") / wanted
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def our_step(
    samples: Sequence[Encoded], model: Any, features: ImageFeatures, way: str, prefix: int, room: int = 4096
) -> tuple[float, dict[str, torch.Tensor]]:
    shared = samples[0].ids[:prefix]
    rows = [training_row(sample, prefix) for sample in samples]
    packs = [packed_batch(packed) for packed, _ in pack(shared, rows, room)]
    batches = [padded_batch(shared, rows)] if way == "padded" else packs
    forward = Forward(model.get_base_model(), "dense" if way == "dense" else "rows", features, way == "fast")
    wanted = sum(len(sample.answer) for sample in samples)
    model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = forward.loss(batch) / wanted
        loss.backward()
        total += loss.item()
    return total, gradients(model)


@pytest.mark.parametrize("room", [4096, 300], ids=["one pack", "several packs"])
@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients(setup: Setup, tmp_path: Path, way: str, room: int) -> None:
    samples = few(setup)
    prefix = len(common_prefix(samples))
    assert 0 < prefix <= min(sample.images[0].start for sample in samples if sample.images)
    assert not all(sample.images for sample in samples), "a row without images lies between the others"
    ours, theirs = lora_model(setup.folder), lora_model(setup.folder)
    features = image_features(ours.get_base_model(), setup.folder, str(tmp_path))
    assert features is not None
    wanted_loss, wanted = oracle_step(setup, theirs)
    for _ in range(2):  # computed, then read from the disk
        loss, found = our_step(samples, ours, features, way, prefix, room)
        assert loss == pytest.approx(wanted_loss, rel=TOLERANCE)
        error, name = worst_error(found, wanted)
        assert error <= TOLERANCE, f"{name}: ‖Δ‖/‖g‖ = {error:.2e}"
        features.prepare([image for sample in samples for image in sample.images])


def test_gradients_of_a_trained_tower(setup: Setup, tmp_path: Path) -> None:
    blocks, targets = r".*visual\.(?!blocks).*", [*TARGETS, "qkv", "proj", "fc1", "fc2"]
    ours, theirs = (lora_model(setup.folder, blocks, targets) for _ in range(2))
    features = image_features(ours.get_base_model(), setup.folder, str(tmp_path))
    assert features is not None
    assert features.trained
    wanted_loss, wanted = oracle_step(setup, theirs)
    samples = few(setup)
    loss, found = our_step(samples, ours, features, "rows", len(common_prefix(samples)))
    assert loss == pytest.approx(wanted_loss, rel=TOLERANCE)
    assert any("visual.blocks.1" in name for name in wanted)
    error, name = worst_error(found, wanted)
    assert error <= TOLERANCE, f"{name}: ‖Δ‖/‖g‖ = {error:.2e}"
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("spoil", ["another image", "positions of text", "the other way round"])
def test_spoilt_images_are_found(setup: Setup, tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = lora_model(setup.folder), lora_model(setup.folder)
    features = image_features(ours.get_base_model(), setup.folder, str(tmp_path))
    assert features is not None
    right = features.features
    if spoil == "another image":
        monkeypatch.setattr(features, "features", lambda images: right(images).roll(1, 0))
    elif spoil == "positions of text":
        monkeypatch.setattr("weitiao.data.collate.row_positions", lambda row: torch.arange(len(row.ids)))
    else:
        monkeypatch.setattr(features, "features", lambda images: right(images).flip(0))
    samples = few(setup)
    _, found = our_step(samples, ours, features, "rows", len(common_prefix(samples)))
    assert worst_error(found, oracle_step(setup, theirs)[1])[0] > 100 * TOLERANCE


# -- Prediction


@torch.no_grad()
def oracle_logs(setup: Setup, model: Any, example: GenerationExample, answer: Sequence[int]) -> torch.Tensor:
    """float64 [len(answer) + 1, vocabulary]: log-probabilities of each token of an answer, and behind it."""
    inputs = setup.theirs(example)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([list(answer)], dtype=torch.long)], dim=1)
    inputs["mm_token_type_ids"] = F.pad(inputs["mm_token_type_ids"], (0, len(answer)))
    del inputs["attention_mask"]
    return model(**inputs, use_cache=False).logits[0, -len(answer) - 1 :].double().log_softmax(-1)


@pytest.mark.parametrize("fast", [False, True])
def test_free_text_is_decoded_as_without_a_cache(setup: Setup, tmp_path: Path, fast: bool) -> None:
    ours, theirs = plain_model(setup.folder), plain_model(setup.folder)
    chat, budget = setup.encoder.chat, 12
    for model in (ours, theirs):
        model.lm_head = random_head(model.lm_head.out_features, 3, 0.5, {chat.stop: 7.0})
    features = image_features(ours, setup.folder, str(tmp_path))
    decoder = Decoder(Forward(ours, images=features, fast=fast), chat.stop, budget)
    grammar = GrammarCompiler(chat.tokenizer, ours.lm_head.out_features, chat.stop)
    examples = setup.examples[:7]
    encoded = [setup.encoder.prompt(example) for example in examples]
    prefix = common_prefix(encoded)
    prompts = [prompt_row(e, len(prefix)) for e in encoded]
    found = decoder.decode(prefix, prompts, grammar.any_text, 3)
    forbidden = [*set(chat.tokenizer.controls.values()) - {chat.stop}, *range(chat.tokenizer.size, grammar.vocabulary)]
    for example, decoded in zip(examples, found, strict=True):
        answer: list[int] = []
        while len(answer) <= budget:
            logs = oracle_logs(setup, theirs, example, answer)[-1]
            logs[forbidden] = -torch.inf
            token = int(logs.argmax())
            if token == chat.stop or len(answer) == budget:
                break
            answer.append(token)
        assert decoded.ids == answer, example.row.place
        assert decoded.complete == (token == chat.stop)
    assert len({len(decoded.ids) for decoded in found}) > 1


def test_labels_behind_images(setup: Setup, tmp_path: Path) -> None:
    ours, theirs = lora_model(setup.folder), lora_model(setup.folder)
    chat = setup.encoder.chat
    scorer = LabelScorer(
        Forward(ours.get_base_model(), images=image_features(ours.get_base_model(), setup.folder, str(tmp_path))),
        chat,
        600,
    )
    labels = ("手机", "手", "电影。", "a", "a b")
    examples = setup.examples[:5]
    encoded = [setup.encoder.prompt(example) for example in examples]
    prefix = common_prefix(encoded)
    rows: list[Prompt] = [prompt_row(e, len(prefix)) for e in encoded]
    for example, told in zip(examples, scorer.choose(Asked(prefix, rows, [Choice(labels)] * len(rows))), strict=True):
        sums = []
        for label in labels:
            ids = [*chat.answer_ids(label), chat.stop]
            logs = oracle_logs(setup, theirs, example, ids)
            sums.append(sum(float(logs[at, token]) for at, token in enumerate(ids)))
        wanted = torch.tensor(sums, dtype=torch.float64).softmax(0).tolist()
        assert dict(told.scores) == pytest.approx(dict(zip(labels, wanted, strict=True)), abs=1e-4)


# -- The store


def images_of(setup: Setup, count: int) -> list[PlacedImage]:
    return [image for example in setup.examples[:count] for image in setup.encoder.prompt(example).images]


def test_features_are_those_of_the_tower_and_computed_once(setup: Setup, tmp_path: Path) -> None:
    model, plain = plain_model(setup.folder), plain_model(setup.folder)
    features = image_features(model, setup.folder, str(tmp_path))
    assert features is not None
    images = images_of(setup, 12)
    calls: list[int] = []
    model.model.visual.register_forward_pre_hook(lambda *_: calls.append(1))
    done: list[int] = []
    features.prepare(images, done.append)
    assert sum(done) == len(images)
    computed = len(calls)
    reader = PixelReader(setup.folder)
    for image in images:
        grid = torch.tensor([[1, 2 * image.rows, 2 * image.columns]])
        wanted = plain.model.visual(reader.patches(reader.pixels(image)), grid_thw=grid).pooler_output
        torch.testing.assert_close(features.features([image]), wanted, rtol=1e-4, atol=1e-4)
    again = image_features(plain_model(setup.folder), setup.folder, str(tmp_path))
    assert again is not None
    assert torch.equal(again.features(images), features.features(images))
    assert len(calls) == computed, "the tower was asked twice"


def test_another_tower_has_other_features(setup: Setup, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    paths = []
    for name in ("qwen2_vl", "qwen2_5_vl"):
        folder = request.getfixturevalue(f"{name}_folder")
        for dtype in (torch.float32, torch.bfloat16):
            features = image_features(plain_model(folder).to(dtype), folder, str(tmp_path))
            assert features is not None
            assert features.store is not None
            paths.append(features.store.path(images_of(setup, 1)[0]))
    assert len(set(paths)) == 4


def test_the_store_is_bounded_and_forgets_what_was_used_long_ago(setup: Setup, tmp_path: Path) -> None:
    import os

    model = plain_model(setup.folder)
    images = images_of(setup, 20)
    most = max(image.tokens for image in images)
    limit = 12 * most * 64 * 4
    first = image_features(model, setup.folder, str(tmp_path), limit / 2**30)
    assert first is not None
    assert first.store is not None
    first.prepare(images)
    kept = [image for image in images if first.store.has(image)]
    assert 0 < len(kept) < len(images)
    assert torch.equal(first.features(images), torch.cat([first.features([image]) for image in images]))
    for age, image in enumerate(kept):
        os.utime(first.store.path(image), (1000 - age, 1000 - age))
    second = image_features(model, setup.folder, str(tmp_path), limit / 2**30)
    assert second is not None
    assert second.store is not None
    second.features(kept[-1:])
    new = [image for image in images if image not in kept][:2]
    second.prepare(new)
    assert all(second.store.has(image) for image in new)
    assert second.store.has(kept[-1]), "what was just used made room"
    assert second.store.has(kept[0])
    assert not all(second.store.has(image) for image in kept)
    files = list(tmp_path.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= limit + 200 * len(files)


def test_a_damaged_file_is_computed_again(setup: Setup, tmp_path: Path) -> None:
    features = image_features(plain_model(setup.folder), setup.folder, str(tmp_path))
    assert features is not None
    assert features.store is not None
    [image] = images_of(setup, 40)[:1]
    wanted = features.features([image]).clone()
    features.prepare([image])
    path = features.store.path(image)
    path.write_bytes(path.read_bytes()[:-9])
    torch.testing.assert_close(features.features([image]), wanted, rtol=1e-4, atol=1e-4)
    assert not path.exists()
