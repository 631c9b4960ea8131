"""From files as users have them to configs that load and whose rows the task takes; what does not tell is refused."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runs import trained
from weitiao.config import RunConfig, load_config
from weitiao.cost.at_hand import Card
from weitiao.data.splits import load
from weitiao.errors import ConfigError, DataError
from weitiao.init import walk
from weitiao.init.found import Asked
from weitiao.init.walk import config_name, init
from weitiao.tasks.base import task_options

KINDS = ("科技", "体育", "财经")
TEXTS = [f"第{at}条消息说了一些事情，读起来并不短。" for at in range(60)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, on a machine without a card."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(walk, "card", lambda: None)
    return tmp_path


def write_csv(
    path: str, names: Sequence[str], rows: Sequence[Sequence[Any]], encoding: str = "utf-8", mark: str = ","
) -> str:
    with Path(path).open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=mark).writerows([names, *rows])
    return path


def write_jsonl(path: str, rows: Sequence[dict[str, Any]]) -> str:
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def write_excel(path: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    book = openpyxl.Workbook()
    for cells in (names, *rows):
        book.active.append(list(cells))
    book.save(path)
    return path


def written(file: str, asked: Asked | None = None, **options: Any) -> tuple[RunConfig, str]:
    """The config, which loads and whose rows can be read as `train` reads them, and what was said."""
    said: list[str] = []
    config = load_config(init(file, asked or Asked(), say=said.append, **options))
    task, splits = load(config.data, task_options(config.task), config.run.seed)
    assert task.name == config.task["name"]
    assert splits.train
    return config, "\n".join(said)


def refused(file: str, asked: Asked | None = None, **options: Any) -> str:
    with pytest.raises((DataError, ConfigError)) as error:
        init(file, asked or Asked(), say=lambda _: None, **options)
    assert "\n" not in str(error.value)
    assert not list(Path().glob("*.yaml"))
    return str(error.value)


def labelled(text: str = "内容", label: str = "类别") -> tuple[list[str], list[list[Any]]]:
    return ["编号", text, label], [[at, text, KINDS[at % 3]] for at, text in enumerate(TEXTS)]


def test_a_chinese_table_in_gb18030() -> None:
    config, said = written(write_csv("评论.csv", *labelled(), encoding="gb18030"))
    assert (config.data.encoding, config.data.columns) == ("auto", {"text": "内容", "label": "类别"})
    assert config.task == {"name": "classification"}
    assert (config.data.validation, config.data.test) == (0.2, 0.2)
    assert config.run.name == "评论"
    for line in ("read as gb18030, cells parted by commas", "task: classification, since column '类别'"):
        assert line in said
    assert "label: column '类别', 3 values, the commonest 20 times, the rarest 20" in said
    assert "tokens: about 35 in the median text, at most 35 in 95 % of them" in said
    assert "weitiao check 评论.yaml" in said or "weitiao check '评论.yaml'" in said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk"])
@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
def test_every_encoding_and_separator(name: str, mark: str, encoding: str) -> None:
    config, _ = written(write_csv(name, *labelled(), encoding, mark))
    assert config.data.columns == {"text": "内容", "label": "类别"}


def test_an_excel_sheet_with_chinese_headers() -> None:
    config, _ = written(write_excel("留言.xlsx", *labelled("客户留言", "意图")))
    assert config.data.columns == {"text": "客户留言", "label": "意图"}
    assert config.data.encoding == "auto"


def test_contents_decide_where_names_say_nothing() -> None:
    names = ["col1", "col2", "col3"]
    config, said = written(write_csv("a.csv", names, labelled()[1]))
    assert config.data.columns == {"text": "col2", "label": "col3"}
    assert "text: column 'col2', the only column of texts beside the label" in said


def test_whole_numbers_are_labels_where_they_come_often() -> None:
    rows = [{"text": text, "stars": at % 5 + 1, "price": at * 1.5} for at, text in enumerate(TEXTS)]
    config, _ = written(write_jsonl("a.jsonl", rows))
    assert config.data.columns == {"label": "stars"}


@pytest.mark.parametrize("mark", [";", "|", "、", "，", "；"])
def test_several_labels_are_joined_by_any_sign(mark: str) -> None:
    rows = [[text, mark.join(KINDS[at % 3 : at % 3 + at % 2 + 1])] for at, text in enumerate(TEXTS)]
    config, said = written(write_csv("a.csv", ["text", "标签"], rows))
    assert config.task == {"name": "classification", "multi_label": True, "label_separator": mark}
    assert f"several labels a row: joined by {mark!r}" in said


def test_several_labels_are_a_list() -> None:
    rows = [{"text": text, "labels": list(KINDS[: at % 3])} for at, text in enumerate(TEXTS)]
    config, _ = written(write_jsonl("a.jsonl", rows))
    assert config.task == {"name": "classification", "multi_label": True}


def test_a_sign_within_a_label_joins_nothing() -> None:
    places = ["Paris, France", "Bonn, Germany", "Rome, Italy"]
    config, _ = written(write_csv("a.csv", ["text", "label"], [[t, places[at % 3]] for at, t in enumerate(TEXTS)]))
    assert "multi_label" not in config.task


def test_rows_with_their_own_options() -> None:
    rows = [{"text": text, "category": list(KINDS), "output": KINDS[at % 3]} for at, text in enumerate(TEXTS)]
    config, _ = written(write_jsonl("a.jsonl", rows))
    assert config.task == {"name": "classification", "options": "row"}
    assert config.data.columns == {}


@pytest.mark.parametrize(
    "entity",
    [
        {"start": 0, "end": 2, "type": "序数", "text": "第{at}"},
        {"start_idx": 0, "end_idx": 2, "entity_text": "第{at}", "entity_label": "序数"},
        {"text": "第{at}", "label": "序数"},
    ],
    ids=["offsets", "ccfbdci", "no offsets"],
)
def test_entities(entity: dict[str, Any]) -> None:
    def at_row(at: int) -> dict[str, Any]:
        end = {key: 1 + len(str(at)) for key in ("end", "end_idx") if key in entity}
        return {key: v.format(at=at) if isinstance(v, str) else v for key, v in entity.items()} | end

    rows = [{"正文": text, "实体": [at_row(at)] if at % 2 else []} for at, text in enumerate(TEXTS)]
    config, said = written(write_jsonl("a.jsonl", rows))
    assert config.task == {"name": "ner"}
    assert config.data.columns == {"text": "正文", "entities": "实体"}
    assert "types: 序数: 30" in said


def test_instructions() -> None:
    rows = [{"instruction": "翻译", "input": text, "output": text[::-1]} for text in TEXTS]
    config, _ = written(write_jsonl("a.jsonl", rows))
    assert config.task == {"name": "generation"}
    assert config.data.columns == {}


def test_questions_and_answers_in_chinese() -> None:
    config, _ = written(write_csv("问答.csv", ["问题", "答案"], [[text, text[::-1]] for text in TEXTS]))
    assert config.data.columns == {"question": "问题", "answer": "答案"}


def test_conversations() -> None:
    rows = [{"对话": [{"role": "user", "content": t}, {"role": "assistant", "content": t[:4]}]} for t in TEXTS]
    config, _ = written(write_jsonl("a.jsonl", rows))
    assert config.task == {"name": "generation"}
    assert config.data.columns == {"conversation": "对话"}


def images(count: int = 12) -> list[str]:
    Path("图").mkdir()
    for at in range(count):
        Image.new("RGB", (8, 8), (at * 20, 0, 0)).save(f"图/{at}.png")
    return [f"图/{at}.png" for at in range(count)]


def test_images_with_labels() -> None:
    config, said = written(write_csv("a.csv", ["图片", "类别"], [[p, KINDS[at % 3]] for at, p in enumerate(images())]))
    assert config.task["name"] == "classification"
    assert config.data.columns == {"image": "图片", "label": "类别"}
    assert config.model.name == "Qwen/Qwen2-VL-2B-Instruct"
    assert "12 of the first 12 image files are there" in said


def test_images_with_captions() -> None:
    config, _ = written(write_csv("a.csv", ["file", "words"], [[p, TEXTS[at]] for at, p in enumerate(images())]))
    assert config.task == {"name": "generation", "question": "描述这张图片。"}
    assert config.data.columns == {"image": "file", "answer": "words"}


def test_a_folder_of_images() -> None:
    for at, kind in enumerate(KINDS * 6):
        Path("photos", kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (at * 10, 0, 0)).save(f"photos/{kind}/{at}.png")
    config, _ = written("photos")
    assert (config.data.train, config.run.name, config.data.columns) == ("photos", "photos", {})


def test_images_that_are_elsewhere() -> None:
    rows = [[f"gone/{at}.png", text, KINDS[at % 3]] for at, text in enumerate(TEXTS)]
    config, said = written(write_csv("a.csv", ["image", "text", "label"], rows))
    assert config.data.columns == {"image": ""}
    assert "column 'image' left out: it names images, but none is in ." in said


UNTOLD: dict[str, tuple[list[str], list[list[Any]], str]] = {
    "one column": (["text"], [[text] for text in TEXTS], r"no column looks like labels.*--task.*columns: text\)"),
    "ids": (
        ["text", "label"],
        [[t, at * 1.37] for at, t in enumerate(TEXTS)],
        r"'label' is called label, but.*60 rows",
    ),
    "free labels": (
        ["text", "label"],
        [[text, text[::-1]] for text in TEXTS],
        r"'label' is called label, but 60 values",
    ),
    "two texts": (["a", "b"], [[text, text[::-1]] for text in TEXTS], r"with --text and --label \(columns: a, b\)"),
    "two labels": (
        ["text", "类别", "标签"],
        [[text, KINDS[at % 3], "ab"[at % 2]] for at, text in enumerate(TEXTS)],
        r"more than one column may be the label: '类别' \(3 values\), '标签' \(2 values\); name it with --label",
    ),
    "which text": (
        ["a", "b", "label"],
        [[text, text[::-1], KINDS[at % 3]] for at, text in enumerate(TEXTS)],
        r"more than one column may be the text: 'a' .*'b' .*; name it with --text",
    ),
    "two tasks": (
        ["问题", "答案", "类别"],
        [[text, text[::-1], KINDS[at % 3]] for at, text in enumerate(TEXTS)],
        r"may be for generation \(.*\) or classification \(column '类别' .*\); say which with --task",
    ),
    "one value": (["text", "label"], [[text, "x"] for text in TEXTS], r"it has a single value"),
    "no header": ([TEXTS[0], "体育"], [[t, KINDS[at % 3]] for at, t in enumerate(TEXTS)], r"first row looks like data"),
    "one row": (["text", "label"], [["好", "a"]], r"1 row; wanted at least 10"),
    "no rows": (["text", "label"], [], r"holds no rows"),
}


@pytest.mark.parametrize(("names", "rows", "message"), UNTOLD.values(), ids=UNTOLD)
def test_what_does_not_tell_is_asked_for(names: list[str], rows: list[list[Any]], message: str) -> None:
    error = refused(write_csv("a.csv", names, rows))
    assert re.search(message, error), error


def test_an_empty_file_is_refused() -> None:
    Path("a.csv").touch()
    assert "is empty" in refused("a.csv")


def test_entities_in_another_shape_are_named() -> None:
    rows: list[dict[str, Any]] = [{"text": text, "label": [[0, 2, "序数"]]} for text in TEXTS]
    assert "column 'label' holds lists such as [start, end, type]" in refused(write_jsonl("a.jsonl", rows))
    assert "no entities to read" in refused(write_jsonl("a.jsonl", rows), Asked(task="ner"))


def test_what_the_user_says_holds() -> None:
    file = write_csv("a.csv", ["a", "b", "c"], [[t, t[::-1], KINDS[at % 3]] for at, t in enumerate(TEXTS)])
    assert written(file, Asked(text="b"))[0].data.columns == {"text": "b", "label": "c"}
    config, _ = written(file, Asked("generation", "a", "b"), model="org/name", overwrite=True)
    assert config.task == {"name": "generation"}
    assert (config.data.columns, config.model.name) == ({"text": "a", "answer": "b"}, "org/name")


def test_a_label_of_free_texts_is_an_answer() -> None:
    file = write_csv("a.csv", ["a", "b"], [[text, text[::-1]] for text in TEXTS])
    config, said = written(file, Asked(text="a", label="b"))
    assert config.task == {"name": "generation"}
    assert config.data.columns == {"text": "a", "answer": "b"}
    assert "task: generation, since column 'b' is to be its answer" in said


def test_a_conversation_keeps_its_system_message() -> None:
    said = [[{"from": "human", "value": text}, {"from": "gpt", "value": "在。"}] for text in TEXTS]
    rows = [{"system": f"你是第{at}号客服。", "conversations": turns} for at, turns in enumerate(said)]
    config, _ = written(write_jsonl("a.jsonl", rows))
    assert (config.task, config.data.columns) == ({"name": "generation"}, {})


def test_labels_spelt_in_two_ways_and_single_ones_are_said() -> None:
    kinds = ["Good", "good", "bad", *["Good", "bad"] * 28, "odd"]
    _, said = written(write_csv("a.csv", ["text", "label"], list(zip(TEXTS, kinds, strict=True))))
    assert "letter case, width or spaces only: 'Good' and 'good'" in said
    assert "labels that stand in one row only: 2 (such as 'good')" in said


def test_wrong_options_are_refused() -> None:
    file = write_csv("a.csv", *labelled())
    assert "--label 'nope': no such column; the file has 编号, 内容, 类别" in refused(file, Asked(label="nope"))
    assert "--label '编号': 60 values in 60 rows" in refused(file, Asked(label="编号"))
    assert "did you mean 'classification'" in refused(file, Asked("classificaton"))


def test_nothing_is_overwritten_unasked() -> None:
    file = write_csv("a.csv", *labelled())
    written(file)
    Path("a.yaml").write_text("mine", "utf-8")
    with pytest.raises(ConfigError, match=r"a\.yaml: there already; name another file with -o, or pass --overwrite"):
        init(file, Asked())
    assert Path("a.yaml").read_text("utf-8") == "mine"
    written(file, overwrite=True)
    with pytest.raises(ConfigError, match="is the data file itself"):
        init(file, Asked(), output=Path(file), overwrite=True)


def test_files_beside_it_are_held_out_where_they_are_labelled() -> None:
    names, rows = labelled("text", "label")
    Path("新闻").mkdir()
    write_csv("新闻/train.csv", names, rows[:40])
    write_csv("新闻/dev.csv", names, rows[40:50])
    write_csv("新闻/test.csv", names, [[at, text, ""] for at, text, _ in rows[50:]])
    config, said = written("新闻/train.csv")
    assert (config.data.validation, config.data.test) == ("新闻/dev.csv", 0.2)
    assert config.run.name == "新闻"
    assert "test: 新闻/test.csv lies beside it, but 10 of its rows have no 'label'" in said


def test_a_column_says_the_split() -> None:
    rows = [[t, KINDS[at % 3], ("train", "train", "dev", "test")[at % 4]] for at, t in enumerate(TEXTS)]
    config, _ = written(write_csv("a.csv", ["text", "label", "part"], rows))
    assert config.data.split_field == "part"


def test_what_train_would_stop_at_is_said() -> None:
    names, rows = labelled("text", "label")
    rows[7][2], rows[8][1], rows[3][1], rows[2][1] = "", "", rows[6][1], rows[0][1]
    said: list[str] = []
    init(write_csv("a.csv", names, rows), Asked(), say=said.append)
    for line in (
        "warning: rows without label: 1 (first a.csv:9)",
        "warning: rows without text: 1 (first a.csv:10)",
        "warning: rows that repeat an earlier one's text exactly: 2",
        "warning: texts with different answers: 1 (first a.csv:2 and a.csv:4)",
        "warning: `train` will stop here: a.csv:9",
    ):
        assert line in "\n".join(said)
    assert "once that is mended" in said[-1]


def test_a_card_changes_the_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_csv("a.csv", *labelled())
    small, said = written(file)
    assert "warning: pypi:smollm2-135m-instruct shows every step without a card, but it is an English model" in said
    monkeypatch.setattr(walk, "card", lambda: Card("A card", 24))
    large, said = written(file, overwrite=True)
    assert (small.model.name, large.model.name) == ("pypi:smollm2-135m-instruct", "Qwen/Qwen2.5-1.5B-Instruct")
    assert (small.training.learning_rate, large.training.learning_rate) == (5e-4, 2e-4)
    assert "card: A card, 24 GiB" in said


def test_a_config_for_a_card_that_is_not_here() -> None:
    file = write_csv("a.csv", *labelled())
    small, said = written(file)
    assert "such as --gpu 4090: that proposes Qwen/Qwen2.5-1.5B-Instruct" in said
    large, said = written(file, gpu="4090", overwrite=True)
    assert (large.model.name, large.data.train_rows) == ("Qwen/Qwen2.5-1.5B-Instruct", None)
    assert re.search("^card: GeForce RTX 4090, 2. GiB, as --gpu says$", said, re.MULTILINE)
    assert said.endswith("weitiao check a.yaml --gpu 4090")
    assert written(file, gpu="cpu", overwrite=True)[0] == small
    with pytest.raises(ConfigError, match="--gpu 4909: no such card in the table; did you mean 4090"):
        written(file, gpu="4909", overwrite=True)


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).map(str.strip).filter(bool)


@settings(max_examples=40, deadline=None)
@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_any_names_of_columns_come_through(names: list[str]) -> None:
    file = write_jsonl(
        "any.jsonl", [dict(zip(names, (text, KINDS[at % 3]), strict=True)) for at, text in enumerate(TEXTS)]
    )
    config, _ = written(file, Asked("classification", *names), overwrite=True)
    found = {"text": "text", "label": "label"} | config.data.columns
    assert [found["text"], found["label"]] == names


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a/评论.csv", "评论.yaml"),
        ("a/train.jsonl", "a.yaml"),
        ("a/b.tar.csv", "b.tar.yaml"),
        ("photos", "photos.yaml"),
    ],
)
def test_the_config_is_called_after_the_file(file: str, name: str) -> None:
    assert config_name(file) == name


def test_from_a_file_to_a_trained_adapter(qwen2_folder: Path) -> None:
    file = write_csv("评论.csv", *labelled(), encoding="gb18030")
    init(file, Asked(), model=str(qwen2_folder), say=lambda _: None)
    short = ["training.max_steps=1", "evaluation.baselines=false", "evaluation.untuned=false", "model.device=cpu"]
    run = trained(load_config("评论.yaml", [*short, "evaluation.bootstrap=100"]))
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((run / "metrics.json").read_text("utf-8"))["rows"] == 12
