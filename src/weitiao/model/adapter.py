"""LoRA by PEFT: put on a frozen base, saved and read as PEFT's own two files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weitiao.config import LoraSection, nearest
from weitiao.errors import CheckpointError, ConfigError
from weitiao.families.base import Family
from weitiao.model.chatglm_adapter import has_old_names, part_rows, write_native
from weitiao.model.quiet import quiet

TOWER = r".*\bvisual\b.*"
OUTSIDE_BLOCKS = r".*\bvisual\b\.(?!blocks).*"
"""What of a model with a vision tower gets no adapter (PEFT's `exclude_modules`)."""


def add_lora(model: Any, lora: LoraSection, family: Family, seed: int) -> Any:
    """A `PeftModel` around `model` with fresh adapters: A random by the seed, B zero, both float32.

    Raises ConfigError when a target names no linear layer (PEFT itself would pass over it in silence).
    """
    from peft import LoraConfig, get_peft_model

    targets = [name for target in lora.target_modules or family.lora_targets for name in native(target, family)]
    check_targets(model, targets)
    if lora.vision_tower:
        if family.vision is None:
            raise ConfigError("key `lora.vision_tower` is true, but the model has no vision tower; leave it out")
        targets = list(dict.fromkeys([*targets, *family.vision_targets]))
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=targets,
        exclude_modules=_left_out(model, targets, OUTSIDE_BLOCKS if lora.vision_tower else TOWER),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with quiet():
        return get_peft_model(model, config)


def _left_out(model: Any, targets: Sequence[str], pattern: str) -> str | None:
    """The pattern, where it keeps a layer from an adapter that `targets` names; PEFT warns of one that does not."""
    names = (name for name, _ in model.named_modules() if name.rpartition(".")[2] in targets)
    return pattern if any(re.fullmatch(pattern, name) for name in names) else None


def native(target: str, family: Family) -> tuple[str, ...]:
    """The names here of a linear layer that a user names in another way."""
    return family.lora_aliases.get(target, (target,))


def check_targets(model: Any, targets: Sequence[str]) -> None:
    """ConfigError for the first target that matches no linear layer, or something that is none."""
    linear: set[str] = set()
    other: set[str] = set()
    for name, module in model.named_modules():
        (linear if isinstance(module, nn.Linear) else other).add(name.rpartition(".")[2])
    choices = sorted(linear - {"lm_head"})
    for target in targets:
        if target in linear:
            continue
        hint = nearest(target, choices)
        what = "is no linear layer" if target in other else "matches no layer"
        raise ConfigError(
            f"key `lora.target_modules`: {target!r} {what} of this model"
            + (f"; did you mean {hint!r}?" if hint else "")
            + f" (linear layers: {', '.join(choices)})"
        )


def open_adapter(model: Any, folder: Path, trainable: bool = False) -> Any:
    """The adapter of a folder on its base; one that names layers as GLM-4's own code does is translated.

    Raises CheckpointError when its files are damaged or lack a layer.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    if has_old_names(folder):
        with tempfile.TemporaryDirectory() as translated:
            write_native(folder, Path(translated), part_rows(model.config.to_dict()))
            return open_adapter(model, Path(translated), trainable)
    try:
        with quiet():
            opened = PeftModel.from_pretrained(model, folder, is_trainable=trainable, local_files_only=True)
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            saved = set(file.keys())
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = re.sub(r"\s+", " ", str(error))[:160]
        raise CheckpointError(f"{folder}: the adapter cannot be loaded ({first})") from None
    # PEFT would go on with fresh layers in place of missing ones, and passes over the others.
    other = sorted(saved ^ get_peft_model_state_dict(opened, save_embedding_layers=False).keys())
    if other:
        raise CheckpointError(
            f"{folder}: the adapter has other layers than its adapter_config.json says ({other[0]}); restore the folder"
        )
    return opened


def save_adapter(model: Any, folder: Path) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`."""
    with quiet():
        # PEFT saves embeddings too where it cannot read the vocabulary's size from the base model's config.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def adapter_parameters(model: Any) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
