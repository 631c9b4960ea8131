"""What a text model and its adapter are made of, by their JSON files and the headers of their weights. No torch.

Prediction computes layers from nothing but their weights (`fast_layer`), so it needs neither transformers nor PEFT,
whose import takes longer than all else, as long as every word of both configs and every tensor is understood here; then
`bare.py` opens the model. Where one is not, there is no outline, and these libraries open it or say what is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weitiao.errors import ModelError
from weitiao.families.base import model_config
from weitiao.model.files import Stored, stored_tensors

QKV = ("q_proj", "k_proj", "v_proj")
QKVO = (*QKV, "o_proj")
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
IN_PEFT = "base_model.model."
"""Before the names of layers in an adapter's file."""
WHOLE = ("F32", "BF16", "F16")
"""Types of stored weights that need nothing but a cast."""


@dataclass(frozen=True)
class Kind:
    """What a `model_type` is without its config saying so."""

    body: str
    """Class of its decoder in transformers."""
    biased: tuple[str, ...] = ()
    """Layers of the attention that have a bias in any case."""
    attention_bias: tuple[bool, tuple[str, ...]] | None = None
    """What the key of this name means: its default, and the layers that it speaks of."""
    mlp_bias: bool = False
    """Whether there is such a key."""
    fused: bool = False
    """Whether gate and up are one layer."""
    turned: float = 1.0
    """Share of a head that is rotated; other than 1, the config may say another."""
    norms: tuple[str, ...] = ()
    """Norms of a layer besides the two that all have; weights of the heads' are as wide as a head."""


KINDS = {
    "qwen2": Kind("Qwen2Model", biased=QKV),
    "qwen3": Kind("Qwen3Model", attention_bias=(False, QKVO), norms=("self_attn.q_norm", "self_attn.k_norm")),
    "llama": Kind("LlamaModel", attention_bias=(False, QKVO), mlp_bias=True),
    "glm": Kind("GlmModel", attention_bias=(True, QKV), fused=True, turned=0.5),
    "glm4": Kind(
        "Glm4Model",
        attention_bias=(True, QKV),
        fused=True,
        turned=0.5,
        norms=("post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
}


@dataclass(frozen=True)
class Adapter:
    rank: int
    scaling: float
    dropout: float
    layers: tuple[str, ...]
    """The model's names of the linear layers that have one."""
    tensors: Mapping[str, Stored]


@dataclass(frozen=True)
class Outline:
    kind: Kind
    config: Mapping[str, Any]
    """Of `config.json`."""
    head: int
    """Elements of an attention head."""
    turned: int
    """Of these, the ones that are rotated."""
    theta: float
    """Base of the rotation's frequencies."""
    eps: float
    """Of all norms."""
    tied: bool
    """Whether head and embeddings are the same weights; both may be stored all the same."""
    tensors: Mapping[str, Stored]
    adapter: Adapter


def outline(folder: Path, adapter: Path) -> Outline | None:
    """Of the model in a folder with the adapter of another; None where anything is not understood, or damaged."""
    try:
        config = model_config(folder)
        kind = KINDS.get(str(config.get("model_type")))
        return _outline(config, kind, folder, adapter) if kind else None
    except (ModelError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _outline(config: Mapping[str, Any], kind: Kind, folder: Path, adapter: Path) -> Outline | None:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    # As transformers ranks them: what stands among the rotation's own settings comes first.
    theta = float(rope["rope_theta"] if "rope_theta" in rope else config["rope_theta"])
    turned = float(rope.get("partial_rotary_factor", config.get("partial_rotary_factor", kind.turned)))
    plain = (
        not config.get("quantization_config")
        and config["hidden_act"] == "silu"
        and not config.get("use_sliding_window")
        and set(config.get("layer_types") or ()) <= {"full_attention"}
        and rope.keys() <= {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
        and rope.get("rope_type", rope.get("type", "default")) == "default"
        and (turned == 1 or kind.turned != 1)
    )
    if not plain:
        return None
    head = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    tied = bool(config.get("tie_word_embeddings", False))
    tensors = stored_tensors(*sorted(folder.glob("*.safetensors")))
    wanted = dict(_shapes(kind, config, head))
    if tied and HEAD not in tensors:
        del wanted[HEAD]
    if not _are(tensors, wanted):
        return None
    linear = {name.removesuffix(".weight"): shape for name, shape in wanted.items() if len(shape) == 2}
    found = _adapter(adapter, linear)
    if found is None:
        return None
    return Outline(
        *(kind, config, head, int(head * turned), theta, float(config["rms_norm_eps"]), tied, tensors), adapter=found
    )


def _shapes(kind: Kind, config: Mapping[str, Any], head: int) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every weight and bias."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query, key = (head * config[f"num_{of}_heads"] for of in ("attention", "key_value"))
    yield EMBEDDINGS, [config["vocab_size"], hidden]
    yield HEAD, [config["vocab_size"], hidden]
    yield "model.norm.weight", [hidden]
    attention = {"q_proj": (query, hidden), "k_proj": (key, hidden), "v_proj": (key, hidden), "o_proj": (hidden, query)}
    mlp = {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    if kind.fused:
        mlp = {"gate_up_proj": (2 * inner, hidden), "down_proj": (hidden, inner)}
    biased = set(kind.biased)
    if kind.attention_bias:
        default, layers = kind.attention_bias
        biased.update(layers if config.get("attention_bias", default) else ())
    if kind.mlp_bias and config.get("mlp_bias"):
        biased.update(mlp)
    for at in range(config["num_hidden_layers"]):
        layer = f"model.layers.{at}."
        for part, linear in (("self_attn", attention), ("mlp", mlp)):
            for name, (out, width) in linear.items():
                yield f"{layer}{part}.{name}.weight", [out, width]
                if name in biased:
                    yield f"{layer}{part}.{name}.bias", [out]
        for name in ("input_layernorm", "post_attention_layernorm", *kind.norms):
            yield f"{layer}{name}.weight", [head if name.startswith("self_attn.") else hidden]


def _are(tensors: Mapping[str, Stored], wanted: Mapping[str, list[int]]) -> bool:
    """Whether these tensors are there, and no others."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return shapes == wanted and all(tensor.kind in WHOLE for tensor in tensors.values())


OF_NO_MATTER = {
    *("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode"),
    *("megatron_core", "qalora_group_size"),
}
"""Settings of PEFT that change nothing, or only how others do that are off."""


def _adapter(folder: Path, linear: Mapping[str, list[int]]) -> Adapter | None:
    """linear: name and shape of each linear layer, and of the embeddings. Every other setting has to be off."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    told = {name: value for name, value in config.items() if name not in OF_NO_MATTER}
    rank, alpha, targets = told.pop("r"), told.pop("lora_alpha"), told.pop("target_modules")
    scaling = alpha / (math.sqrt(rank) if told.pop("use_rslora", False) else rank)
    dropout = float(told.pop("lora_dropout", 0.0))
    plain = (
        told.pop("peft_type") == "LORA"
        and told.pop("task_type", None) in (None, "CAUSAL_LM")
        and told.pop("bias", "none") == "none"
        and told.pop("init_lora_weights", True) in (True, False, "gaussian")
        and not any(told.values())
        # Text is a pattern.
        and isinstance(targets, list)
    )
    if not plain:
        return None
    layers = tuple(name for name in linear if any(name == t or name.endswith(f".{t}") for t in targets))
    wanted = {}
    for name in layers:
        out, width = linear[name]
        wanted[f"{IN_PEFT}{name}.lora_A.weight"] = [rank, width]
        wanted[f"{IN_PEFT}{name}.lora_B.weight"] = [out, rank]
    tensors = stored_tensors(folder / "adapter_model.safetensors")
    inside = all(name.startswith("model.layers.") for name in layers)
    if not layers or not inside or not _are(tensors, wanted):
        return None
    return Adapter(rank, float(scaling), dropout, layers, tensors)
