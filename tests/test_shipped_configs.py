"""The configs that ship inside the package: they load, resolve by name, and keep the tutorial's settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tutorial_files import coco_caption, data_vl
from weitiao.config import SHIPPED, load_config, resolve_config
from weitiao.data.splits import load
from weitiao.tasks.base import task_class, task_options
from weitiao.tasks.classification import ClassificationExample
from weitiao.types import ImagePart, Row

MODELS = {
    "qwen2-1.5b": "Qwen/Qwen2-1.5B-Instruct",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "glm4-9b-chat": "ZhipuAI/glm-4-9b-chat",
}
NAMES = sorted(f"{model}-{row}" for model in MODELS for row in ("fudan-news", "ccfbdci-ner"))
VISION_MODELS = {"qwen2-vl-2b": "Qwen/Qwen2-VL-2B-Instruct", "qwen2.5-vl-3b": "Qwen/Qwen2.5-VL-3B-Instruct"}
ALL_MODELS = MODELS | VISION_MODELS
CAPTIONS = sorted(f"{model}-coco-caption" for model in VISION_MODELS)
ROWS = {
    "fudan-news": "swift/zh_cls_fudan-news",
    "ccfbdci": "qgyd2021/chinese_ner_sft",
    "coco-caption": "modelscope/coco_2014_caption",
}
"""`weitiao data fetch` → the hub's data set."""
GPE = {"entity_label": "GPE", "entity_names": ["地缘政治实体", "政治实体", "地理实体", "社会实体"]}
PER = {"entity_label": "PER", "entity_names": ["人名", "姓名"]}


def test_every_shipped_config_loads_and_the_tutorials_rows_are_among_them() -> None:
    shipped = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    for name in shipped:
        task_options(load_config(name).task, name)
    assert {*NAMES, *CAPTIONS} <= set(shipped)


@pytest.mark.parametrize("name", [*NAMES, *CAPTIONS])
def test_a_name_resolves_to_a_config_whose_task_takes_its_options(name: str) -> None:
    assert resolve_config(name) == SHIPPED / f"{name}.yaml"
    config = load_config(name)
    options = task_options(config.task, name)
    task_class(options.name)(options)
    assert config.model.name == next(model for key, model in ALL_MODELS.items() if name.startswith(f"{key}-"))
    assert config.folder == Path("output") / f"{config.model.name.rpartition('/')[2]}-{options.name}"


@pytest.mark.parametrize("name", [*NAMES, *CAPTIONS])
def test_settings_are_the_tutorials(name: str) -> None:
    config = load_config(name)
    lora = (64, 16, 0.05) if name in CAPTIONS else (8, 32, 0.0)
    assert (config.lora.r, config.lora.lora_alpha, config.lora.lora_dropout) == lora
    assert config.lora.target_modules is None, "the family's: all linear layers"
    training = config.training
    assert (training.samples_per_step, training.num_train_epochs, training.learning_rate) == (16, 2, 1e-4)
    assert (training.save_steps, training.gradient_checkpointing) == (100, "auto")
    assert config.data.max_length == (8192 if name in CAPTIONS else 384)
    assert config.data.image_size == ((280, 280) if name in CAPTIONS else None)
    assert not config.lora.vision_tower


@pytest.mark.parametrize("name", [*NAMES, *CAPTIONS])
def test_the_header_names_the_command_and_the_data(name: str) -> None:
    header = (SHIPPED / f"{name}.yaml").read_text("utf-8").partition("\ntask:")[0]
    assert f"weitiao train {name}\n" in header
    (data_set,) = [data_set for data_set in ROWS if data_set in name]
    assert f"weitiao data fetch {data_set} --dest .\n" in header
    assert ROWS[data_set] in header
    assert all(line.startswith("#") for line in header.splitlines() if line)


@pytest.mark.parametrize("name", [name for name in NAMES if "fudan" in name])
def test_fudan_rows_bring_their_own_candidates(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"text": f"第{i}篇", "category": ["体育", "经济"] if i % 2 else ["经济", "艺术"], "output": "经济"}
        for i in range(40)
    ]
    _write("train.jsonl", rows[:30])
    _write("test.jsonl", rows[30:])
    config = load_config(name)
    _, splits = load(config.data, task_options(config.task), config.run.seed)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (27, 3, 10)
    for example in splits.train:
        assert isinstance(example, ClassificationExample)
        assert example.options in (("体育", "经济"), ("经济", "艺术"))
        assert example.answer == "经济"


@pytest.mark.parametrize("name", [name for name in NAMES if "ner" in name])
def test_no_entity_of_the_published_shape_is_lost(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entity there has a label such as GPE, and a list of Chinese names for it."""
    monkeypatch.chdir(tmp_path)
    entities = [
        {"start_idx": 0, "end_idx": 3, "entity_text": "菲律宾", **GPE},
        {"start_idx": 5, "end_idx": 10, "entity_text": "埃斯特拉达", **PER},
    ]
    _write(
        "ccfbdci.jsonl",
        [{"text": f"菲律宾总统埃斯特拉达{i}号", "entities": entities, "data_source": "CCFBDCI"} for i in range(20)],
    )
    config = load_config(name)
    task, splits = load(config.data, task_options(config.task), config.run.seed)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 2, 2)
    for example in [*splits.train, *splits.validation, *splits.test]:
        assert [entity.text for entity in example.answer] == ["菲律宾", "埃斯特拉达"]
        prompt = "".join(message.text for message in task.prompt(example))
        for chinese in ("地点", "人名", "地理实体", "组织"):
            assert chinese in prompt


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions_are_asked_for_as_in_the_tutorial(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images first; and an image alone is asked about in the same words."""
    monkeypatch.chdir(tmp_path)
    data_vl(coco_caption(tmp_path))
    config = load_config(name)
    task, splits = load(config.data, task_options(config.task), config.run.seed)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (34, 2, 4)
    for example in [*splits.train, *splits.validation, *splits.test]:
        system, asked = task.prompt(example)
        assert (system.role, system.text) == ("system", "You are a helpful assistant.")
        image = asked.parts[0]
        assert isinstance(image, ImagePart)
        assert asked.text == "COCO Yes:"
        assert str(example.answer).startswith("A ")
        alone = task.example(Row({"image": image.path}, "rows", 1, {}, str(tmp_path)), labelled=False)
        assert task.prompt(alone) == (system, asked)


def _write(path: str, rows: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(path).write_text(text, "utf-8")
