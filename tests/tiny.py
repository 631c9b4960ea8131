"""Tiny random models with a real tokenizer's layout, and small learnable data files. All of it is made on the spot.

tiny_model(folder, "qwen2")       a Hugging Face folder: weights, config, tokenizer, chat template
tiny_tokenizer(folder, "qwen2")   its tokenizer alone
old_glm(folder, native)           a tiny GLM in the layout of GLM-4's first checkpoints
small_classification(path)        labelled rows of two classes; `path` ends in .jsonl
small_ner(path)                   labelled rows with 人名 and 地点
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NOT_SPECIAL = ("<tool_call>", "</tool_call>", "<think>", "</think>")
"""Added tokens that `skip_special_tokens` and `split_special_tokens` leave alone, as in Qwen2.5 and Qwen3."""
GLM_SPECIAL = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
VISION_SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
MERGES = 600

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Pre-tokenizer of Qwen2 to Qwen3."""
GLM_WORDS = QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|")
"""Pre-tokenizer of GLM-4."""

CHATML = """
{%- macro turn(role, content) -%}{{ '<|im_start|>' ~ role ~ '\\n' ~ content ~ '<|im_end|>\\n' }}{%- endmacro -%}
{%- if DEFAULT and messages and messages[0].role != 'system' -%}
{{ turn('system', 'You are a helpful assistant.') }}
{%- endif -%}
{%- for message in messages -%}{{ turn(message.role, message.content) }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}END{%- endif -%}
""".strip()
CHATML_WITH_IMAGES = """
{%- if messages and messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' ~ message.role ~ '\\n' }}
{%- if message.content is string -%}{{ message.content }}
{%- else -%}{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
""".strip()
GLM = """
[gMASK]<sop>
{%- for message in messages -%}
{%- if message.content -%}{{ '<|' ~ message.role ~ '|>\\n' ~ message.content }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
""".strip()
NO_THINKING = "{%- if enable_thinking is false -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}"
TEMPLATES = {
    "qwen2": CHATML.replace("DEFAULT", "true").replace("END", ""),
    "qwen3": CHATML.replace("DEFAULT", "false").replace("END", NO_THINKING),
    "llama": CHATML.replace("DEFAULT", "true").replace("END", ""),
    "qwen2_vl": CHATML_WITH_IMAGES,
    "qwen2_5_vl": CHATML_WITH_IMAGES,
    "glm4": GLM,
    "glm4-0414": GLM,
}

PEOPLE = ("王小明", "李华", "张伟", "陈静", "刘洋", "赵敏", "周杰", "吴芳")
PLACES = ("南京", "北京", "上海", "广州", "杭州", "哈尔滨", "乌鲁木齐", "西安")
SENTENCES = ("{0}住在{1}。", "昨天{0}从{1}回来了。", "在{1}，{0}开了一家店。", "{1}下雨了，{0}没有出门。")
THINGS = ("手机", "酒店", "电影", "餐厅", "书", "相机", "耳机", "课程")
OPINIONS = {
    "好评": ("{}很好，非常满意。", "喜欢这个{}，值得推荐。", "{}质量不错，下次还买。"),
    "差评": ("{}太差了，非常失望。", "讨厌这个{}，浪费钱。", "{}质量很坏，要求退货。"),
}
ENGLISH = (
    "Decide which category the text belongs to. Answer with the category's name only.",
    "Find the entities in the text. Write one a line in reading order: the exact text, a tab, the type.",
    "user\n\nRuns of\n\n\nwhite  space   become\t\ttokens:\n\nso \n what\n  follows a header merges with it.。\n\n",
    "system\nuser\nassistant\nThe model that we're training isn't large, but it's 100% real; you'll see.",
)


MODEL_TYPES = {"glm4": "glm", "glm4-0414": "glm4"}
"""Of what is called otherwise: GLM-4's `-hf` checkpoints, and the 0414 series, which has two more norms a layer."""
STOPS = {"glm4": "<|user|>", "glm4-0414": "<|user|>"}


def tiny_model(folder: Path, family: str = "qwen2", **sizes: int) -> Path:
    """Write a random model of two layers with its tokenizer; the same weights every time. sizes: of the decoder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    tokenizer = tiny_tokenizer(folder, family)
    end, stop = (tokenizer.token_to_id(name) for name in ("<|endoftext|>", STOPS.get(family, "<|im_end|>")))
    common = {
        "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": stop,
        "pad_token_id": end,
        **sizes,
    }
    kind: Any = AutoModelForCausalLM
    if family in VISION:
        kind = AutoModelForImageTextToText
        config = _config_with_images(family, common, tokenizer, folder)
    else:
        tied = not family.startswith("glm4")
        config = AutoConfig.for_model(MODEL_TYPES.get(family, family), head_dim=16, tie_word_embeddings=tied, **common)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


VISION = {
    "qwen2_vl": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "num_heads": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    },
}
"""Towers of the families that read images."""


def _config_with_images(family: str, text: dict[str, Any], tokenizer: Tokenizer, folder: Path) -> Any:
    from transformers import AutoConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 64).save_pretrained(folder)
    ids = {name.strip("<|>"): tokenizer.token_to_id(name) for name in VISION_SPECIAL}
    eighth = text["hidden_size"] // text["num_attention_heads"] // 8
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2 * eighth, eighth, eighth]}
    vision = VISION[family] | {
        "out_hidden_size" if "out_hidden_size" in VISION[family] else "hidden_size": text["hidden_size"]
    }
    return AutoConfig.for_model(
        family,
        text_config={**text, "rope_parameters": rope},
        vision_config={**vision, "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2},
        tie_word_embeddings=True,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )


def tiny_tokenizer(folder: Path, family: str = "qwen2", bpe: models.BPE | None = None) -> Tokenizer:
    """Write `tokenizer.json` and `tokenizer_config.json` of a byte-level BPE trained on the sentences above.

    qwen2, qwen3: NFC and Qwen's words. llama: no normal form, digits apart and GPT-2's words, as in SmolLM2.
    glm4: no normal form, GLM-4's words and control tokens.
    bpe: a vocabulary to use in place of a trained one.
    """
    tokenizer = Tokenizer(bpe or models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if family == "llama":
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif family.startswith("glm4"):
        words = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GLM_WORDS), "isolated"), bytes_only])
    else:
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"), bytes_only])
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    if bpe is None:
        _train(tokenizer)
    special, others = (GLM_SPECIAL, ()) if family.startswith("glm4") else (SPECIAL, NOT_SPECIAL)
    if family in VISION:
        special += VISION_SPECIAL
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in others])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": TEMPLATES[family],
        "eos_token": STOPS.get(family, "<|im_end|>"),
        "pad_token": "<|endoftext|>",
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2), "utf-8")
    return tokenizer


def old_glm(folder: Path, native: Path, shards: int = 1) -> Path:
    """Write the tiny GLM of `native` as GLM-4's first checkpoints are: old names, q, k, v in one, `tokenizer.model`."""
    import torch
    from safetensors.torch import load_file, save_file

    new, old = json.loads((native / "config.json").read_text("utf-8")), {}
    found = load_file(native / "model.safetensors")
    folder.mkdir(parents=True)
    for at in range(new["num_hidden_layers"]):
        here, there = f"model.layers.{at}.", f"transformer.encoder.layers.{at}."
        for half in ("weight", "bias"):
            parts = [found[f"{here}self_attn.{part}_proj.{half}"] for part in "qkv"]
            old[f"{there}self_attention.query_key_value.{half}"] = torch.cat(parts)
        for name, was in OLD_GLM.items():
            old[there + was] = found[here + name]
    old["transformer.embedding.word_embeddings.weight"] = found["model.embed_tokens.weight"]
    old["transformer.encoder.final_layernorm.weight"] = found["model.norm.weight"]
    old["transformer.output_layer.weight"] = found["lm_head.weight"]
    old["transformer.rotary_pos_emb.inv_freq"] = torch.ones(new["head_dim"] // 4)
    names = [f"model-{at + 1:05}-of-{shards:05}.safetensors" for at in range(shards)]
    if shards == 1:
        names = ["model.safetensors"]
    places = {key: names[at * shards // len(old)] for at, key in enumerate(sorted(old))}
    for name in names:
        save_file({key: old[key] for key, place in places.items() if place == name}, folder / name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (folder / "config.json").write_text(json.dumps(_old_glm_config(new)), "utf-8")
    _tiktoken(folder, native)
    return folder


OLD_GLM = {
    "self_attn.o_proj.weight": "self_attention.dense.weight",
    "mlp.gate_up_proj.weight": "mlp.dense_h_to_4h.weight",
    "mlp.down_proj.weight": "mlp.dense_4h_to_h.weight",
    "input_layernorm.weight": "input_layernorm.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
}


def _old_glm_config(new: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "chatglm",
        "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "ffn_hidden_size": new["intermediate_size"],
        "hidden_size": new["hidden_size"],
        "kv_channels": new["head_dim"],
        "layernorm_epsilon": new["rms_norm_eps"],
        "multi_query_attention": True,
        "multi_query_group_num": new["num_key_value_heads"],
        "num_attention_heads": new["num_attention_heads"],
        "num_layers": new["num_hidden_layers"],
        "original_rope": True,
        "padded_vocab_size": new["vocab_size"],
        "post_layer_norm": True,
        "rmsnorm": True,
        "rope_ratio": new["rope_parameters"]["rope_theta"] / 10_000,
        "seq_length": new["max_position_embeddings"],
        "eos_token_id": [new["eos_token_id"]],
        "pad_token_id": new["pad_token_id"],
    }


def _tiktoken(folder: Path, native: Path) -> None:
    """`tokenizer.model` and `tokenizer_config.json` of the tokenizer in `native`."""
    spec = json.loads((native / "tokenizer.json").read_text("utf-8"))
    letters = {letter: byte for byte, letter in enumerate(_byte_letters())}
    added = {token["id"]: token for token in spec["added_tokens"]}
    ranks = sorted((id, token) for token, id in spec["model"]["vocab"].items() if id not in added)
    lines = [f"{b64encode(bytes(letters[c] for c in token)).decode()} {id}\n" for id, token in ranks]
    (folder / "tokenizer.model").write_text("".join(lines), "utf-8")
    decoder = {str(id): {k: v for k, v in token.items() if k != "id"} for id, token in added.items()}
    settings = json.loads((native / "tokenizer_config.json").read_text("utf-8"))
    settings |= {"added_tokens_decoder": decoder, "tokenizer_class": "ChatGLM4Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), "utf-8")


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: printable ones are themselves, the others follow Latin-1 in order."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) if byte in kept else chr(256 + moved.index(byte)) for byte in range(256)]


def small_classification(path: Path, rows: int = 48) -> Path:
    """At most 48 different rows {"text", "label"}, 好评 and 差评 in turn; a word of opinion decides."""
    by_label = [[(p.format(thing), label) for thing, p in product(THINGS, ps)] for label, ps in OPINIONS.items()]
    pairs = [pair for both in zip(*by_label, strict=True) for pair in both]
    return write_rows(path, [{"text": text, "label": label} for text, label in pairs[:rows]])


def small_ner(path: Path, rows: int = 64) -> Path:
    """At most 256 different rows {"text", "entities"}: a person and a place each, every fifth row without."""
    found: list[dict[str, Any]] = []
    for at in range(rows):
        # Both strides are coprime to the lists' length, so no sentence repeats within 256 rows.
        person, place = PEOPLE[at % 8], PLACES[(at // 8 + 3 * at) % 8]
        sentence = SENTENCES[(at // 64 + at) % 4]
        text = f"第{at}天没有消息。" if at % 5 == 4 else sentence.format(person, place)
        named = [(text.find(name), name, kind) for name, kind in ((person, "人名"), (place, "地点"))]
        entities = [{"start": s, "end": s + len(n), "type": k, "text": n} for s, n, k in sorted(named) if s >= 0]
        found.append({"text": text, "entities": entities})
    return write_rows(path, found)


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def _train(tokenizer: Tokenizer) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + MERGES, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)


def _corpus() -> list[str]:
    opinions = [pattern.format(thing) for patterns in OPINIONS.values() for pattern in patterns for thing in THINGS]
    named = [s.format(*pair) for s, pair in product(SENTENCES, zip(PEOPLE, PLACES, strict=True))]
    return [*opinions, *named, *ENGLISH * 4]
