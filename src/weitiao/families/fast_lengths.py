"""How many tokens texts have, counted by the library of tiktoken: several times as fast as the tokenizers library where
a tokenizer is byte-level BPE, as those of Qwen, GLM-4, Llama 3 and SmolLM2 are.

The two libraries merge by different rules: tokenizers joins neighbours whose *pair* has a rank, tiktoken those that
together *are a token*. They agree where every token is what its own bytes become by the merges. For let a token's bytes
lie in a text as the neighbours c and d: nothing was merged over its borders, so c and d are what its bytes alone become
too, just before the merge that makes it; and that merge is of c and d. Tokens that no merge leads to are left out.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tokenizers import Tokenizer

from weitiao.families.tiktoken import byte_letters

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How the tokenizers library's ByteLevel cuts text by itself."""
NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}
"""Bytes that are in no text in UTF-8."""
LEAST = (0x80, 0xE0, 0xF0, 0xF8)
"""Above the first bytes of characters of 1, 2, 3 and 4 bytes."""
TOGETHER = 256
"""Texts that a thread counts before it looks for more."""

Count = Callable[[Sequence[str]], list[int]]


def fast_lengths(spec: str, exact: Tokenizer) -> Count | None:
    """What counts the tokens of texts as `exact` does, of a `tokenizer.json` of this content without added tokens; None
    where it is of another kind. Takes a second, for it looks at every merge."""
    told = json.loads(spec)
    words, ranks = _words(told["pre_tokenizer"]), _ranks(told)
    unknown = None if ranks is None else _unknown({byte for byte in range(256) if bytes([byte]) not in ranks})
    if words is None or ranks is None or unknown is None:
        return None
    from tiktoken import Encoding

    encode = Encoding("counted", pat_str=words, mergeable_ranks=ranks, special_tokens={}).encode_ordinary
    normal = exact.normalizer

    def counted(texts: Sequence[str]) -> list[int]:
        return [
            len(exact.encode(text, add_special_tokens=False).ids if unknown.search(text) else encode(text))
            for text in (texts if normal is None else map(normal.normalize_str, texts))
        ]

    def count(texts: Sequence[str]) -> list[int]:
        # Without Python's lock while it encodes.
        parts = [texts[start : start + TOGETHER] for start in range(0, len(texts), TOGETHER)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [size for sizes in pool.map(counted, parts) for size in sizes]

    return count


def _unknown(missing: set[int]) -> re.Pattern[str] | None:
    """What finds the characters that begin with these bytes in UTF-8: tiktoken knows no text of which a vocabulary has
    not every byte. None where other bytes of a character are among them."""
    if missing & {*range(0x80, 0xC0)}:
        return None
    ranges = []
    for byte in missing - NEVER:
        # Of the first byte, the bits that count, and how many more the others bring (RFC 3629).
        bits, more = next((mask, 6 * at) for at, mask in enumerate((0x7F, 0x1F, 0x0F, 0x07)) if byte < LEAST[at])
        first = (byte & bits) << more
        ranges.append(f"{re.escape(chr(first))}-{re.escape(chr(min(first + (1 << more) - 1, sys.maxunicode)))}")
    return re.compile(f"[{''.join(ranges)}]" if ranges else r"(?!)")


def _words(told: Mapping[str, Any] | None) -> str | None:
    """The pattern by which a pre-tokenizer cuts text into words, where it is one."""
    parts = [] if told is None else told.get("pretokenizers", [told])
    if not parts or parts[-1]["type"] != "ByteLevel" or parts[-1]["add_prefix_space"]:
        return None
    split = [GPT2] if parts[-1].get("use_regex", True) else []
    for part in parts[:-1]:
        if part["type"] != "Split" or part["behavior"] != "Isolated" or part["invert"]:
            return None
        split.append(part["pattern"].get("Regex"))
    return split[0] if len(split) == 1 else None


def _ranks(told: Mapping[str, Any]) -> dict[bytes, int] | None:
    """Bytes of each token that merges lead to, by the order of the merges; the single bytes first."""
    model = told["model"]
    unusual = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or any(model.get(name) for name in unusual):
        return None
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    made = list(dict.fromkeys(map("".join, merges)))
    kept = ("version", "model")
    by_merges = {name: told[name] for name in kept} | {"model": {**model, "ignore_merges": False}, "added_tokens": []}
    empty = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    alone = Tokenizer.from_str(json.dumps(by_merges | dict.fromkeys(empty)))
    reached = [len(found.ids) == 1 for found in alone.encode_batch_fast(made, add_special_tokens=False)]
    # Then a word that is a token is taken whole, though no merges lead there.
    if model.get("ignore_merges") and not all(reached):
        return None
    byte = {letter: at for at, letter in enumerate(byte_letters())}
    tokens = [
        *(byte.keys() & model["vocab"].keys()),
        *(token for token, there in zip(made, reached, strict=True) if there),
    ]
    return {bytes(map(byte.__getitem__, token)): at for at, token in enumerate(tokens)}
