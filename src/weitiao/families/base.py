"""What one kind of model needs said. To add a family, write `families/<name>.py` with a `FAMILY`; the file's name is
the registry. Families name architectures; they read `tokenizer.json`, never torch.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from weitiao.config import suggestion
from weitiao.errors import ConfigError, ModelError
from weitiao.families.chat_format import ChatFormat
from weitiao.families.tokenizer import TextTokenizer
from weitiao.families.vision import Vision

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the linear layers in models of Llama's build."""


@dataclass(frozen=True)
class Family:
    model_types: tuple[str, ...]
    """`model_type` in the `config.json` of the models that belong here."""
    chat_format: Callable[[TextTokenizer], ChatFormat]
    lora_targets: tuple[str, ...] = LINEAR_LAYERS
    """Linear layers that get an adapter by default."""
    lora_aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names that users know linear layers by → the names here."""
    vision: Callable[[Path], Vision] | None = None
    """What is said of images in a model's folder; None for a family that reads text alone."""
    vision_targets: tuple[str, ...] = ()
    """Linear layers in the blocks of the vision tower."""


@cache
def families() -> dict[str, Family]:
    """Every family by name."""
    package = importlib.import_module("weitiao.families")
    modules = {
        m.name: importlib.import_module(f"weitiao.families.{m.name}") for m in pkgutil.iter_modules(package.__path__)
    }
    return {name: module.FAMILY for name, module in sorted(modules.items()) if hasattr(module, "FAMILY")}


def family_of(folder: Path, wanted: str | None = None) -> tuple[str, Family]:
    """Name and family of the model in `folder`; `wanted` overrules what its `config.json` says.

    Raises ConfigError for an unknown `wanted`, ModelError for a model of no known family.
    """
    known = families()
    if wanted is not None:
        if wanted not in known:
            raise ConfigError(f"key `model.family` = {wanted!r}: no such family; {suggestion(wanted, known)}")
        return wanted, known[wanted]
    model_type = model_config(folder).get("model_type")
    for name, family in known.items():
        if model_type in family.model_types:
            return name, family
    types = sorted(t for family in known.values() for t in family.model_types)
    raise ModelError(f"{folder}: model_type {model_type!r} belongs to no family here; supported: {', '.join(types)}")


def model_config(folder: Path) -> dict[str, Any]:
    """The model's `config.json`."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: no config.json; wanted a Hugging Face model folder") from None
    except ValueError:
        raise ModelError(f"{path}: is not valid JSON; fetch the model again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: wanted a JSON object")
    return values


def context_length(folder: Path) -> int:
    """Tokens that the model in `folder` can take."""
    config = model_config(folder)
    config = config.get("text_config") or config
    # `seq_length` is what the first GLM-4 calls it.
    length = config.get("max_position_embeddings") or config.get("seq_length") or 1 << 20
    if not isinstance(length, int):
        raise ModelError(f"{folder}/config.json: max_position_embeddings is {length!r}; wanted a number of tokens")
    return length
