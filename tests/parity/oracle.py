"""Pairs of equal models, one for Weitiao and one for the oracle, and what plain Hugging Face code says of a text.

Nothing here uses Weitiao's engine: the oracle's model is a second instance, so no attention set on ours leaks into it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from weitiao.types import Encoded

TOLERANCE = 1e-5
"""Largest ‖Δ‖/‖g‖ of a tensor that counts as equal, in float32."""
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"]


def plain_model(folder: Path) -> Any:
    """The frozen model of a folder, float32, SDPA, its weights made larger: a random model of the usual scale attends
    almost evenly and predicts almost evenly, so that it would hide a wrong mask."""
    sees = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
    kind: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(20.0 if "embed" in name else 5.0)
    return model.requires_grad_(False).eval()


def lora_model(folder: Path, exclude: str = r".*visual.*", targets: Sequence[str] = TARGETS) -> Any:
    """The same with adapters on all linear layers but those of a vision tower, A and B both random and the same every
    time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between PEFT and transformers
        warnings.filterwarnings("ignore", "You have passed exclude_modules")
        config = LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), exclude_modules=exclude)
        model = get_peft_model(plain_model(folder), config)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def halved_model(folder: Path) -> Any:
    """`lora_model` in 16 bits, with its adapters in float32 as PEFT keeps them; its weights are exact in both types."""
    model = lora_model(folder).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model


def random_head(size: int, seed: int, scale: float, bias: Mapping[int, float]) -> torch.nn.Linear:
    """A vocabulary head of its own, for one that is tied to the embeddings repeats the last token; `bias` says
    which tokens it likes."""
    head = torch.nn.Linear(64, size).requires_grad_(False)
    head.weight.copy_(scale * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed)))
    head.bias.zero_()
    for token, value in bias.items():
        head.bias[token] = value
    return head


def loss_and_gradients(model: Any, samples: Sequence[Encoded]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean cross-entropy over all answer tokens, and its gradients: sample by sample, whole, unpadded."""
    wanted = sum(len(sample.answer) for sample in samples)
    total = 0.0
    model.zero_grad()
    for sample in samples:
        ids = torch.tensor([sample.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
        first = sample.prompt_length
        loss = F.cross_entropy(logits[first - 1 : -1], ids[0, first:], reduction="sum") / wanted
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def worst_error(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> tuple[float, str]:
    """Largest ‖Δ‖/‖g‖ of all tensors, and the tensor's name."""
    assert found.keys() == wanted.keys()
    assert all(wanted[name].norm() > 0 for name in wanted), "a gradient of zero would prove nothing"
    return max((float((found[name] - wanted[name]).norm() / wanted[name].norm()), name) for name in wanted)


@torch.no_grad()
def log_probabilities(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """float64 [tokens, vocabulary]: of the token behind each token, by one whole pass without a cache."""
    return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].double().log_softmax(-1)
