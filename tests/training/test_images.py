"""Runs on image rows: with a vision tower that is trained, and with entities."""

from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from runs import lines, lively_model, run_config, trained
from tiny import write_rows
from weitiao.config import load_config
from weitiao.errors import ConfigError, DataError
from weitiao.prediction.predictor import load

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230)}


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Rows with a bright square each, and its colour."""
    rows = []
    for at in range(36):
        name = list(COLOURS)[at % 3]
        red, green, blue = COLOURS[name]
        Image.new("RGB", (56 + at, 56), (red, green, blue - at % 7)).save(tmp_path / f"{at}.png")
        rows.append({"image": f"{at}.png", "label": name})
    return write_rows(tmp_path / "colours.jsonl", rows)


def vision_config(tmp_path: Path, model: Path, rows: Path, *more: str):
    config = run_config(tmp_path, model, rows, f"model.cache_dir={tmp_path / 'cache'}", *more)
    return load_config(config.model_dump(mode="json"), [])


def test_a_trained_tower(qwen2_vl_folder: Path, colours: Path, tmp_path: Path) -> None:
    model = lively_model(tmp_path / "model", qwen2_vl_folder)
    told = ("lora.vision_tower=true", "training.max_steps=12", "data.test=0.3", "training.learning_rate=1e-3")
    run = trained(vision_config(tmp_path, model, colours, *told))
    with safe_open(run / "adapter" / "adapter_model.safetensors", "pt") as file:
        inside = {name for name in list(file.keys()) if ".visual." in name}
        assert {name.split(".visual.")[1].split(".lora")[0] for name in inside} == {
            f"blocks.{layer}.{part}" for layer in (0, 1) for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        }
        assert all(file.get_tensor(name).any() for name in inside), "a layer of the tower learnt nothing"
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "features of a trained tower were kept"
    [line] = lines(run / "predictions.jsonl")[:1]
    [answer] = load(run).predict([{"image": line["image"]}], images=colours.parent)
    assert answer.answer == line["prediction"]
    assert answer.probability == pytest.approx(line["probability"], abs=1e-4)


def test_a_text_model_has_no_tower(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`lora.vision_tower` is true, but the model has no vision tower"):
        trained(run_config(tmp_path, qwen2_folder, classification_file, "lora.vision_tower=true"))


def test_entities_beside_an_image(qwen2_vl_folder: Path, tmp_path: Path) -> None:
    rows = []
    for at in range(12):
        Image.new("RGB", (60, 60), (20 * at, 0, 99)).save(tmp_path / f"{at}.png")
        entities = [{"start": 0, "end": 2, "type": "人名", "text": "李华"}]
        rows.append({"image": f"{at}.png", "text": f"李华第{at}天在南京。", "entities": entities})
    run = trained(vision_config(tmp_path, qwen2_vl_folder, write_rows(tmp_path / "ner.jsonl", rows), "data.test=0.3"))
    assert len(lines(run / "predictions.jsonl")) == 4


def test_one_image_in_two_splits_is_told(qwen2_vl_folder: Path, colours: Path, tmp_path: Path) -> None:
    rows = lines(colours)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    test = write_rows(tmp_path / "test.jsonl", [{"image": "copy.png", "label": "red"}])
    run = trained(vision_config(tmp_path, qwen2_vl_folder, write_rows(colours, rows), f"data.test={test}"))
    assert '"train": 35' in (run / "data.json").read_text("utf-8"), "the same image under another name was trained on"


def test_a_broken_image_ends_training_before_it_begins(qwen2_vl_folder: Path, colours: Path, tmp_path: Path) -> None:
    path = tmp_path / "4.png"
    Image.effect_noise((80, 80), 60).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])
    config = vision_config(tmp_path, qwen2_vl_folder, colours)
    with pytest.raises(DataError, match=r"colours.jsonl:5: image .*4\.png: is broken"):
        trained(config)
    assert not config.folder.exists()
