"""A `tokenizer.model` of tiktoken → a `tokenizer.json`, written once per content into the cache.

GLM-4's first releases bring their vocabulary as tiktoken's file, one `base64(bytes) rank` a line, and code that cuts
text into words. The same tokenizer as a `tokenizer.json` is fast, knows its offsets and runs no code of the model's.
A token's rank is its id and the order of its making, so the merges of byte-pair encoding follow from the ranks: two
tokens that make a third are merged when it is their turn.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import Any

from weitiao.errors import ModelError
from weitiao.hub.cache import cache_root
from weitiao.run_folder import write_text

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How GLM-4 cuts text into words (the pattern of tiktoken's cl100k_base)."""
VERSION = 1
"""Of the conversion; another one gives other files in the cache."""


def converted(folder: Path, cache_dir: str | None = None) -> Path:
    """Path of the `tokenizer.json` made of the folder's `tokenizer.model` and `tokenizer_config.json`.

    The bytes depend on those two files alone. Raises ModelError when one of them is missing or unreadable.
    """
    source, settings = folder / "tokenizer.model", folder / "tokenizer_config.json"
    try:
        raw, config = source.read_bytes(), settings.read_bytes()
    except OSError as error:
        raise ModelError(f"{error.filename}: {error.strerror}; fetch the model again") from None
    digest = hashlib.sha256(b"%d\0%b\0%b" % (VERSION, raw, config)).hexdigest()
    path = cache_root(cache_dir) / "tokenizers" / digest[:32] / "tokenizer.json"
    if not path.is_file():
        spec = _spec(_ranks(raw, source), _added(config, settings))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(spec, ensure_ascii=False, separators=(",", ":")))
    return path


def _ranks(raw: bytes, path: Path) -> dict[bytes, int]:
    ranks = {}
    try:
        for line in raw.splitlines():
            if line:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
    except (ValueError, binascii.Error):
        raise ModelError(f"{path}: is no tiktoken file (wanted `base64 rank` a line); fetch the model again") from None
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ModelError(f"{path}: has no token for byte {missing[0]:#04x}; fetch the model again")
    return ranks


def _added(config: bytes, path: Path) -> list[dict[str, Any]]:
    """Control tokens, as `tokenizer.json` lists them."""
    try:
        tokens = json.loads(config)["added_tokens_decoder"]
        return [{"id": int(id), **token} for id, token in sorted(tokens.items(), key=lambda item: int(item[0]))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{path}: lists no added_tokens_decoder; fetch the model again") from None


def _spec(ranks: dict[bytes, int], added: list[dict[str, Any]]) -> dict[str, Any]:
    letters = byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, to_bytes]},
        "post_processor": None,
        "decoder": to_bytes,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # tiktoken takes a word that is a token as it is, whether or not merges lead there.
            "ignore_merges": True,
            "vocab": {written(token): rank for token, rank in ranks.items()},
            "merges": [[written(left), written(right)] for left, right in _merges(ranks)],
        },
    }


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that makes a token, in the order of what they make."""
    found = []
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = ((token[:at], token[at:]) for at in range(1, len(token)))
        pairs = [pair for pair in halves if pair[0] in ranks and pair[1] in ranks]
        found += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return found


def byte_letters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary, as GPT-2's tokenizer has them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
