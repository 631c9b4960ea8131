"""What bad input gets: exit code 2 and one line that says what, where and what to do, and nothing written.

A case is (what the folder is changed by, arguments, words of the line). Each runs in a process of its own. Where the
error comes before torch is imported, as nearly all must, the line is also the only one.
"""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny import write_rows

Change = Callable[[Path], Any]
GOOD = {"text": "这个手机很好", "label": "好评"}
BAD = {"text": "这个手机太差", "label": "差评"}
PERSON = {"start": 0, "end": 2, "type": "人名", "text": "李华"}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(weitiao: Any) -> Callable[..., str]:
    """refused(folder, arguments, words) asserts all that every bad input gets; the line."""

    def check(
        folder: Path, arguments: Sequence[str], words: Sequence[str], stdin: bytes = b"", alone: bool = True
    ) -> str:
        before = snapshot(folder)
        done = weitiao(folder, *arguments, stdin=stdin)
        lines = done.stderr.splitlines()
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert lines[-1].startswith("weitiao: ")
        assert len(lines) == 1 or not alone, done.stderr
        assert [word for word in words if word not in lines[-1]] == [], lines[-1]
        assert snapshot(folder) == before
        return lines[-1]

    return check


def rows(*records: Any, name: str = "bad.jsonl") -> Change:
    return lambda folder: write_rows(folder / name, records)


def content(name: str, value: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(value if isinstance(value, bytes) else value.encode())


def nothing(folder: Path) -> None:
    pass


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


# -- config

YAML = """
task: {name: classification}
model: {name: model}
data: {train: rows.jsonl}
"""
CONFIGS = {
    "unknown section": (nothing, ["trainning.max_steps=3"], ["unknown key `trainning`", "mean `training`?"]),
    "unknown key": (nothing, ["training.max_step=3"], ["unknown key `training.max_step`", "mean `max_steps`?"]),
    "unknown task option": (nothing, ["task.lables=[a]"], ["unknown key `lables`", "did you mean `labels`?"]),
    "misspelt choice": (nothing, ["model.dtype=bf16"], ["`model.dtype`", '"bf16"', "'bfloat16'"]),
    "wrong type": (nothing, ["training.max_steps=many"], ["`training.max_steps`", '"many"', "integer"]),
    "out of range": (nothing, ["lora.lora_dropout=1.5"], ["`lora.lora_dropout`", "1.5", "less than 1"]),
    "infinite": (nothing, ["training.num_train_epochs=.inf"], ["`training.num_train_epochs`", "finite"]),
    "a section that is null": (nothing, ["training=null"], ["`training`", "wanted keys below it"]),
    "override without =": (nothing, ["training.max_steps"], ["'training.max_steps'", "wanted key=value"]),
    "override into a value": (nothing, ["model.name.x=1"], ["'model.name.x=1'", "`name` is not a section"]),
    "override that is no YAML": (nothing, ["task.labels=[a, b"], ["'task.labels=[a, b'", "not valid YAML", "quote it"]),
    "broken YAML": (content("config.yaml", YAML + "lora: [1\n"), [], ["config.yaml:6", "not valid YAML"]),
    "a date that is none": (content("config.yaml", YAML + "x: 2026-02-30\n"), [], ["config.yaml", "not valid YAML"]),
    "a number as key": (content("config.yaml", YAML + "7: x\n"), [], ["config.yaml", "`7`"]),
    "YAML of a list": (content("config.yaml", "- a\n"), [], ["config.yaml", "wanted sections", "found list"]),
    "config not UTF-8": (content("config.yaml", f"# 中文{YAML}".encode("gbk")), [], ["config.yaml", "save", "UTF-8"]),
    "missing key": (content("config.yaml", "model: {name: model}\n"), [], ["config.yaml", "key `task` is missing"]),
    "task without name": (content("config.yaml", YAML.replace("name: c", "kind: c")), [], ["`task`", "needs a `name`"]),
    "unknown task": (nothing, ["task.name=clasification"], ["no such task", "did you mean 'classification'?"]),
    "description of no label": (
        nothing,
        ["task.label_descriptions={好评的: x}"],
        ["`task.label_descriptions`", "'好评的'", "did you mean '好评'?"],
    ),
    "unknown metric": (nothing, ["evaluation.metric=acuracy"], ["`evaluation.metric`", "did you mean 'accuracy'?"]),
    "metric of errors": (nothing, ["evaluation.metric=ece"], ["`evaluation.metric`", "lower is better"]),
    "shares of 1": (nothing, ["data.validation=0.6", "data.test=0.5"], ["`data.validation` + `data.test`", "1.1"]),
    "share above 1": (nothing, ["data.test=2.0"], ["`data.test`", "between 0 and 1"]),
    "output folder is a file": (nothing, ["run.output_dir=rows.jsonl"], ["rows.jsonl", "is no folder", "output_dir"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_config(case: str, work: Path, refused: Any) -> None:
    change, overrides, words = CONFIGS[case]
    change(work)
    refused(work, ["train", "config.yaml", *overrides], words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("qwen2-1.5b-fudan-new", ["no config 'qwen2-1.5b-fudan-new'", "did you mean 'qwen2-1.5b-fudan-news'?"]),
        ("missing.yaml", ["no config 'missing.yaml'", "shipped configs"]),
    ],
)
def test_missing_config(name: str, words: list[str], work: Path, refused: Any) -> None:
    refused(work, ["train", name], words)


# -- data

DATA = {
    "missing file": (nothing, ["data.train=row.jsonl"], ["row.jsonl", "no such file", "did you mean 'rows.jsonl'?"]),
    "missing folder": (nothing, ["data.train=no/rows.jsonl"], ["no/rows.jsonl", "nor a folder 'no'", "check the path"]),
    "folder": (nothing, ["data.train=model"], ["model", "is a folder", "name a file in it"]),
    "folder of nothing": (
        lambda folder: (folder / "photos").mkdir(),
        ["data.train=photos"],
        ["photos", "is a folder", "(it has none)", "folder of images", "metadata.jsonl"],
    ),
    "hub file, offline": (
        nothing,
        ["data.train=hf:Org/Rows/a.jsonl"],
        [
            "no hf:Org/Rows/a.jsonl on this disk",
            "is set; unset it",
            "`hf download Org/Rows a.jsonl --repo-type dataset`",
        ],
    ),
    "hub name without a file": (nothing, ["data.train=hf:Org/Rows"], ["hf:Org/Rows", "names no file of a data set"]),
    "hub file of no kind": (nothing, ["data.train=hf:Org/Rows/a.dat"], ["a.dat", "'.dat' is not known", ".jsonl"]),
    "unknown extension": (content("bad.dat", "x"), ["data.train=bad.dat"], ["bad.dat", "'.dat'", ".jsonl", ".csv"]),
    "empty file": (content("bad.jsonl", ""), [], ["bad.jsonl", "is empty", "at least one row"]),
    "blank lines only": (content("bad.jsonl", "\n\n"), [], ["bad.jsonl", "no rows"]),
    "broken JSON": (
        content("bad.jsonl", '{"text": "好", "label": "a"}\n{"text" "好"}\n'),
        [],
        ["bad.jsonl:2:", "broken JSON at column 9", "correct or remove it"],
    ),
    "an array a line": (content("bad.jsonl", '["好", "a"]\n'), [], ["bad.jsonl:1:", "JSON object", ".json"]),
    "ragged CSV": (
        content("bad.csv", "text,label\n好,a\n好,很好,b\n"),
        ["data.train=bad.csv"],
        ["bad.csv:3:", "3 cells", "header has 2", "double quotes"],
    ),
    "GBK as UTF-8": (
        content("bad.jsonl", json.dumps(GOOD, ensure_ascii=False).encode("gbk")),
        ["data.encoding=utf-8"],
        ["bad.jsonl:1:", "not valid UTF-8", "set data.encoding=gb18030, or leave it out"],
    ),
    "UTF-16": (
        content("bad.jsonl", json.dumps(GOOD, ensure_ascii=False).encode("utf-16")),
        ["data.encoding=gb18030"],
        ["bad.jsonl:1:", "byte-order mark", "set data.encoding=utf-16, or leave it out"],
    ),
    "unknown encoding": (rows(GOOD), ["data.encoding=gbk-9"], ["bad.jsonl", "data.encoding='gbk-9'", "gb18030"]),
    "no such column": (rows(GOOD), ["data.columns={text: 内容}"], ["bad.jsonl:1:", "no column '内容'", "text, label"]),
    "label outside the set": (
        rows(GOOD, BAD, {**GOOD, "label": "好评的"}),
        ["task.labels=[好评, 差评]"],
        ["bad.jsonl:3:", "label '好评的' is outside the label set", "did you mean '好评'?"],
    ),
    "label of another meaning": (
        rows(GOOD, BAD, {**GOOD, "label": "中评"}),
        ["task.labels=[好评, 差评]"],
        ["bad.jsonl:3:", "label '中评' is outside the label set (好评, 差评)"],
    ),
    "no label": (rows(GOOD, {"text": "好"}), [], ["bad.jsonl:2:", "no label", "data.columns.label"]),
    "no text": (rows(GOOD, {"label": "好评"}), [], ["bad.jsonl:2:", "no text", "data.columns.text"]),
    "empty text": (rows(GOOD, {**GOOD, "text": "  "}), [], ["bad.jsonl:2:", "text is empty", "remove the row"]),
    "text of a number": (rows(GOOD, {**GOOD, "text": 7}), [], ["bad.jsonl:2:", "must be a string", "int 7"]),
    "empty label": (rows(GOOD, {**GOOD, "label": ""}), [], ["bad.jsonl:2:", "label '' is empty"]),
    "two labels": (
        rows(GOOD, {**GOOD, "label": ["好评", "差评"]}),
        [],
        ["bad.jsonl:2:", "2 labels", "task.multi_label=true"],
    ),
    "label not among the options": (
        rows({"text": "甲", "category": ["体育", "经济"], "output": "军事"}),
        [],
        ["bad.jsonl:1:", "label '军事' is outside the row's options"],
    ),
    "empty test file": (
        both(rows(GOOD, BAD), content("none.jsonl", "")),
        ["data.test=none.jsonl"],
        ["none.jsonl", "is empty"],
    ),
    "no training rows": (
        rows({**GOOD, "part": "test"}, {**BAD, "part": "test"}),
        ["data.split_field=part"],
        ["bad.jsonl", "no row's 'part' is 'train'", "mark the rows to train on"],
    ),
    "unknown split": (
        rows({**GOOD, "part": "trian"}),
        ["data.split_field=part"],
        ["bad.jsonl:1:", "'part' is 'trian'", "wanted train, validation or test"],
    ),
    "too few rows to hold out": (rows(GOOD), [], ["bad.jsonl", "data.validation=0.25", "no validation rows"]),
}
ENTITIES = {
    "offsets disagree": ({**PERSON, "start": 2, "end": 4}, ["'李华' disagrees with offsets 2:4", "code points"]),
    "offsets outside": ({**PERSON, "end": 99}, ["offsets 0, 99", "wanted 0 ≤ start < end ≤ 6"]),
    "unknown type": ({**PERSON, "type": "人名字"}, ["entity type '人名字' is outside the set", "did you mean '人名'?"]),
    "no type": ({"start": 0, "end": 2, "text": "李华"}, ["has no `type`", "wanted start, end, type and text"]),
    "not in the text": ({"type": "人名", "text": "张伟"}, ["entity '张伟' does not occur"]),
}


@pytest.mark.parametrize("case", DATA)
def test_classification_rows(case: str, work: Path, refused: Any) -> None:
    change, overrides, words = DATA[case]
    change(work)
    refused(work, ["train", "config.yaml", "data.train=bad.jsonl", *overrides], words)


@pytest.mark.parametrize("case", ENTITIES)
def test_entities(case: str, work: Path, refused: Any) -> None:
    entity, words = ENTITIES[case]
    rows({"text": "李华住在南京", "entities": [PERSON]}, {"text": "李华住在南京", "entities": [entity]})(work)
    refused(work, ["train", "ner.yaml", "data.train=bad.jsonl", "task.types=[人名]"], ["bad.jsonl:2:", *words])


def picture(name: str, keep: float = 1.0) -> Change:
    """A JPEG of noise, cut off behind a share of its bytes."""

    def change(folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, "JPEG")
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * keep)])

    return change


IMAGES = {
    "cut off": (picture("3.jpg", keep=0.5), "3.jpg", ["/3.jpg: is broken", "replace it"]),
    "a text": (content("3.png", "这不是图片"), "3.png", ["/3.png: is none that can be read", "wanted JPEG, PNG"]),
    "an address": (nothing, "https://example.org/3.jpg", ["image 'https://", "is an address", "download it first"]),
    "outside": (nothing, "../3.jpg", ["image '../3.jpg': is not in", "set data.images"]),
}


@pytest.mark.parametrize("case", IMAGES)
def test_images(case: str, work: Path, qwen2_vl_folder: Path, refused: Any) -> None:
    change, image, words = IMAGES[case]
    shutil.copytree(qwen2_vl_folder, work / "vision")
    both(picture("1.jpg"), change)(work)
    rows(*({"image": name, "caption": "好"} for name in ("1.jpg", "1.jpg", image)))(work)
    arguments = ["train", "config.yaml", "data.train=bad.jsonl", "data.validation=null", "model.name=vision"]
    # What is cut off is seen when the pixels are read, by the model.
    refused(work, [*arguments, "task.name=generation"], ["bad.jsonl:3: image ", *words], alone=case != "cut off")


def test_rows_are_checked_before_an_old_run_is_replaced(trained: Path, refused: Any) -> None:
    arguments = ["train", "config.yaml", "--overwrite"]
    refused(trained, [*arguments, "model.name=gone/model"], ["gone/model"])
    rows(GOOD, {**BAD, "text": ""})(trained)
    refused(trained, [*arguments, "data.train=bad.jsonl"], ["bad.jsonl:2:"])


# -- base model


def edited(name: str, **values: Any) -> Change:
    """Values of a JSON file in the model's folder set; None takes a key out."""

    def change(folder: Path) -> None:
        path = folder / "model" / name
        whole = json.loads(path.read_text("utf-8")) | values
        path.write_text(json.dumps({k: v for k, v in whole.items() if v is not None}), "utf-8")

    return change


def removed(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def truncated(name: str, share: float = 0.5) -> Change:
    def change(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * share)])

    return change


def without_chatml(folder: Path) -> None:
    path = folder / "model" / "tokenizer.json"
    whole = json.loads(path.read_text("utf-8"))
    whole["added_tokens"] = [token for token in whole["added_tokens"] if not token["content"].startswith("<|im_")]
    path.write_text(json.dumps(whole), "utf-8")


def without_a_label(folder: Path) -> None:
    """A tokenizer whose normal form leaves nothing of the label 差评."""
    swallow = {"type": "Replace", "pattern": {"String": "差评"}, "content": ""}
    edited("tokenizer.json", normalizer=swallow)(folder)


MODELS = {
    "hub name": (
        nothing,
        ["model.name=Qwen/Qwen2-1.5B-Instruct"],
        ["no model 'Qwen/Qwen2-1.5B-Instruct'", "is set; unset it", "`modelscope download --model Qwen/Qwen2-1.5B"],
    ),
    "path": (nothing, ["model.name=./modle"], ["'./modle' does not exist"]),
    "neither": (nothing, ["model.name=qwen2"], ["no model 'qwen2'", "hub name such as"]),
    "a file": (nothing, ["model.name=rows.jsonl"], ["'rows.jsonl'", "neither a folder nor a .gguf file"]),
    "no config.json": (removed("model/config.json"), [], ["'model'", "no config.json"]),
    "broken config.json": (content("model/config.json", "{"), [], ["model/config.json", "not valid JSON", "fetch"]),
    "no tokenizer.json": (removed("model/tokenizer.json"), [], ["model", "no tokenizer.json"]),
    "broken tokenizer.json": (truncated("model/tokenizer.json"), [], ["model/tokenizer.json", "unreadable tokenizer"]),
    "unknown model_type": (
        edited("config.json", model_type="gpt9"),
        [],
        ["model_type 'gpt9'", "supported: chatglm, glm"],
    ),
    "unknown family": (nothing, ["model.family=qwen22"], ["`model.family`", "'qwen22'", "did you mean 'qwen2'?"]),
    "no ChatML": (without_chatml, [], ["model/tokenizer.json", "control token '<|im_", "choose a model"]),
    "no weights": (removed("model/model.safetensors"), [], ["model", "no .safetensors file"]),
    "weights cut off": (truncated("model/model.safetensors"), [], ["model/model.safetensors", "damaged", "fetch"]),
    "weights that are none": (content("model/model.safetensors", b"x" * 99), [], ["model.safetensors", "damaged"]),
    "GGUF that is none": (content("m.gguf", "x" * 99), ["model.name=m.gguf"], ["m.gguf", "is not a GGUF file"]),
    "instruction too long": (
        nothing,
        [f"task.instruction={'很好' * 3000}"],
        ["rows.jsonl:", "but the model takes 2048", "shorten the instruction"],
    ),
    "answer without a token": (without_a_label, [], ["rows.jsonl:", "answer '差评' has no tokens"]),
}


@pytest.mark.parametrize("case", MODELS)
def test_base_model(case: str, work: Path, refused: Any) -> None:
    change, overrides, words = MODELS[case]
    change(work)
    refused(work, ["train", "config.yaml", *overrides], words)


def lacking_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


LOADED = {
    "weights lack a tensor": (lacking_a_tensor, [], ["model", "lack 'model.layers.1.mlp.up_proj.weight'", "fetch"]),
    "target that matches nothing": (
        nothing,
        ["lora.target_modules=[q_proj, v_prj]"],
        ["`lora.target_modules`", "'v_prj' matches no layer", "did you mean 'v_proj'?"],
    ),
    "target that is not linear": (
        nothing,
        ["lora.target_modules=[embed_tokens]"],
        ["`lora.target_modules`", "'embed_tokens' is no linear layer", "q_proj"],
    ),
    "GGUF of rubbish": (
        content("m.gguf", b"GGUF" + struct.pack("<I", 3) + bytes(range(200))),
        ["model.name=m.gguf"],
        ["m.gguf", "cannot read this GGUF"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LOADED)
def test_what_only_torch_can_tell(case: str, work: Path, refused: Any) -> None:
    change, overrides, words = LOADED[case]
    change(work)
    refused(work, ["train", "config.yaml", *overrides], words, alone=False)


def test_varlen_on_a_cpu(work: Path, refused: Any) -> None:
    refused(work, ["train", "config.yaml", "engine.attention=varlen"], ["`engine.attention`", "CUDA", 'use "auto"'])


def test_cuda_without_a_gpu(work: Path, refused: Any) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    refused(work, ["train", "config.yaml", "model.device=cuda"], ["`model.device`", '"cuda"', "use model.device=cpu"])


# -- run folders


def test_run_of_another_config(trained: Path, refused: Any) -> None:
    words = ["output/run", "lora.r: 8 → 16", "run.name=", "--overwrite"]
    refused(trained, ["train", "config.yaml", "lora.r=16"], words)


def test_run_of_other_data(trained: Path, refused: Any) -> None:
    with (trained / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "新的一行", "label": "好评"}, ensure_ascii=False) + "\n")
    refused(trained, ["train", "config.yaml"], ["output/run", "files.rows.jsonl", "--overwrite"])
    refused(trained, ["evaluate", "output/run"], ["rows.jsonl", "is not the file", "--data"])


def test_damaged_run_folder(trained: Path, refused: Any) -> None:
    content("output/run/data.json", "{")(trained)
    refused(trained, ["train", "config.yaml"], ["output/run/data.json", "unreadable", "--overwrite"])


def test_preview_beyond_the_end(work: Path, refused: Any) -> None:
    refused(work, ["preview", "config.yaml", "--row", "36"], ["--row 36", "there are 36 training rows"])


# -- predict and evaluate


def unfinished(folder: Path) -> None:
    shutil.rmtree(folder / "output/run/adapter")


def other_weights(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    # The last tensor may be long, and only its beginning is looked at.
    start = 8 + int.from_bytes(raw[:8], "little")
    raw[start] ^= 1
    path.write_bytes(raw)


def told(**values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "output/run/adapter/task.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")

    return change


RUN = ["predict", "output/run", "rows.jsonl"]
PREDICTIONS = {
    "no run folder": (nothing, ["predict", "output/rnu", "rows.jsonl"], ["'output/rnu'", "weitiao train"]),
    "a folder that is no run": (nothing, ["predict", "model", "rows.jsonl"], ["model", "no task.json"]),
    "an unfinished run": (unfinished, RUN, ["output/run", "no adapter yet", "weitiao train"]),
    "other weights": (other_weights, RUN, ["output/run/adapter", "another base", "'model'", "weights"]),
    "base is gone": (
        lambda folder: shutil.rmtree(folder / "model"),
        RUN,
        ["base model of output/run/adapter", "no model 'model'"],
    ),
    "damaged adapter": (
        truncated("output/run/adapter/adapter_model.safetensors"),
        RUN,
        ["output/run/adapter", "adapter_model.safetensors", "restore the folder, or train again"],
    ),
    "damaged task.json": (content("output/run/adapter/task.json", "{"), RUN, ["adapter/task.json", "unreadable"]),
    "task.json without a key": (told(base={"name": "model"}), RUN, ["adapter/task.json", "`base.fingerprint`"]),
    "later schema": (told(schema_version=9), RUN, ["adapter/task.json", "schema_version 9", "reads 1"]),
    "a row without text": (rows(GOOD, {"label": "好评"}), [*RUN[:2], "bad.jsonl"], ["bad.jsonl:2:", "no text"]),
    "missing input": (nothing, [*RUN[:2], "row.jsonl"], ["row.jsonl", "did you mean 'rows.jsonl'?"]),
    "unknown output": (nothing, [*RUN, "-o", "out.xml"], ["out.xml", "cannot write .xml", ".jsonl, .csv or .parquet"]),
    "output folder missing": (nothing, [*RUN, "-o", "no/out.csv"], ["no/out.csv", "no folder 'no'", "make it first"]),
    "output is a folder": (
        lambda folder: (folder / "out.csv").mkdir(),
        [*RUN, "-o", "out.csv"],
        ["out.csv", "is a folder"],
    ),
    "labels of another set": (
        rows(GOOD, {**GOOD, "label": "中评"}),
        ["evaluate", "output/run", "--data", "bad.jsonl"],
        ["bad.jsonl:2:", "label '中评' is outside the label set"],
    ),
    "evaluate no run": (nothing, ["evaluate", "output"], ["output", "no task.json"]),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_prediction(case: str, trained: Path, refused: Any) -> None:
    change, arguments, words = PREDICTIONS[case]
    change(trained)
    refused(trained, arguments, words)


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (b"", ["standard input", "no rows"]),
        ('这个手机很好\n{"text": "好"'.encode(), ["standard input:2:", "broken JSON"]),
        ("这个手机很好\n".encode("gbk"), ["standard input:1:", "not UTF-8"]),
        (b'{"text": "\\ud800"}\n', ["standard input:1:", "surrogate"]),
    ],
    ids=["empty", "broken JSON", "GBK", "half a character"],
)
def test_standard_input(stdin: bytes, words: list[str], trained: Path, refused: Any) -> None:
    refused(trained, ["predict", "output/run", "-"], words, stdin=stdin)


# -- the rest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["product-review"], ["no data set 'product-review'", "did you mean 'product-reviews'?"]),
        (["product-reviews", "--dest", "rows.jsonl"], ["rows.jsonl", "is no folder", "--dest"]),
        (["product-reviews", "--limit", "9"], ["'product-reviews' has no --limit", "it is built whole"]),
        (["coco-caption"], ["no modelscope:modelscope/coco_2014_caption/", "WEITIAO_OFFLINE is set; unset it"]),
    ],
    ids=["unknown name", "into a file", "limit of what has none", "offline"],
)
def test_fetch(arguments: list[str], words: list[str], work: Path, refused: Any) -> None:
    refused(work, ["data", "fetch", *arguments], words)


@pytest.mark.parametrize(
    "arguments", [["trian", "config.yaml"], ["train"], ["train", "config.yaml", "--over"], ["preview", "x", "--row=-1"]]
)
def test_usage(arguments: list[str], work: Path, weitiao: Any) -> None:
    before = snapshot(work)
    done = weitiao(work, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(work) == before


def test_byte_order_mark_is_no_fault(work: Path, weitiao: Any) -> None:
    for name in ("rows.jsonl", "config.yaml"):
        (work / name).write_bytes(b"\xef\xbb\xbf" + (work / name).read_bytes())
    done = weitiao(work, "preview", "config.yaml")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_interrupted_training_goes_on(work: Path, command: list[str], environment: Any, weitiao: Any) -> None:
    arguments = ["train", "config.yaml", "data.validation=null", "training.max_steps=40", "training.save_steps=10"]
    # Tests that were started in the background ignore the signal, and so would what they start.
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(
        [*command, *arguments], cwd=work, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeded
    )
    try:
        first = work / "output/run/checkpoint-10"
        while not first.exists() and running.poll() is None:
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        lines = running.communicate(timeout=120)[1].splitlines()
    finally:
        running.kill()
    assert running.returncode == 130, lines
    assert [line for line in lines if line.startswith("weitiao: ")] == lines[-1:]
    assert "interrupted" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    done = weitiao(work, *arguments)
    assert done.returncode == 0, done.stderr
    assert "going on from output/run/checkpoint-" in done.stderr
    assert (work / "output/run/metrics.json").is_file()
