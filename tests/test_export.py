"""`weitiao export`: folders that plain transformers and PEFT open, checked against the run, with a card."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

import weitiao
from runs import adapter, lines, lively_model, run_config, same_bits, trained
from tiny import old_glm, small_classification, write_rows
from weitiao.errors import ConfigError, ModelError
from weitiao.export import export, lora_rank
from weitiao.model import merged_folder
from weitiao.model.adapter import open_adapter
from weitiao.model.load import load_model
from weitiao.model.merge import Update
from weitiao.tracking.screen import Screen

CPU = torch.device("cpu")
LEARNT = ("training.max_steps=40", "training.samples_per_step=16", "training.save_steps=100", "data.test=0.3")
IDS = torch.arange(40)[None]


@pytest.fixture(scope="module")
def run(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    rows = small_classification(folder / "classification.jsonl")
    return trained(run_config(folder, lively_model(folder / "model", qwen2_folder), rows, *LEARNT))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(IDS).logits.clone()


def peft_merged(base: Path, run: Path) -> Any:
    """PEFT's own merge in float32, each weight then rounded to bfloat16."""
    merged = open_adapter(load_model(base, CPU, torch.float32), run / "adapter").merge_and_unload()
    for parameter in merged.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return merged


def test_an_adapter(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = export(run, tmp_path / "sub" / "out", "adapter", Screen())
    base = run.parent / "model"
    assert sorted(path.name for path in dest.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "files.json", "task.json")
    ]
    assert same_bits(adapter(dest), adapter(run))
    command = f"vllm serve {base} --enable-lora --max-lora-rank 8 --lora-modules out={dest}"
    assert command in capsys.readouterr().err.splitlines()
    card = (dest / "README.md").read_text("utf-8")
    assert command in card.splitlines()
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))["systems"]["finetuned"]
    figure = f"{metrics['accuracy']:.3f} [{metrics['accuracy_low']:.3f}, {metrics['accuracy_high']:.3f}]"
    for told in (figure, "Labels: 好评, 差评.", "34 train rows, 14 test rows", "文本：{text}", "## Limits"):
        assert told in card
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = logits(PeftModel.from_pretrained(model, dest))
    assert torch.allclose(plain, logits(open_adapter(load_model(base, CPU, torch.float32), run / "adapter")))

    (dest / "README.md").write_text("mine", "utf-8")  # a card may be edited
    texts = [row["text"] for row in lines(run.parent / "classification.jsonl")]
    assert weitiao.load(dest, device="cpu").predict(texts) == weitiao.load(run, device="cpu").predict(texts)
    assert "Not measured." in (export(dest, tmp_path / "again", "adapter") / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("rank", "pattern", "wanted"), [(4, {}, 8), (8, {}, 8), (9, {"q_proj": 200}, 256), (513, {}, None)]
)
def test_ranks(tmp_path: Path, rank: int, pattern: dict[str, int], wanted: int | None) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank, "rank_pattern": pattern}))
    assert lora_rank(tmp_path) == wanted


def test_a_merged_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = export(run, tmp_path / "out", "merged", Screen())
    told = capsys.readouterr().err
    assert "merged model beside the run: 14 of 14 answers equal, log-probabilities of answers at most" in told
    assert f"vllm serve {dest}" in told.splitlines()
    base = run.parent / "model"
    assert json.loads((dest / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(dest / "model.safetensors").values()} == {torch.bfloat16}
    assert {path.name for path in base.iterdir()} <= {path.name for path in dest.iterdir()}
    assert not (dest / "task.json").exists()
    found = AutoModelForCausalLM.from_pretrained(dest, dtype=torch.float32)
    wanted = peft_merged(base, run)
    assert all(torch.equal(found.state_dict()[name], value) for name, value in wanted.state_dict().items())
    assert torch.equal(logits(found), logits(wanted))
    assert (
        AutoTokenizer.from_pretrained(dest)("手机")["input_ids"]
        == AutoTokenizer.from_pretrained(base)("手机")["input_ids"]
    )
    card = (dest / "README.md").read_text("utf-8")
    assert "on held-out rows of the run, 14 of 14 answers equal" in card
    assert shlex.join(["vllm", "serve", str(dest)]) in card
    # It is a base like any other.
    config = run_config(tmp_path, dest, run.parent / "classification.jsonl", "training.max_steps=1")
    assert trained(config).is_dir()


def test_shards_and_types(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in 16 bits keeps its type, and its bits where nothing is added; files are of bounded size."""
    base = shutil.copytree(run.parent / "model", tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16).save_pretrained(base)
    stored = load_file(base / "model.safetensors")
    monkeypatch.setattr(merged_folder, "SHARD_BYTES", 50_000)
    draw = torch.Generator().manual_seed(0)
    update = Update(torch.randn(2, 64, generator=draw), torch.randn(96, 2, generator=draw), 0.5)
    written: list[int] = []
    (tmp_path / "out").mkdir()
    name = "model.layers.1.mlp.up_proj"
    merged_folder.write_merged(base, {name: update}, tmp_path / "out", None, written.append)
    assert sum(written) == len(stored)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text("utf-8"))
    assert set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored.values())
    found = {key: value for shard in shards for key, value in load_file(tmp_path / "out" / shard).items()}
    stored[f"{name}.weight"] = (stored[f"{name}.weight"].float() + 0.5 * update.b @ update.a).half()
    assert same_bits(found, stored)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float16

    for layer, wrong, why in (
        ("model.layers.7.mlp.up_proj", update, "are not in the base model's files"),
        ("model.layers.1.mlp.down_proj", update, r"is \[64, 96\], and the adapter's is \[96, 64\]"),
    ):
        with pytest.raises(ModelError, match=why):
            merged_folder.write_merged(base, {layer: wrong}, tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(ConfigError, match="GiB are free; name a folder on another disk"):
        merged_folder.write_merged(base, {name: update}, tmp_path / "out")


def test_a_wrong_model_is_not_kept(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(weight: torch.Tensor, update: Any) -> torch.Tensor:
        return weight - 5 * update.scaling * update.b @ update.a

    monkeypatch.setattr(merged_folder, "added", wrong)
    with pytest.raises(
        ModelError, match=r"does not answer as the run does \(.* so it is not kept; use --format adapter"
    ):
        export(run, tmp_path / "out", "merged")
    assert list(tmp_path.iterdir()) == []


def test_no_rows_to_compare_on(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = shutil.copytree(run / "adapter", tmp_path / "adapter")
    dest = export(alone, tmp_path / "out", "merged", Screen())
    told = capsys.readouterr().err
    assert "the run's held-out rows cannot be read" in told
    assert "the merged model opens; no rows to compare" in told
    assert "not compared, as no held-out rows were at hand" in (dest / "README.md").read_text("utf-8")


def test_taken_folders_and_unknown_formats(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for format in ("adapter", "merged"):
        with pytest.raises(ConfigError, match="is there already; name a new folder"):
            export(run, tmp_path / "mine", format)
    with pytest.raises(ConfigError, match="no export format 'merge'; did you mean 'merged'"):
        export(run, tmp_path / "out", "merge")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("shards", [1, 3])
def test_an_old_glm_becomes_a_native_one(
    glm4_folder: Path, tmp_path: Path, shards: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = small_classification(tmp_path / "classification.jsonl")
    old = old_glm(tmp_path / "old", lively_model(tmp_path / "lively", glm4_folder), shards)
    run = trained(run_config(tmp_path, old, rows, *LEARNT))
    capsys.readouterr()
    names = export(run, tmp_path / "names", "chatglm-adapter", Screen())
    assert "for vLLM, export with --format merged: GLM-4's first checkpoints" in capsys.readouterr().err
    wanted = peft_merged(old, run)
    for number, source in enumerate((run, names)):
        dest = export(source, tmp_path / f"out{number}", "merged")
        found = AutoModelForCausalLM.from_pretrained(dest, dtype=torch.float32)
        assert type(found).__name__ == "GlmForCausalLM"
        assert torch.allclose(logits(found), logits(wanted), atol=1e-3 if number else 0)
        assert AutoModelForCausalLM.from_pretrained(dest).dtype == torch.bfloat16
        tokenizer = AutoTokenizer.from_pretrained(dest)
        chat = [{"role": "user", "content": "手机"}]
        told = tokenizer.apply_chat_template(chat, tokenize=False)
        assert told == AutoTokenizer.from_pretrained(glm4_folder).apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("tower", [False, True])
def test_a_model_that_sees(
    request: pytest.FixtureRequest, tmp_path: Path, family: str, tower: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for at in range(24):
        Image.new("RGB", (56 + at, 56), (220, 30, 9 * at) if at % 2 else (30, 200, 9 * at)).save(tmp_path / f"{at}.png")
        told.append({"image": f"{at}.png", "label": "red" if at % 2 else "green"})
    rows = write_rows(tmp_path / "classification.jsonl", told)
    model = lively_model(tmp_path / "model", request.getfixturevalue(f"{family}_folder"))
    options = (f"lora.vision_tower={tower}".lower(), "data.test=0.3", f"model.cache_dir={tmp_path / 'cache'}")
    run = trained(run_config(tmp_path, model, rows, *options))
    dest = export(run, tmp_path / "out", "merged", Screen())
    assert "7 of 7 answers equal" in capsys.readouterr().err
    found = AutoModelForImageTextToText.from_pretrained(dest, dtype=torch.float32).state_dict()
    wanted = peft_merged(model, run).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert (dest / "preprocessor_config.json").read_bytes() == (model / "preprocessor_config.json").read_bytes()
    export(run, tmp_path / "adapter", "adapter", Screen())
    assert ("part of it is in the vision tower" in capsys.readouterr().err) == tower
