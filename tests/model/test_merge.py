"""Adapters folded into weights: rounded once, as PEFT does in float32, and refused where they cannot be."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from parity.oracle import lora_model
from weitiao.errors import ConfigError
from weitiao.model.merge import Update, added, merge, updates

IDS = torch.arange(40)[None]


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.clone()


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "glm4", "glm4_0414"])
def test_merged_is_apart(request: pytest.FixtureRequest, family: str) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    model = lora_model(folder)
    apart = logits(model)
    with model.disable_adapter():
        assert not torch.allclose(logits(model), apart, atol=0.1)
    merged = merge(model)
    base = merged.get_base_model()
    assert torch.allclose(logits(base), apart, atol=1e-3)
    assert torch.equal(logits(base), logits(lora_model(folder).merge_and_unload())), "PEFT's is another in float32"
    assert not [name for name, _ in base.named_parameters() if "lora_" in name or "base_layer" in name]
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    with pytest.raises(ConfigError, match="there is no untuned model"):
        merged.disable_adapter()


def test_16_bits_are_rounded_once() -> None:
    """An update far below the last digit of a weight moves as many weights over the edge as it should."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 256, generator=draw).bfloat16()
    a, b = (1e-2 * torch.randn(*shape, generator=draw) for shape in ((8, 256), (256, 8)))
    found = added(weight, Update(a, b, 0.7))
    assert found.dtype == torch.float32
    exact = weight.double() + 0.7 * b.double() @ a.double()
    assert torch.allclose(found.double(), exact, rtol=0, atol=1e-6)
    assert (found.bfloat16() == exact.bfloat16()).float().mean() > 0.9999

    # A and B that are kept in 16 bits are multiplied in float32 nevertheless.
    short = added(weight, Update(a.bfloat16(), b.bfloat16(), 0.7))
    assert torch.allclose(
        short.double(), weight.double() + 0.7 * b.bfloat16().double() @ a.bfloat16().double(), atol=1e-6
    )


def test_a_model_in_bfloat16(qwen2_folder: Path) -> None:
    model = lora_model(qwen2_folder)
    model.get_base_model().to(torch.bfloat16)
    layer = model.get_base_model().model.layers[1].mlp.up_proj
    a, b = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
    wanted = layer.base_layer.weight.float() + layer.scaling["default"] * b @ a
    base = merge(model).get_base_model()
    assert base.dtype == torch.bfloat16
    assert torch.equal(base.model.layers[1].mlp.up_proj.weight, wanted.bfloat16())


def test_what_cannot_be_merged_is_refused(qwen2_folder: Path) -> None:
    class Linear4bit(nn.Linear):
        """Stands for bitsandbytes'."""

    model = lora_model(qwen2_folder)
    model.get_base_model().model.layers[0].mlp.up_proj.base_layer.__class__ = Linear4bit
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"layers\.0\.mlp\.up_proj is stored as Linear4bit, not as whole weights"):
        merge(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    for options, why in (
        ({"target_modules": ["q_proj"], "use_dora": True}, "another adapter than plain LoRA"),
        ({"target_modules": ["embed_tokens"]}, "is stored as Embedding"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "an adapter with a bias"),
        ({"target_modules": ["lm_head"]}, "shares its weights with the embeddings"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "modules_to_save"),
    ):
        base = AutoModelForCausalLM.from_pretrained(qwen2_folder, dtype=torch.float32)
        with pytest.warns() if "lm_head" in options["target_modules"] else contextlib.nullcontext():
            adapted = get_peft_model(base, LoraConfig(r=2, **options))
        with pytest.raises(ConfigError, match=why):
            updates(adapted)
