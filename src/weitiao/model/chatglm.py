"""The first GLM-4 checkpoints (`model_type: chatglm`), read into transformers' own `GlmForCausalLM`.

Their code needs an old transformers and is never run; only names, one fused tensor and the config differ. Layer N is
`transformer.encoder.layers.N.` there and `model.layers.N.` here:

    self_attention.query_key_value    rows of q, then k, then v → self_attn.q_proj, k_proj, v_proj (weight and bias)
    self_attention.dense              self_attn.o_proj
    mlp.dense_h_to_4h                 mlp.gate_up_proj, gate first in both
    mlp.dense_4h_to_h                 mlp.down_proj
    input_layernorm, post_attention_layernorm      the same
    transformer.embedding.word_embeddings · encoder.final_layernorm · output_layer → embed_tokens · norm · lm_head
    transformer.rotary_pos_emb.inv_freq            is computed

Both rotate pairs of neighbours in the first half of a head, so q and k keep their order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GlmConfig, GlmForCausalLM, conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightRenaming

from weitiao.errors import ModelError
from weitiao.families.base import model_config

RENAMED = {
    r"^transformer\.embedding\.word_embeddings\.": "model.embed_tokens.",
    r"^transformer\.encoder\.final_layernorm\.": "model.norm.",
    r"^transformer\.output_layer\.": "lm_head.",
    r"^transformer\.encoder\.layers\.": "model.layers.",
    r"\.self_attention\.dense\.": ".self_attn.o_proj.",
    r"\.mlp\.dense_h_to_4h\.": ".mlp.gate_up_proj.",
    r"\.mlp\.dense_4h_to_h\.": ".mlp.down_proj.",
}
FUSED = "self_attention.query_key_value"
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
COMPUTED = "transformer.rotary_pos_emb.inv_freq"
"""In the checkpoint, and not needed."""
ROPE_THETA = 10_000
"""Of GLM-4 before its `rope_ratio`, which multiplies it."""


def from_pretrained(folder: Path, **options: Any) -> Any:
    """`GlmForCausalLM.from_pretrained` of an old checkpoint, with the same options and what they return."""
    with _conversion():
        loaded = GlmForCausalLM.from_pretrained(folder, config=native_config(folder), **options)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    model.__dict__.pop("_weight_conversions", None)  # it would be saved by the old names
    return loaded


def native_config(folder: Path) -> GlmConfig:
    """The `GlmConfig` that says what the old config does. Raises ModelError for what GLM-4 never had."""
    old = model_config(folder)
    try:
        _refuse_others(old, folder)
        heads = old["num_attention_heads"]
        return GlmConfig(
            vocab_size=old["padded_vocab_size"],
            hidden_size=old["hidden_size"],
            intermediate_size=old["ffn_hidden_size"],
            num_hidden_layers=old["num_layers"],
            num_attention_heads=heads,
            num_key_value_heads=old["multi_query_group_num"] if old["multi_query_attention"] else heads,
            head_dim=old["kv_channels"],
            max_position_embeddings=old["seq_length"],
            rms_norm_eps=old["layernorm_epsilon"],
            attention_bias=old["add_qkv_bias"],
            attention_dropout=0.0,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": float(ROPE_THETA * old.get("rope_ratio", 1)),
                "partial_rotary_factor": 0.5,
            },
            tie_word_embeddings=False,
            pad_token_id=old.get("pad_token_id"),
            eos_token_id=old.get("eos_token_id"),
        )
    except KeyError as error:
        raise ModelError(f"{folder}/config.json: lacks {error}; fetch the model again") from None


def _refuse_others(old: Mapping[str, Any], folder: Path) -> None:
    """ChatGLM2 and 3 share the model type; what differs there would be computed wrongly in silence."""
    wanted = {
        "rmsnorm": True,
        "post_layer_norm": True,
        "add_bias_linear": False,
        "apply_residual_connection_post_layernorm": False,
        "original_rope": True,
    }
    for key, value in wanted.items():
        if old.get(key, value) != value:
            raise ModelError(f"{folder}/config.json: {key} = {old[key]!r}; GLM-4 has {value!r}, and only GLM-4 is read")


@contextlib.contextmanager
def _conversion() -> Iterator[None]:
    """While it is open, transformers' loader reads the old names into `GlmForCausalLM`, tensor by tensor.

    It is closed again at once: the same table would write the old names on saving, and rename PEFT's layers.
    """
    name = "GlmForCausalLM"
    table: list[Any] = [WeightRenaming(old, new) for old, new in RENAMED.items()]
    table.append(WeightConverter(FUSED, list(PARTS), [_Rows()]))
    library: Any = conversion_mapping
    library.register_checkpoint_conversion_mapping(name, table, overwrite=True)
    try:
        yield
    finally:
        library._checkpoint_conversion_mapping_cache.pop(name)
        library.USER_REGISTERED_MAPPINGS.discard(name)


class _Rows(ConversionOps):  # type: ignore[misc]
    """Cuts a fused tensor into rows for each target, as many as the model's own parameter has."""

    def convert(  # type: ignore[override]
        self,
        input_dict: dict[str, Any],
        *,
        target_patterns: list[str],
        full_layer_name: str,
        model: Any,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        (found,) = input_dict.values()
        fused: torch.Tensor = found[0] if isinstance(found, list) else found
        names = [full_layer_name.replace(target_patterns[0], target) for target in target_patterns]
        pieces = fused.split([model.get_parameter(name).shape[0] for name in names])
        # A copy each: a view would keep the whole fused tensor.
        return {target: piece.clone() for target, piece in zip(target_patterns, pieces, strict=True)}

    @property
    def reverse_op(self) -> ConversionOps:
        raise NotImplementedError("a native model is saved by its native names")
