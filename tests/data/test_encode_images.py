"""Images are never cut: they shrink to what a row may take, and a row that cannot fit is refused by its place."""

from pathlib import Path

import pytest
from PIL import Image

from weitiao.config import DataSection, ModelSection
from weitiao.errors import ConfigError, DataError, RenderError
from weitiao.families.vision import Vision, qwen2_vision
from weitiao.model.base import Base, open_base
from weitiao.tasks.generation import Generation, GenerationOptions
from weitiao.types import Encoded, Row

TASK = Generation(GenerationOptions(language="en", metrics=["rouge_l"], question="What is it?"))
VISION = Vision(patch=14, merge=2, min_pixels=4 * 784, max_pixels=1000 * 784)


@pytest.fixture(scope="module")
def base(qwen2_vl_folder: Path) -> Base:
    return open_base(ModelSection(name=str(qwen2_vl_folder)))


def encoded(base: Base, tmp: Path, sizes, max_length: int, text: str = "", **data) -> Encoded:
    """A row with noise images of (width, height) each, as a prompt."""
    names = []
    for at, size in enumerate(sizes):
        names.append(f"{at}.png")
        Image.new("RGB", size, (at, 90, 200)).save(tmp / names[-1])
    row = Row({"images": names, "input": text} if text else {"images": names}, "rows.jsonl", 7, {}, str(tmp))
    section = DataSection(train="rows.jsonl", **data)
    encoder = base.encoder(TASK, max_length, base.image_limits(section))
    return encoder.prompt(TASK.example(row, labelled=False))


def tokens(found: Encoded) -> int:
    return sum(image.tokens for image in found.images)


def test_images_keep_their_size_where_there_is_room(base, tmp_path):
    found = encoded(base, tmp_path, [(140, 84)], 500)
    assert [(i.width, i.height, i.columns, i.rows) for i in found.images] == [(140, 84, 5, 3)]


def test_images_shrink_to_what_a_row_may_take(base, tmp_path):
    whole = encoded(base, tmp_path, [(400, 300), (280, 280)], 500, max_pixels=10**6)
    found = encoded(base, tmp_path, [(400, 300), (280, 280)], 60, max_pixels=10**6)
    assert tokens(whole) > 200
    assert 40 < tokens(found) <= 60
    wide, square = found.images
    assert wide.width / wide.height == pytest.approx(4 / 3, rel=0.2)
    assert square.width == square.height
    assert found.ids.count(base.chat.image) == tokens(found)


def test_a_long_text_leaves_half_of_the_room_to_images(base, tmp_path):
    long = "a book, a phone and a hotel. " * 60
    found = encoded(base, tmp_path, [(400, 300)], 100, text=long, max_pixels=10**6)
    assert 35 < tokens(found) <= 50
    assert found.removed > 100
    # Image and shortened text share what `max_length` says; the rest is the template.
    empty = encoded(base, tmp_path, [(28, 28)], 100, min_pixels=1)
    assert len(found.ids) <= 100 + len(empty.ids)


def test_a_short_text_is_kept_whole_beside_images(base, tmp_path):
    found = encoded(base, tmp_path, [(1000, 1000)], 80, text="电影好看吗？", max_pixels=10**6)
    assert found.removed == 0
    assert 60 < tokens(found) < 80


def test_what_cannot_fit_is_refused_by_its_row(base, tmp_path):
    with pytest.raises(RenderError, match=r"^rows.jsonl:7: 31 images take \d+ tokens, but data.max_length leaves \d+ "):
        encoded(base, tmp_path, [(300, 300)] * 31, 30)
    with pytest.raises(RenderError, match=r"^rows.jsonl:7: 1 images take 100 tokens.*data\.image_size"):
        encoded(base, tmp_path, [(300, 300)], 60, image_size=(280, 280))


def test_the_models_own_limit_counts_images(base, tmp_path):
    with pytest.raises(RenderError, match=r"^rows.jsonl:7: \d+ tokens, but the model takes 2048"):
        encoded(base, tmp_path, [(1400, 1400)], 4000, max_pixels=10**8)


def test_a_far_too_long_image_is_refused_by_its_row(base, tmp_path):
    with pytest.raises(DataError, match=r"^rows.jsonl:7: 2010 × 10 pixels: one side is over 200 times the other"):
        encoded(base, tmp_path, [(2010, 10)], 500)


def test_a_model_that_reads_text_alone_says_so(qwen2_folder, tmp_path):
    text_alone = open_base(ModelSection(name=str(qwen2_folder)))
    with pytest.raises(RenderError, match=r"^rows.jsonl:7: has an image, but the model reads text alone; .*columns"):
        encoded(text_alone, tmp_path, [(30, 30)], 500)


def test_a_column_that_is_no_image_is_left_out(qwen2_folder):
    base = open_base(ModelSection(name=str(qwen2_folder)))
    row = Row({"image": "https://shop/1.jpg", "input": "好看"}, "rows.jsonl", 7, {"image": ""})
    example = TASK.example(row, labelled=False)
    assert example.images == ()
    base.encoder(TASK, 100, None).prompt(example)


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        ({}, (None, 4 * 784, 1000 * 784)),
        ({"max_pixels": 2 * 784}, (None, 2 * 784, 2 * 784)),
        ({"min_pixels": 2000 * 784}, (None, 2000 * 784, 2000 * 784)),
        ({"image_size": (280, 280)}, ((280, 280), 4 * 784, 1000 * 784)),
        ({"image_size": (100, 30)}, ((112, 28), 4 * 784, 1000 * 784)),
    ],
)
def test_limits(section, wanted):
    limits = VISION.limits(DataSection(train="x", **section))
    assert (limits.size, limits.min_pixels, limits.max_pixels) == wanted


def test_contradicting_limits():
    with pytest.raises(ConfigError, match=r"data\.min_pixels` = 900 and `data\.max_pixels` = 800"):
        VISION.limits(DataSection(train="x", min_pixels=900, max_pixels=800))


@pytest.mark.parametrize(
    "told",
    [
        '{"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}',
        '{"size": {"shortest_edge": 3136, "longest_edge": 12845056}}',
        '{"size": {"min_pixels": 3136, "max_pixels": 12845056}, "patch_size": 14}',
    ],
)
def test_what_a_model_says_of_images(tmp_path, told):
    (tmp_path / "preprocessor_config.json").write_text(told)
    assert qwen2_vision(tmp_path) == Vision(14, 2, 3136, 12_845_056)
