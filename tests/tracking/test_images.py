"""Predictions of rows with images go to trackers as images, opened safely and reduced; what cannot be read as texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from runs import run_config, trained
from tracking.reading import captured, read_swanlab
from weitiao.config import load_config
from weitiao.run_folder import RunFolder
from weitiao.tracking.record import resend
from weitiao.tracking.trackers import Trackers, prediction_rows

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
METRICS = {"split": "test", "systems": {"finetuned": {"accuracy": 0.5}}}


def rows_of(tmp_path: Path, *records: dict[str, Any], **columns: str) -> list[str | None]:
    """Images of the rows that are shown of these records, as paths relative to `tmp_path / "data"`."""
    file = tmp_path / "predictions.jsonl"
    told = {"prediction": "p", "reference": "r"}
    file.write_text("".join(json.dumps({**record, **told}) + "\n" for record in records), "utf-8")
    folder = tmp_path / "data"
    found = [row.image for row in prediction_rows(file, str(folder), columns)]
    return [image and str(Path(image).relative_to(folder.resolve())) for image in found]


def test_the_first_image_of_each_form_of_row(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "in/c d.png"):
        picture(tmp_path / "data" / name)
    seen = "<|vision_start|>in/c d.png<|vision_end|>"
    forms: list[tuple[dict[str, Any], str | None]] = [
        ({"text": "no image"}, None),
        ({"image": "a.png"}, "a.png"),
        ({"image": str(tmp_path / "data" / "b.png")}, "b.png"),
        ({"images": ["b.png", "a.png"]}, "b.png"),
        ({"image_path": "b.png; a.png"}, "b.png"),
        ({"image": {"path": "a.png", "bytes": None}}, "a.png"),
        ({"image": None, "text": "x"}, None),
        ({"image": "", "text": "x"}, None),
        ({"image": "moved.png"}, None),
        ({"image": "../secret.png"}, None),
        ({"image": "https://x/a.png"}, None),
        ({"image": 3}, None),
        ({"question": f"What? {seen}"}, "in/c d.png"),
        ({"conversations": [{"from": "user", "value": f"{seen}Q?"}, {"from": "gpt", "value": "A"}]}, "in/c d.png"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "b.png"}]}]}, "b.png"),
        ({"messages": [{"role": "user", "content": f"{PLACE}Q?"}], "images": ["a.png"]}, "a.png"),
        ({"messages": [{"role": "user", "content": f"{PLACE}{seen}Q?"}]}, "in/c d.png"),
    ]
    picture(tmp_path / "secret.png")
    assert rows_of(tmp_path, *[row for row, _ in forms]) == [image for _, image in forms]
    assert rows_of(tmp_path, {"photo": "a.png", "image": "b.png"}, image="photo") == ["a.png"]
    assert rows_of(tmp_path, {"image": "b.png"}, image="") == [None]


def picture(path: Path, size: tuple[int, int] = (60, 30), colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def sent(tmp_path: Path, tracker: str, *overrides: str) -> Path:
    """Folder of a tracker that was given three predictions: a large red image, no image, and a broken one."""
    picture(tmp_path / "data" / "a.png", (2000, 1000))
    (tmp_path / "data" / "b.png").write_text("no image", "utf-8")
    records = [
        {"image": "a.png", "prediction": "狗", "reference": "猫"},
        {"text": "t", "prediction": "猫", "reference": "猫"},
        {"image": "b.png", "prediction": "x", "reference": "y"},
    ]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    values = {
        "task": {"name": "generation"},
        "model": {"name": "m"},
        "run": {"output_dir": str(tmp_path), "name": "run"},
    }
    told = (f"data.train={tmp_path}/data/rows.jsonl", f"tracking.trackers=[{tracker}]", "tracking.mode=offline")
    config = load_config({**values, "data": {"train": "x"}}, [*told, *overrides])
    screen, lines = captured()
    with Trackers(RunFolder(config.folder), config, screen) as trackers:
        trackers.result(6, 1.0, METRICS, file)
    assert not [line for line in lines() if line.startswith("warning")]
    return config.folder / "tracking" / tracker


def test_swanlab_gets_images_and_texts(tmp_path: Path) -> None:
    found = read_swanlab(sent(tmp_path, "swanlab"))
    ((image, caption),) = found.images
    assert (image.size, caption) == ((512, 256), "狗 (reference: 猫)")
    assert image.getpixel((100, 100)) == pytest.approx((254, 0, 0), abs=3)
    assert [caption for _, caption in found.texts] == ["猫", "x (reference: y)"]


def test_tensorboard_gets_images_beside_the_texts(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(sent(tmp_path, "tensorboard") / "run"))
    events.Reload()
    assert events.Tags()["images"] == ["Prediction/001"]
    (image,) = events.Images("Prediction/001")
    assert (image.step, image.width, image.height) == (6, 512, 256)
    (text,) = events.Tensors("Prediction/text_summary")
    assert text.tensor_proto.string_val[0].decode("utf-8").count("**") == 6


def test_a_run_and_what_is_sent_again(qwen2_vl_folder: Path, tmp_path: Path) -> None:
    """The folder of the images is that of the data file; where they are gone, a row is its text."""
    data = tmp_path / "data"
    rows = [
        {"image": picture(data / f"{i}.png", (56, 56), f"#0000{i * 12:02x}").name, "caption": f"c {i}"}
        for i in range(20)
    ]
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    told = ("task.name=generation", "data.test=0.2", "tracking.trackers=[swanlab]", "tracking.mode=offline")
    run = trained(run_config(tmp_path, qwen2_vl_folder, data / "rows.jsonl", *told))
    first = read_swanlab(run / "tracking" / "swanlab")
    assert (len(first.images), first.texts) == (4, [])
    shutil.rmtree(run / "tracking")
    resend(run, screen=captured()[0])
    again = read_swanlab(run / "tracking" / "swanlab")
    assert [caption for _, caption in again.images] == [caption for _, caption in first.images]
    shutil.rmtree(run / "tracking")
    shutil.rmtree(data)
    resend(run, screen=captured()[0])
    gone = read_swanlab(run / "tracking" / "swanlab")
    assert (gone.images, len(gone.texts)) == ([], 4)
