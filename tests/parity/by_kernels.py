"""A forward pass as on a card, with kernels that are named."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from weitiao.engine.fast_layer import FastDecoder
from weitiao.engine.forward import Forward


def with_kernels(model: Any, kernels: ModuleType) -> Forward:
    forward = Forward(model.get_base_model(), "split", fast=True)
    forward.kernels, forward.fast = kernels, FastDecoder(forward.body, kernels)
    return forward
