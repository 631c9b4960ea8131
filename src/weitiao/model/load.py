"""A base model on this disk → a frozen model on a device."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from weitiao.config import ModelSection
from weitiao.errors import ConfigError, ModelError
from weitiao.families.base import model_config
from weitiao.hub.cache import find_model
from weitiao.model.gguf import converted
from weitiao.model.quiet import quiet

SAMPLE = 4096
"""Bytes of each tensor that enter the fingerprint."""


def model_folder(section: ModelSection) -> Path:
    """Folder with the base model's files; a GGUF file is converted first (once, into the cache)."""
    path = find_model(section.name, section.cache_dir)
    return converted(path, section.cache_dir) if path.suffix == ".gguf" else path


def choose_device(wanted: str) -> torch.device:
    """The device for `model.device`; ConfigError when it is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = "cuda" if there["cuda"] else "cpu"
    if not there[wanted]:
        raise ConfigError(f'key `model.device` = "{wanted}": this machine has none that torch can use; use model.device=cpu')
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU and float32 on a CPU, where 16-bit arithmetic is many times slower."""
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, wanted)


def load_model(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The `…ForCausalLM` of a Hugging Face folder, frozen, in evaluation mode. Raises ModelError when unreadable."""
    from transformers import AutoModelForCausalLM

    model_config(folder)
    with quiet():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{folder}: cannot be loaded ({str(error).splitlines()[0]})") from None
    return model.to(device).requires_grad_(False).eval()


def fingerprint(folder: Path) -> str:
    """Names the weights of a folder: SHA-256 over each tensor's name, type, shape and first 4 KiB.

    Reads a few MiB of any model; another training changes every tensor, so it is told apart.
    """
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: no .safetensors file; wanted a model folder with its weights")
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for path in files:
        tensors.update(_tensors(path))
    for name in sorted(tensors):
        kind, shape, sample = tensors[name]
        digest.update(f"{name} {kind} {shape}".encode() + sample)
    return digest.hexdigest()


def _tensors(path: Path) -> Iterator[tuple[str, tuple[str, list[int], bytes]]]:
    """Name, type, shape and first bytes of each tensor; the layout is that of the safetensors format."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    file.seek(8 + length + begin)
                    yield name, (entry["dtype"], entry["shape"], file.read(min(SAMPLE, end - begin)))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelError(f"{path}: damaged weights ({error}); fetch the model again") from None
