"""A base model's folder on this disk, and what names its weights. Reads headers only; no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from weitiao.config import ModelSection
from weitiao.errors import ModelError
from weitiao.hub.cache import find_model
from weitiao.model.gguf import converted

SAMPLE = 4096
"""Bytes of each tensor that enter the fingerprint."""


def model_folder(section: ModelSection) -> Path:
    """Folder with the base model's files; a GGUF file is converted first (once, into the cache)."""
    path = find_model(section.name, section.cache_dir)
    return converted(path, section.cache_dir) if path.suffix == ".gguf" else path


def fingerprint(folder: Path, within: str = "") -> str:
    """Names the weights of a folder, or those whose names have `within` in them: SHA-256 over each tensor's name, type,
    shape and first 4 KiB.

    Reads a few MiB of any model; another training changes every tensor, so it is told apart.
    """
    digest = hashlib.sha256()
    for name, (kind, shape, sample) in sorted(_all_tensors(folder).items()):
        if within not in name:
            continue
        digest.update(f"{name} {kind} {shape}".encode() + sample)
    return digest.hexdigest()


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of each tensor in the weights of a folder."""
    return {name: shape for name, (_, shape, _) in _all_tensors(folder).items()}


class Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    kind: str
    """As safetensors names types: `BF16`, `F32` …"""
    shape: list[int]


def stored_tensors(*paths: Path) -> dict[str, Stored]:
    """The tensors of safetensors files by name. Raises ModelError for a damaged file, or a name that two have."""
    found: dict[str, Stored] = {}
    for path in paths:
        for name, (kind, shape, _) in _tensors(path):
            if name in found:
                raise ModelError(f"{path}: holds {name!r}, and so does {found[name].path}; remove one of the files")
            found[name] = Stored(path, kind, shape)
    return found


def _all_tensors(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Tensor's name → its type, shape and first bytes."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: no .safetensors file; wanted a model folder with its weights")
    return {name: told for path in files for name, told in _tensors(path)}


def _tensors(path: Path) -> Iterator[tuple[str, tuple[str, list[int], bytes]]]:
    """Name, type, shape and first bytes of each tensor; the layout is that of the safetensors format."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            size = path.stat().st_size - 8 - length
            if size < 0:
                raise ValueError("it ends within its header")
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    if end > size:
                        raise ValueError(f"it ends before {name!r} does")
                    file.seek(8 + length + begin)
                    yield name, (entry["dtype"], entry["shape"], file.read(min(SAMPLE, end - begin)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{path}: damaged weights ({error}); fetch the model again") from None
