"""A text model with its adapter as modules of torch alone, by an `Outline`: for prediction, which computes their layers
by `fast_layer` and needs nothing of transformers' and PEFT's modules but their names.

    Bare                 in the place of a PeftModel
      CausalModel        of a …ForCausalLM: lm_head and
        model            embed_tokens, layers, norm, rotary_emb
          layers[i]      self_attn.q_proj …: Linear, or Lora around it where the adapter has one
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from weitiao.engine.outline import EMBEDDINGS, HEAD, IN_PEFT, Adapter, Outline
from weitiao.errors import ModelError, first_line
from weitiao.model.files import Stored

READERS = 4
"""Threads that read weights; so many are transformers'."""


def open_bare(outline: Outline, device: torch.device, dtype: torch.dtype) -> Bare | None:
    """The model with its weights on a device, in evaluation mode; the adapter's are float32, as PEFT has them.

    None in float16, which our layers do not compute, and where head and embeddings are said to be the same and are
    stored with different values: of that, transformers makes what it likes. Raises ModelError when the weights cannot
    be read.
    """
    if dtype == torch.float16:
        return None
    # By its number: which card is the current one, each thread says for itself.
    device = torch.empty(0, device=device).device
    tensors = _read(outline.tensors, device, dtype)
    if outline.tied:
        embeddings = tensors[EMBEDDINGS]
        if HEAD in tensors and not torch.equal(tensors[HEAD], embeddings):
            return None
        tensors[HEAD] = embeddings
    adapted = _read(outline.adapter.tensors, device, torch.float32)
    return Bare(CausalModel(outline, tensors), outline.adapter, adapted).requires_grad_(False).eval()


def _read(stored: Mapping[str, Stored], device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    with ThreadPoolExecutor(READERS) as readers:
        for path in sorted({tensor.path for tensor in stored.values()}):
            names = [name for name, tensor in stored.items() if tensor.path == path]
            try:
                with safe_open(path, "pt") as file:
                    read = readers.map(lambda name, file=file: file.get_tensor(name).to(device, dtype), names)
                    found.update(zip(names, read, strict=True))
            except (OSError, RuntimeError, SafetensorError) as error:
                raise ModelError(f"{path}: cannot be loaded ({first_line(error)})") from None
    return found


class Bare(nn.Module):
    def __init__(self, model: CausalModel, adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> None:
        """tensors: the adapter's, by the names of its file."""
        super().__init__()
        # Its parameters have the names that PEFT gives them.
        self.base_model = nn.ModuleDict({"model": model})
        self.adapted = []
        for name in adapter.layers:
            parent, _, last = name.rpartition(".")
            a, b = (tensors[f"{IN_PEFT}{name}.lora_{half}.weight"] for half in "AB")
            layer = Lora(model.get_submodule(name), a, b, adapter)
            setattr(model.get_submodule(parent), last, layer)
            self.adapted.append(layer)

    def get_base_model(self) -> Any:
        return self.base_model["model"]

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        for layer in self.adapted:
            layer.disable_adapters = True
        try:
            yield
        finally:
            for layer in self.adapted:
                layer.disable_adapters = False


class Lora(nn.Module):
    """A linear layer and its adapter: of PEFT's, what `lora_gemm` reads."""

    merged = fan_in_fan_out = disable_adapters = False
    lora_variant: Mapping[str, Any] = {}

    def __init__(self, base: nn.Module, a: torch.Tensor, b: torch.Tensor, adapter: Adapter) -> None:
        """a [r, in], b [out, r]."""
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = (nn.ModuleDict({"default": _linear(half)}) for half in (a, b))
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(adapter.dropout)})
        self.r, self.scaling = {"default": adapter.rank}, {"default": adapter.scaling}


class CausalModel(nn.Module):
    def __init__(self, outline: Outline, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        layers = range(outline.config["num_hidden_layers"])
        # `fast_layer` tells builds by the names of transformers' classes.
        self.model = type(outline.kind.body, (nn.Module,), {})()
        self.model.layers = nn.ModuleList(nn.Module() for _ in layers)
        self.model.config = self.config = SimpleNamespace(**outline.config)
        for name, tensor in tensors.items():
            module, _, half = name.rpartition(".")
            if half == "weight":
                self._put(module, _module(module, tensor, tensors.get(f"{module}.bias"), outline.eps))
        self.model.rotary_emb = Rotation(outline.turned, outline.theta).to(tensors[EMBEDDINGS].device)
        for layer in self.model.layers:
            layer.self_attn.head_dim, layer.self_attn.scaling = outline.head, outline.head**-0.5

    def _put(self, name: str, module: nn.Module) -> None:
        *path, last = name.split(".")
        parent: nn.Module = self
        for step in path:
            if not hasattr(parent, step):
                parent.add_module(step, nn.Module())
            parent = parent.get_submodule(step)
        parent.add_module(last, module)

    def get_decoder(self) -> Any:
        return self.model

    def get_input_embeddings(self) -> Any:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> Any:
        return self.lm_head


class Norm(nn.Module):
    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(weight, requires_grad=False), eps


class Rotation(nn.Module):
    """Cosines and sines of a rotation without scaling, as transformers computes them."""

    frequencies: torch.Tensor

    def __init__(self, turned: int, theta: float) -> None:
        super().__init__()
        steps = torch.arange(0, turned, 2, dtype=torch.float) / turned
        self.register_buffer("frequencies", 1.0 / theta**steps, persistent=False)

    def forward(self, like: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """positions int64 [B, T] → [B, T, turned] of each, in the type of `like`."""
        angles = positions[..., None].float() * self.frequencies
        both = torch.cat([angles, angles], dim=-1)
        return both.cos().to(like.dtype), both.sin().to(like.dtype)


def _module(name: str, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> nn.Module:
    if weight.ndim == 1:
        return Norm(weight, eps)
    if f"{name}.weight" == EMBEDDINGS:
        return nn.Embedding.from_pretrained(weight)
    return _linear(weight, bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    # PyTorch fills what it makes with random numbers, which for hundreds of layers takes its time.
    layer = nn.Linear(1, 1, bias=False)
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
