"""Widths and weights of a model: `config.json`, and the headers of its weights where they are on this disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weitiao.config import LoraSection
from weitiao.engine.room import Widths
from weitiao.errors import ModelError
from weitiao.families.base import Family, model_config
from weitiao.model.files import tensor_shapes

NAMES = {
    "hidden": ("hidden_size",),
    "inner": ("intermediate_size", "ffn_hidden_size"),
    "layers": ("num_hidden_layers", "num_layers"),
    "heads": ("num_attention_heads",),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
}
"""Ours → those of `config.json`; the second ones are the first GLM-4's."""
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Model:
    widths: Widths
    """Of the decoder, its elements in 16 bits."""
    trained: int
    """Parameters of the adapters."""
    shapes: Shapes
    """Of all weights by name, a vision tower's among them."""


def model_of(folder: Path, lora: LoraSection, family: Family) -> Model | None:
    """None when its config does not say its sizes."""
    found: Shapes | None = None
    with suppress(ModelError):  # no weights here yet: the config says how many they are
        found = tensor_shapes(folder)
    return described(model_config(folder), lora, family, found)


def described(values: Mapping[str, Any], lora: LoraSection, family: Family, shapes: Shapes | None) -> Model | None:
    """values: of `config.json`. shapes: of its weights; None: as the config has them."""
    text = {**values, **(values.get("text_config") or {})}
    sizes = {name: text[key] for name, keys in NAMES.items() for key in keys if isinstance(text.get(key), int)}
    if len(sizes) < len(NAMES):
        return None
    hidden, heads = sizes["hidden"], sizes["heads"]
    size = text.get("head_dim") or text.get("kv_channels") or hidden // heads
    query, key = heads * size, _key_heads(text, heads) * size
    targets = [name for target in lora.target_modules or family.lora_targets for name in _native(target, family)]
    fused = "gate_up_proj" in family.lora_targets
    groups = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "gate_up_proj"), ("down_proj",))
    count = [sum(name in targets for name in group) for group in groups]
    kind = str(values.get("model_type"))
    more = {"qwen3": query + 2 * key, "glm4": 2 * hidden}.get(kind, 0)
    widths = Widths(
        **sizes,
        query=query,
        key=key,
        rank=lora.r,
        adapted=(count[0], count[1], count[2], count[3]),
        joined=1 if fused else 2,
        more=more,
    )
    linear = linear_layers(widths)
    trained = lora.r * widths.layers * sum(sum(linear[name]) for name in set(targets) if name in linear)
    tied = bool(text.get("tie_word_embeddings"))
    return Model(widths, trained, shapes or _shapes(widths, tied))


def linear_layers(widths: Widths) -> dict[str, tuple[int, int]]:
    """(out, in) of those of a layer."""
    hidden, inner = widths.hidden, widths.inner
    mlp = (
        {"gate_up_proj": (2 * inner, hidden)}
        if widths.joined == 1
        else dict.fromkeys(("gate_proj", "up_proj"), (inner, hidden))
    )
    attention = {"q_proj": (widths.query, hidden), "k_proj": (widths.key, hidden), "v_proj": (widths.key, hidden)}
    return {**attention, "o_proj": (hidden, widths.query), **mlp, "down_proj": (hidden, inner)}


def _shapes(widths: Widths, tied: bool) -> dict[str, tuple[int, int]]:
    table = (widths.vocabulary, widths.hidden)
    found = {"embed_tokens": table} | ({} if tied else {"lm_head": table})
    for layer in range(widths.layers):
        found |= {f"{layer}.{name}": shape for name, shape in linear_layers(widths).items()}
    return found


def _key_heads(text: Mapping[str, Any], heads: int) -> int:
    return int(text.get("num_key_value_heads") or text.get("multi_query_group_num") or heads)


def _native(target: str, family: Family) -> tuple[str, ...]:
    return family.lora_aliases.get(target, (target,))
