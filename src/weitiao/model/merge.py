"""An adapter folded into the weights: W + s · B A for each adapted layer, with s = α / r.

The sum is made in float32 and rounded once to the type of the weights. PEFT's own merge does so too while its adapters
are float32, but `safe_merge` rounds B A to 16 bits first, and adapters that were loaded in 16 bits are multiplied in
them. After a few steps an adapter is smaller than the last digit of most weights; each rounding more loses of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from weitiao.errors import ConfigError
from weitiao.model.quiet import quiet


@dataclass(frozen=True)
class Update:
    """What an adapter adds to the weight [out, in] of a linear layer."""

    a: torch.Tensor
    """[r, in]"""
    b: torch.Tensor
    """[out, r]"""
    scaling: float

    def cpu(self) -> Update:
        return Update(self.a.cpu(), self.b.cpu(), self.scaling)

    def rows(self, rows: slice) -> Update:
        """For these rows of the weight."""
        return Update(self.a, self.b[rows], self.scaling)


class Merged(nn.Module):
    """A model that an adapter is folded into, where a `PeftModel` is wanted."""

    def __init__(self, model: Any, layers: frozenset[str]) -> None:
        """layers: names of those that were changed."""
        super().__init__()
        self.model, self.layers = model, layers

    def get_base_model(self) -> Any:
        return self.model

    def disable_adapter(self) -> Any:
        raise ConfigError("the adapter is folded into the weights, so there is no untuned model; load it apart")


def merge(model: Any) -> Merged:
    """The model of a `PeftModel` with its adapter folded in, in place and layer by layer. The PeftModel is used up, and
    so is what was made of its weights."""
    found = updates(model)
    base = model.get_base_model()
    with torch.no_grad():
        for name, update in found.items():
            weight = base.get_submodule(name).base_layer.weight
            weight.copy_(added(weight, update))
    with quiet():
        base = model.base_model.unload()
    return Merged(base.requires_grad_(False).eval(), frozenset(found)).eval()


def added(weight: torch.Tensor, update: Update) -> torch.Tensor:
    """weight + s · B A, in float32 (or wider)."""
    type_ = torch.promote_types(weight.dtype, torch.float32)
    a, b = (part.detach().to(weight.device, type_) for part in (update.a, update.b))
    return (b @ a).mul_(update.scaling).add_(weight.detach())


def updates(model: Any) -> Mapping[str, Update]:
    """Name of each adapted layer, as the base model names it → its update.

    Raises ConfigError for what is no plain LoRA on whole weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    embeddings = base.get_input_embeddings().weight
    found = {}
    adapted: list[tuple[str, Any]] = [item for item in base.named_modules() if isinstance(item[1], BaseTunerLayer)]
    for name, layer in adapted:
        problem = _problem(layer, embeddings)
        if problem:
            raise ConfigError(f"the adapter cannot be folded into the weights: {name} {problem}; use it apart")
        a, b = (getattr(layer, f"lora_{half}")["default"].weight.detach() for half in "AB")
        found[name] = Update(a, b, float(layer.scaling["default"]))
    if model.peft_config["default"].modules_to_save:
        raise ConfigError("the adapter brings whole layers (modules_to_save); use it apart")
    return found


def _problem(layer: Any, embeddings: torch.Tensor) -> str | None:
    linear = layer.get_base_layer()
    # bitsandbytes' and others' have classes of their own.
    if type(linear) is not nn.Linear:
        return f"is stored as {type(linear).__name__}, not as whole weights"
    if list(getattr(layer, "lora_A", ())) != ["default"] or layer.lora_variant or layer.fan_in_fan_out:
        return "has another adapter than plain LoRA"
    if layer.lora_B["default"].bias is not None:
        return "has an adapter with a bias"
    if linear.weight.data_ptr() == embeddings.data_ptr():
        return "shares its weights with the embeddings"
    return None
