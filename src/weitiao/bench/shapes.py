"""Models of real shapes with random weights, made on the device. torch is imported where a model is made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao.families.base import Family, families

if TYPE_CHECKING:
    import torch

GAIN = 0.8
"""Standard deviation of a weight times √hidden: a layer neither loses its input nor blows it up."""


@dataclass(frozen=True)
class Shape:
    family: str
    model_type: str
    config: Mapping[str, Any]
    """In transformers' names."""


def _rope(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **more}


SHAPES = {
    "smollm2-135m": Shape(
        "llama",
        "llama",
        {
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": 49_152,
            "tie_word_embeddings": True,
            "rope_parameters": _rope(1e5),
        },
    ),
    "qwen2-1.5b": Shape(
        "qwen2",
        "qwen2",
        {
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
            "vocab_size": 151_936,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-6,
            "rope_parameters": _rope(1e6),
        },
    ),
    "glm4-9b": Shape(
        "glm4",
        "glm",
        {
            "hidden_size": 4096,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "intermediate_size": 13_696,
            "vocab_size": 151_552,
            "attention_bias": True,
            "rope_parameters": _rope(1e4, partial_rotary_factor=0.5),
        },
    ),
    "tiny": Shape(
        "qwen2",
        "qwen2",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "vocab_size": 512,
            "tie_word_embeddings": True,
            "rope_parameters": _rope(1e4),
        },
    ),
}
LONGEST = 8192
"""Positions: more than a sample of any profile has."""


@dataclass(frozen=True)
class ModelMaker:
    """Makes equal frozen models. They share the memory of their weights, which no system changes."""

    family: Family
    load: Callable[[], Any]
    """Makes the model whose weights the others share."""
    folder: Path | None = None
    """Where the weights lie on a disk, for systems that load them by themselves."""
    device: torch.device | None = None
    """Where these then go."""

    @cached_property
    def master(self) -> Any:
        return self.load()

    def __call__(self) -> Any:
        shared = {id(parameter): parameter for parameter in self.master.parameters()}
        return copy.deepcopy(self.master, shared)

    @property
    def body_parameters(self) -> int:
        """Elements of the weight matrices of the decoder's layers, which every token passes."""
        layers = self.master.get_decoder().layers
        return sum(parameter.numel() for parameter in layers.parameters() if parameter.ndim == 2)

    @property
    def vocabulary(self) -> int:
        return self.master.config.vocab_size


def model_maker(
    name: str, device: torch.device, dtype: torch.dtype, seed: int = 0, layers: int | None = None
) -> ModelMaker:
    """layers: of the decoder; by default as many as the shape has."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from weitiao.model.quiet import quiet

    shape = SHAPES[name]
    wanted = dict(shape.config) | ({} if layers is None else {"num_hidden_layers": layers})
    config = AutoConfig.for_model(
        shape.model_type,
        **wanted,
        initializer_range=GAIN / wanted["hidden_size"] ** 0.5,
        max_position_embeddings=LONGEST,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(seed)
    with quiet(), torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.requires_grad_(False)
    return ModelMaker(families()[shape.family], lambda: model)


def saved_maker(name: str, folder: Path, device: torch.device) -> ModelMaker:
    """Makes models of the weights in `folder`, which are read when the first is made."""

    def load() -> Any:
        from transformers import AutoModelForCausalLM

        from weitiao.model.quiet import quiet

        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="sdpa")
        return model.to(device).requires_grad_(False)

    return ModelMaker(families()[SHAPES[name].family], load, folder, device)
