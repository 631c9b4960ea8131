"""A base model on this disk → a frozen model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from weitiao.errors import ConfigError, ModelError, first_line
from weitiao.families.base import model_config
from weitiao.model.placement import Kind, load_options
from weitiao.model.quiet import quiet

OLDEST_OF_BFLOAT16 = (8, 0)
"""Compute capability below which a card imitates bfloat16, many times slower than float16."""


def choose_device(wanted: str) -> torch.device:
    """The device for `model.device`; ConfigError when it is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = "cuda" if there["cuda"] else "cpu"
    if not there[wanted]:
        raise ConfigError(
            f'key `model.device` = "{wanted}": this machine has none that torch can use; use model.device=cpu'
        )
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a CUDA card, float16 on one that is too old for that, and float32 on a CPU, where 16-bit
    arithmetic is many times slower."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= OLDEST_OF_BFLOAT16 else torch.float16


def load_model(folder: Path, device: torch.device, dtype: torch.dtype, kind: Kind = "one") -> Any:
    """The `…ForCausalLM` of a Hugging Face folder, or with a vision tower its `…ForConditionalGeneration`; frozen, in
    evaluation mode. Raises ModelError when unreadable.

    kind: how its weights are placed, see `placement.py`.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    config = model_config(folder)
    if "vision_config" in config:
        from_pretrained = AutoModelForImageTextToText.from_pretrained
    elif config.get("model_type") == "chatglm":
        from weitiao.model import chatglm

        from_pretrained = chatglm.from_pretrained
    with quiet():
        try:
            loaded: Any = from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **load_options(kind, device, dtype),
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder}: cannot be loaded ({first_line(error)})") from None
    model, found = loaded
    # transformers would go on with random numbers in their place.
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(f"{folder}: the weights lack {missing[0]!r} ({len(missing)} in all); fetch the model again")
    if kind == "one":
        model.to(device)
    return model.requires_grad_(False).eval()
