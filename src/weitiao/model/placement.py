"""Where the frozen weights go: one card when they fit, else several cards, else 4 bits; never the CPU in silence.

one       all of them on the chosen device, in its type
spread    layer by layer over the cards of this machine (accelerate's `device_map="auto"`, the CPU left out): exact
nf4       the linear layers in 4 bits by bitsandbytes, as in QLoRA (Dettmers et al. 2023): not exact, a third of the
          memory; embeddings and head stay as they are
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from weitiao.errors import ConfigError, ModelError
from weitiao.model.files import tensor_shapes

if TYPE_CHECKING:
    import torch

Kind = Literal["one", "spread", "nf4"]

GIB = 2**30
ROOM = 4 * GIB
"""Left free on a card beside the weights: adapters, a pack's activations (recomputed when need be), logits, caches."""
NF4_BYTES = 0.53
"""Bytes of an element in 4 bits, its share of the doubly quantised scales with it."""

WHOLE = ("visual",)
"""Parts of a model that are never stored in 4 bits: a vision tower is small, and what it loses is lost for good."""


@dataclass(frozen=True)
class Placement:
    kind: Kind
    note: str | None = None
    """What to tell the user, where it is not simply one device."""


def load_options(kind: Kind, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` is given beside `dtype`."""
    if kind == "spread":
        return {"device_map": "auto", "max_memory": dict(enumerate(room_on_cards()))}
    if kind == "nf4":
        from transformers import BitsAndBytesConfig

        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=[*WHOLE, "lm_head"],
        )
        return {"quantization_config": config, "device_map": {"": device}}
    # Tensor by tensor onto the card: the host never holds the model.
    return {"device_map": {"": device}} if device.type == "cuda" else {}


def place(wanted: str, folder: Path, device: torch.device, dtype: torch.dtype) -> Placement:
    """The placement for `model.placement` of the weights in `folder`.

    Raises ConfigError when `wanted` cannot be done here, ModelError when the model fits in no way.
    """
    if device.type != "cuda":
        if wanted not in ("auto", "one"):
            raise ConfigError(f'key `model.placement` = "{wanted}" needs CUDA cards; the model is on {device.type}')
        return Placement("one")
    sizes, rooms = weight_sizes(folder, dtype), room_on_cards()
    kind = decide(wanted, sizes, rooms, device.index or 0, importlib.util.find_spec("bitsandbytes") is not None)
    whole = f"{_gib(sizes['one'])} of weights in {str(dtype).removeprefix('torch.')}"
    notes = {
        "spread": f"{whole}, spread over {len(rooms)} cards; these work one after another",
        "nf4": f"linear layers in 4 bits (nf4, not exact): {_gib(sizes['nf4'])} in place of {whole}",
    }
    return Placement(kind, notes.get(kind))


def decide(wanted: str, sizes: Mapping[str, int], rooms: Sequence[int], card: int, has_nf4: bool) -> Kind:
    """sizes: bytes of the weights, whole (`one`) and `nf4`. rooms: bytes for weights on each card. card: the chosen."""
    if wanted == "spread" and len(rooms) < 2:
        raise ConfigError('key `model.placement` = "spread": this machine has one card; use "one" or "nf4"')
    if wanted == "nf4" and not has_nf4:
        raise ConfigError('key `model.placement` = "nf4" needs bitsandbytes: pip install bitsandbytes')
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if sizes["one"] <= rooms[card]:
        return "one"
    if len(rooms) > 1 and sizes["one"] <= sum(rooms):
        return "spread"
    if has_nf4 and sizes["nf4"] <= rooms[card]:
        return "nf4"
    left = ", ".join(map(_gib, rooms))
    raise ModelError(
        f"the weights take {_gib(sizes['one'])}, and beside {_gib(ROOM)} of working memory a card has {left} left; "
        + (
            f"in 4 bits they take {_gib(sizes['nf4'])}: pip install bitsandbytes"
            if sizes["nf4"] <= rooms[card] and not has_nf4
            else "take a smaller model or a larger card, or free this one"
        )
    )


def weight_sizes(folder: Path, dtype: torch.dtype) -> dict[str, int]:
    """Bytes of the weights, whole and with their linear layers in 4 bits."""
    return sizes_of(tensor_shapes(folder), dtype.itemsize)


def sizes_of(shapes: Mapping[str, Sequence[int]], itemsize: int) -> dict[str, int]:
    """The same of tensors by name; itemsize: bytes of an element that is not in 4 bits."""
    whole = quantized = 0.0
    for name, shape in shapes.items():
        count = math.prod(shape)
        whole += count * itemsize
        linear = len(shape) == 2 and not any(part in name for part in ("embed", "lm_head", "output_layer", *WHOLE))
        quantized += count * (NF4_BYTES if linear else itemsize)
    return {"one": int(whole), "nf4": int(quantized)}


def room_on_cards() -> list[int]:
    """Bytes for weights on each card."""
    import torch

    free = (torch.cuda.mem_get_info(card)[0] for card in range(torch.cuda.device_count()))
    return [max(0, int(bytes_) - ROOM) for bytes_ in free]


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
