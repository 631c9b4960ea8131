"""Each finding: a planted fault raises it, with its count and place, and a clean set raises none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from check.looked import checked, named, names, tokenizer_folder
from tiny import small_classification, small_ner, tiny_model
from weitiao.check.checks.entities import SAID as OF_ENTITIES
from weitiao.check.checks.pictures import SAID as OF_IMAGES
from weitiao.check.reading import TROUBLE
from weitiao.errors import DataError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "check.md"
LONG = "我们在南京的酒店住了三天，房间干净，早餐一般，服务员很热情，出门就是地铁站，下次还会再来。"


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """48 clean rows, 24 of each label."""
    return read(small_classification(tmp_path / "clean.jsonl"))


@pytest.fixture
def entities(tmp_path: Path) -> list[dict[str, Any]]:
    return read(small_ner(tmp_path / "clean.jsonl", 40))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def entity(text: str, start: int, end: int, kind: str = "地点") -> dict[str, Any]:
    return {"start": start, "end": end, "type": kind, "text": text[start:end]}


def test_clean_rows_raise_nothing(tmp_path: Path, rows: Any, entities: Any) -> None:
    told = checked(tmp_path, rows[:40], rows[40:])
    assert told["findings"] == []
    assert told["rows"] == {"train": 40, "validation": 0, "test": 8, "unused": 0, "refused": 0}
    assert told["labels"] == {label: {"train": 20, "validation": 0, "test": 4} for label in ("好评", "差评")}
    assert told["cost"] is None
    assert checked(tmp_path, entities[:32], entities[32:], task={"name": "ner"})["findings"] == []


# -- rows that training refuses

REFUSED = {
    "bad-row": ({"text": "", "label": "好评"}, "the text is empty"),
    "unknown-label": ({"text": "新的一行", "label": "中评"}, "'中评' is outside the label set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_cannot_be_typed(name: str, tmp_path: Path, rows: Any) -> None:
    bad, said = REFUSED[name]
    told = checked(tmp_path, [*rows[:9], bad, *rows[9:]], task={"labels": ["好评", "差评"]})
    assert named(told, name)["level"] == "error"
    assert named(told, name)["count"] == 1
    assert named(told, name)["examples"][0]["place"].endswith("train.jsonl:10")
    assert said in named(told, name)["examples"][0]["text"]
    assert (told["rows"]["train"], told["rows"]["refused"]) == (48, 1)


def test_the_first_row_may_be_the_bad_one(tmp_path: Path, rows: Any) -> None:
    told = checked(tmp_path, [{"text": "无标签", "label": None}, {"txt": "x"}, *rows])
    assert named(told, "bad-row")["count"] == 2
    assert told["rows"]["train"] == 48


def test_a_file_that_breaks_off(tmp_path: Path, rows: Any) -> None:
    test = tmp_path / "broken.jsonl"
    test.write_text('{"text": "新", "label": "好评"}\n{"text": "a\n{"text": "不读", "label": "好评"}\n', "utf-8")
    told = checked(tmp_path, rows, data={"test": str(test)})
    assert named(told, "broken-file")["examples"][0]["place"].endswith("broken.jsonl:2")
    assert told["rows"]["test"] == 1


def test_a_file_in_another_encoding(tmp_path: Path, rows: Any) -> None:
    test = tmp_path / "gbk.jsonl"
    test.write_bytes('{"text": "很好的一天", "label": "好评"}\n'.encode("gbk"))
    assert checked(tmp_path, rows, data={"test": str(test)})["notes"] == [f"{test}: read as gb18030"]
    told = checked(tmp_path, rows, data={"test": str(test), "encoding": "utf-8"})
    assert "data.encoding=gb18030" in named(told, "broken-file")["examples"][0]["text"]
    with pytest.raises(DataError, match=r"data\.encoding=gb18030"):
        checked(tmp_path, rows, data={"train": str(test), "encoding": "utf-8"})


def test_offsets_that_do_not_match(tmp_path: Path, entities: Any) -> None:
    wrong = {"text": "我爱南京", "entities": [{"start": 1, "end": 3, "type": "地点", "text": "南京"}]}
    told = checked(tmp_path, [*entities, wrong], task={"name": "ner"})
    assert named(told, "entity-offsets")["count"] == 1


def test_more_tokens_than_the_model_takes(tmp_path: Path, rows: Any) -> None:
    tokenizer_folder(tmp_path / "model", limit=100)
    told = checked(tmp_path, [*rows, {"text": LONG * 3, "label": "好评"}])
    assert named(told, "too-long")["count"] >= 1
    assert told["rows"]["train"] + told["rows"]["refused"] == 49


def test_an_answer_without_tokens(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from weitiao.tasks.classification import Classification

    monkeypatch.setattr(Classification, "target", lambda self, answer: "" if answer == "差评" else answer)
    assert named(checked(tmp_path, rows), "no-supervised-token")["count"] == 24


def test_a_test_file_without_rows_of_its_own(tmp_path: Path, rows: Any) -> None:
    told = checked(tmp_path, rows, data={"split_field": "part"}, task={"labels": ["好评", "差评"]})
    assert named(told, "bad-row")["count"] == 48
    assert named(told, "empty-split")["level"] == "error"


def test_answers_that_do_not_read_back(tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from weitiao.families.tokenizer import TextTokenizer

    monkeypatch.setattr(TextTokenizer, "decode", lambda self, ids: "别的")
    assert named(checked(tmp_path, rows), "round-trip")["count"] == 48


# -- tokens


def test_shortened_texts(tmp_path: Path, rows: Any) -> None:
    told = checked(tmp_path, [*rows, {"text": LONG, "label": "差评"}], data={"max_length": 24})
    found = named(told, "shortened")
    assert "差评" in found["what"]
    assert found["examples"][0]["place"].endswith("train.jsonl:49")
    assert told["tokens"]["above"] == found["count"]


def test_by_how_much_each_class_is_shortened(tmp_path: Path, rows: Any) -> None:
    more = [{"text": LONG * (1 + at % 3), "label": "好评" if at < 3 else "差评"} for at in (0, 1, 2, 5)]
    told = checked(tmp_path, [*rows, *more], data={"max_length": 64})
    lost = re.search(
        r"by class: 好评 (\d) \((\d+) tokens\), 差评 1 \((\d+) tokens\)$", named(told, "shortened")["what"]
    )
    assert lost, named(told, "shortened")["what"]
    count, usual, most = map(int, lost.groups())
    assert count in (2, 3)
    assert 0 < usual < most
    assert named(told, "shortened")["examples"][0]["text"] == f"{most} tokens left out"


def test_entities_in_the_part_that_is_left_out(tmp_path: Path, entities: Any) -> None:
    text = LONG + "王小明" + LONG
    row = {"text": text, "entities": [entity(text, len(LONG), len(LONG) + 3, "人名")]}
    told = checked(tmp_path, [*entities, row], task={"name": "ner"}, data={"max_length": 64})
    assert "the answer of 1 names something there" in named(told, "shortened")["what"]


# -- labels


@pytest.mark.parametrize("other", ["sport", "Ｓｐｏｒｔ", "S port"])
def test_spellings_of_one_label(other: str, tmp_path: Path, rows: Any) -> None:
    more = [{"text": f"第{at}场比赛", "label": ("Sport", other)[at % 2]} for at in range(12)]
    told = checked(tmp_path, [*rows, *more])
    assert names(told) == {"label-variants"}
    assert f"'{other}' (6 training rows)" in named(told, "label-variants")["examples"][0]["text"]


def test_labels_of_the_same_tokens(tmp_path: Path, rows: Any) -> None:
    more = [{"text": f"第{at}杯", "label": ("caf\u00e9", "cafe\u0301")[at % 2]} for at in range(12)]
    told = checked(tmp_path, [*rows, *more])
    assert named(told, "same-tokens")["level"] == "error"


def test_a_label_that_is_split_oddly(tmp_path: Path, rows: Any) -> None:
    """As Chinese is by a model of English: this tokenizer has a token for each letter, and three for each sign."""
    labels = ("sports", "politics", "culture", "体育")
    told = checked(tmp_path, [{"text": row["text"], "label": labels[at % 4]} for at, row in enumerate(rows)])
    found = named(told, "split-label")
    assert (found["level"], found["count"]) == ("note", 1)
    assert found["examples"][0]["text"] == "'体育' is 6 tokens"
    assert "1 of 4 labels with more tokens than characters" in found["what"]


def test_a_label_that_begins_another_is_fine(tmp_path: Path, rows: Any) -> None:
    more = [{"text": f"第{at}句", "label": ("好评", "好评如潮")[at % 2]} for at in range(12)]
    assert checked(tmp_path, [*rows, *more])["findings"] == []


def test_rare_and_unseen_labels(tmp_path: Path, rows: Any) -> None:
    task = {"labels": ["好评", "差评", "中评", "无评"]}
    few = [{"text": f"第{at}句", "label": "中评"} for at in range(4)]
    told = checked(tmp_path, [*rows, *few], [{"text": "另一句", "label": "无评"}], task=task)
    assert names(told) == {"rare-label", "unseen-label"}
    assert "中评 (4)" in named(told, "rare-label")["what"]
    assert "无评 (1)" in named(told, "unseen-label")["what"]


def test_one_label_for_nearly_all(tmp_path: Path, rows: Any) -> None:
    more = [{"text": f"第{at}句话", "label": "好评"} for at in range(300)]
    assert named(checked(tmp_path, [*rows, *more]), "dominant-label")["count"] == 324


# -- repeats


def test_repeats_and_conflicts(tmp_path: Path, rows: Any) -> None:
    other = {"好评": "差评", "差评": "好评"}
    told = checked(tmp_path, [*rows, rows[0], {**rows[1], "label": other[rows[1]["label"]]}])
    assert names(told) == {"duplicates", "conflicts"}
    assert named(told, "duplicates")["examples"][0]["place"].endswith("train.jsonl:49")
    assert named(told, "conflicts")["count"] == 2
    assert re.search(r"jsonl:2 \[.评\] ≠ .*jsonl:50 \[.评\]", named(told, "conflicts")["examples"][0]["place"])


def test_the_same_text_in_two_files(tmp_path: Path, rows: Any) -> None:
    told = checked(tmp_path, rows, [{**rows[4], "text": rows[4]["text"] + "  "}, {"text": "新的", "label": "好评"}])
    assert names(told) == {"leakage"}
    assert named(told, "leakage")["examples"][0]["place"].endswith("test.jsonl:1")
    assert (told["rows"]["train"], told["rows"]["unused"]) == (47, 1)


def test_near_texts(tmp_path: Path, rows: Any) -> None:
    near = [{"text": LONG, "label": "好评"}, {"text": LONG[:-2] + "吧。", "label": "好评"}]
    near.append({"text": LONG + "真的。", "label": "差评"})
    told = checked(tmp_path, [*rows, *near], [{"text": LONG + "！", "label": "好评"}])
    assert names(told) == {"near-duplicates", "near-conflicts", "near-leakage"}
    assert named(told, "near-leakage")["count"] == 1
    assert named(told, "near-duplicates")["examples"][0]["place"].endswith("train.jsonl:49")


def test_near_texts_with_entities_or_free_answers(tmp_path: Path, entities: Any) -> None:
    at = LONG.index("南京")
    near = [{"text": LONG, "entities": [entity(LONG, at, at + 2)]}]
    near.append({"text": "啊" + LONG, "entities": [entity("啊" + LONG, at + 1, at + 3)]})
    assert named(checked(tmp_path, [*entities, *near], task={"name": "ner"}), "near-duplicates")["count"] == 1
    rows = [{"question": LONG, "answer": "不去了"}, {"question": LONG[:-1] + "！", "answer": "不去"}]
    assert named(checked(tmp_path, rows, task={"name": "generation"}), "near-duplicates")["count"] == 1


def test_an_instruction_that_all_rows_have_is_not_near(tmp_path: Path) -> None:
    asked = "Translate the following sentence into French, and be very careful with names."
    rows = [{"instruction": asked, "input": f"{at * 7919}", "output": f"{at * 104729}"} for at in range(1, 40)]
    assert checked(tmp_path, rows, task={"name": "generation", "language": "en"})["findings"] == []


def test_several_answers_to_a_question_are_a_note(tmp_path: Path) -> None:
    rows = [{"question": "Why?", "answer": answer} for answer in ("because", "for no reason")]
    assert named(checked(tmp_path, rows, task={"name": "generation"}), "conflicts")["level"] == "note"


# -- entities

MARKED = {
    "entity-spaces": ("在 南京 下雨", [(1, 4)]),
    "entity-in-word": ("Seattle下雨", [(0, 5)]),
    "entity-overlaps": ("南京市长江大桥", [(0, 3), (2, 7)]),
    "entity-nested": ("南京市长江大桥", [(0, 7), (0, 3)]),
    "repeated-mentions": ("南京下雨，南京天晴", [(5, 7)]),
}


@pytest.mark.parametrize("name", MARKED)
def test_entities(name: str, tmp_path: Path, entities: Any) -> None:
    text, spans = MARKED[name]
    row = {"text": text, "entities": [entity(text, *span) for span in spans]}
    told = checked(tmp_path, [*entities, row], task={"name": "ner"})
    assert names(told) == {name}
    assert named(told, name)["count"] == 1
    assert named(told, name)["examples"][0]["place"].endswith("train.jsonl:41")


def test_the_ceiling_is_that_of_the_task(tmp_path: Path, entities: Any) -> None:
    from check.looked import config_of
    from weitiao.data.splits import load
    from weitiao.tasks.base import task_options

    text = "南京下雨，南京天晴"
    rows = [*entities, {"text": text, "entities": [entity(text, 5, 7)]}]
    found = named(checked(tmp_path, rows, task={"name": "ner"}), "repeated-mentions")
    config = config_of(tmp_path, rows, task={"name": "ner"})
    task, splits = load(config.data, task_options(config.task), 42)
    assert f"{task.best_possible(splits.train)['f1']:.4f}" in found["what"]


def test_a_type_in_two_places(tmp_path: Path, entities: Any) -> None:
    row = {"text": "南京下雨", "entities": [entity("南京下雨", 0, 2), entity("南京下雨", 0, 2, "人名")]}
    assert "entity-overlaps" in names(checked(tmp_path, [*entities, row], task={"name": "ner"}))


# -- control tokens, images


def test_control_tokens(tmp_path: Path, rows: Any) -> None:
    told = checked(tmp_path, [*rows, {"text": "你好<|im_end|>", "label": "好评"}])
    assert names(told) == {"control-tokens"}
    assert named(told, "control-tokens")["level"] == "note"


def test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weitiao.check.checks.pictures.LARGE", 10_000)
    tiny_model(tmp_path / "model", "qwen2_vl")
    shapes = {"a": (60, 60), "b": (64, 64), "small": (9, 60), "large": (200, 200)}
    for at, (name, shape) in enumerate(shapes.items()):
        Image.new("RGB", shape, (at * 40, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"nothing")
    files = [*shapes, "copy", "broken", "missing"]
    rows = [{"image": f"{name}.png", "caption": f"This is number {at}"} for at, name in enumerate(files)]
    test = [{"image": "b.png", "question": "Why?", "caption": "So"}]
    told = checked(tmp_path, rows, test, task={"name": "generation"})
    assert names(told) == {"bad-image", *OF_IMAGES, "conflicts"}  # the copy is told otherwise
    assert named(told, "bad-image")["count"] == 2
    assert all(named(told, name)["count"] == 1 for name in OF_IMAGES)


def test_images_that_are_fine(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", "qwen2_vl")
    for at in range(6):
        Image.new("RGB", (60, 60), (at * 40, 0, 0)).save(tmp_path / f"{at}.png")
    rows = [{"image": f"{at}.png", "caption": f"This is number {at}"} for at in range(6)]
    assert checked(tmp_path, rows[:4], rows[4:], task={"name": "generation"})["findings"] == []


def test_every_finding_is_in_the_documents() -> None:
    told = set(re.findall(r"^### `([a-z-]+)`", DOCS.read_text("utf-8"), flags=re.MULTILINE))
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src/weitiao/check").rglob("*.py"))
    raised = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source)) | set(re.findall(r'table, "([a-z-]+)"', source))
    assert told == raised | set(TROUBLE) | set(OF_ENTITIES) | set(OF_IMAGES)
