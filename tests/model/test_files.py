"""What names the weights of a model, and what damaged weights are told as."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from runs import run_config, trained
from weitiao.config import ModelSection
from weitiao.errors import ModelError
from weitiao.model.files import fingerprint, model_folder
from weitiao.model.load import load_model


@pytest.fixture
def model(qwen2_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(qwen2_folder, tmp_path / "model")


def test_the_same_weights_have_the_same_name(model: Path, tmp_path: Path) -> None:
    name = fingerprint(model)
    assert name == fingerprint(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    loaded.save_pretrained(tmp_path / "again")
    loaded.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    tensors = load_file(model / "model.safetensors")
    (tmp_path / "reordered").mkdir()
    metadata = {"format": "pt", "note": "written by another tool"}
    save_file(dict(sorted(tensors.items(), reverse=True)), tmp_path / "reordered" / "x.safetensors", metadata)
    for folder in ("again", "sharded", "reordered"):
        assert fingerprint(tmp_path / folder) == name, folder


def _a_number(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name].view(-1)[0] += 1e-3


def _the_type(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name].to(torch.float16)


def _the_shape(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name][None]


def _a_name(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name + "x"] = tensors.pop(name)


@pytest.mark.parametrize("change", [_a_number, _the_type, _the_shape, _a_name])
def test_other_weights_have_another_name(model: Path, change: Callable[..., None]) -> None:
    before = fingerprint(model)
    tensors = load_file(model / "model.safetensors")
    for name in list(tensors):
        changed = dict(tensors)
        changed[name] = tensors[name].clone()
        change(changed, name)
        save_file(changed, model / "model.safetensors")
        assert fingerprint(model) != before, name


def test_training_changes_the_name(model: Path) -> None:
    before = fingerprint(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    loaded(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    torch.optim.SGD(loaded.parameters(), lr=1e-2).step()
    loaded.save_pretrained(model)
    assert fingerprint(model) != before


def _cut(raw: bytes) -> bytes:
    return raw[:-1000]


def _cut_in_the_header(raw: bytes) -> bytes:
    return raw[:100]


def _length_of_the_header(raw: bytes) -> bytes:
    return struct.pack("<Q", 1 << 62) + raw[8:]


def _no_json(raw: bytes) -> bytes:
    return raw[:8] + b"x" + raw[9:]


def _a_list(raw: bytes) -> bytes:
    header = json.dumps([1, 2]).encode()
    return struct.pack("<Q", len(header)) + header


def _nothing(raw: bytes) -> bytes:
    return b""


def _a_page(raw: bytes) -> bytes:
    return b"<html><body>404 not found</body></html>"


HARM = [_cut, _cut_in_the_header, _length_of_the_header, _no_json, _a_list, _nothing, _a_page]


@pytest.mark.parametrize("harm", HARM)
def test_damaged_weights(model: Path, classification_file: Path, tmp_path: Path, harm: Any) -> None:
    path = model / "model.safetensors"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ModelError) as error:
        fingerprint(model)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError):
        load_model(model, torch.device("cpu"), torch.float32)
    with pytest.raises(ModelError):
        trained(run_config(tmp_path, model, classification_file))
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_all_there(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(model, torch.device("cpu"), torch.float32)


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        fingerprint(model)
    with pytest.raises(ModelError):
        load_model(model, torch.device("cpu"), torch.float32)


def test_a_file_that_only_claims_to_be_gguf(tmp_path: Path) -> None:
    for content, told in ((b"", "GGUF"), (b"PK\x03\x04", "GGUF"), (b"GGUF" + b"\xff" * 64, "x.gguf")):
        (tmp_path / "x.gguf").write_bytes(content)
        section = ModelSection(name=str(tmp_path / "x.gguf"), cache_dir=str(tmp_path / "cache"))  # type: ignore[call-arg]
        with pytest.raises(ModelError, match=told):
            model_folder(section)
        assert not list((tmp_path / "cache").rglob("*.safetensors"))
