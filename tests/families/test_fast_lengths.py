"""Tokens counted by tiktoken's library are those of the tokenizers library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from weitiao.families import tokenizer as tokenizers
from weitiao.families.fast_lengths import fast_lengths
from weitiao.families.tiktoken import WORDS, byte_letters
from weitiao.families.tokenizer import TextTokenizer

LETTERS = byte_letters()
CORPUS = [
    "微调让模型学会新的任务，微调很快。质量很好，物流也很快，价格便宜。",
    "The tokenizer's merges aren't always what they seem; they're 1,234 or 5678 of them.  \n\n\tNew lines, too.",
    "naïve café e\u0301te\u0301 Ångström 😀😀 مرحبا بالعالم",
] * 3
TEXTS = st.text(st.one_of(st.sampled_from(sorted({*"".join(CORPUS)})), st.characters(exclude_categories=["Cs"])))


def byte_level(words: str | None = None) -> Any:
    """GPT-2's, or that of Qwen and GLM-4."""
    if words is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), to_bytes])


@cache
def trained(words: str | None, alphabet: bool, nfc: bool) -> Tokenizer:
    """alphabet: all bytes are tokens, not those of the corpus alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = byte_level(words), decoders.ByteLevel()
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    start = LETTERS if alphabet else [letter for at, letter in enumerate(LETTERS) if at not in (1, 2, 0x7F, 0xF1, 0xF3)]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, initial_alphabet=start, show_progress=False)
    )
    return tokenizer


def made_of(merges: Sequence[tuple[str, str]], **more: Any) -> Tokenizer:
    tokens = [*LETTERS, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=list(merges), **more))
    tokenizer.pre_tokenizer = byte_level()
    return tokenizer


def lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    return [len(found.ids) for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


@pytest.mark.parametrize("words", [None, WORDS], ids=["gpt2", "qwen"])
@pytest.mark.parametrize(("alphabet", "nfc"), [(True, True), (False, False)], ids=["all bytes", "some bytes"])
@given(st.lists(TEXTS, max_size=5))
def test_lengths_of_any_text(words: str | None, alphabet: bool, nfc: bool, texts: list[str]) -> None:
    tokenizer = trained(words, alphabet, nfc)
    count = fast_lengths(tokenizer.to_str(), tokenizer)
    assert count is not None
    assert count(texts) == lengths(tokenizer, texts)


@given(st.lists(st.text("abcd "), max_size=20))
def test_tokens_that_no_merge_leads_to(texts: list[str]) -> None:
    """b and c come together first, so that a and b never do before a c: `abc` is a token that is never written."""
    tokenizer = made_of([("b", "c"), ("a", "b"), ("ab", "c"), ("c", "d"), ("ab", "d")])
    count = fast_lengths(tokenizer.to_str(), tokenizer)
    assert count is not None
    assert count([*texts, "abc", "abcd", "abd"]) == lengths(tokenizer, [*texts, "abc", "abcd", "abd"])


def test_words_that_are_taken_whole() -> None:
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    unreached = made_of(merges, ignore_merges=True)
    assert fast_lengths(unreached.to_str(), unreached) is None
    reached = made_of(merges[1:], ignore_merges=True)
    count = fast_lengths(reached.to_str(), reached)
    assert count is not None
    assert count(["abc", "abab c"]) == lengths(reached, ["abc", "abab c"])


@pytest.mark.parametrize("kind", ["prefix space", "digits", "words", "fallback"])
def test_other_kinds_are_left_to_their_library(kind: str) -> None:
    tokenizer = trained(None, True, False)
    told = json.loads(tokenizer.to_str())
    if kind == "prefix space":
        told["pre_tokenizer"]["add_prefix_space"] = True
    elif kind == "digits":
        digits = {"type": "Digits", "individual_digits": True}
        told["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, told["pre_tokenizer"]]}
    elif kind == "words":
        told["pre_tokenizer"] = {"type": "Whitespace"}
    else:
        told["model"]["byte_fallback"] = True
    assert fast_lengths(json.dumps(told), tokenizer) is None


def test_many_texts_are_counted_fast(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(WORDS, True, True).save(str(tmp_path / "tokenizer.json"))
    tokenizer, asked = TextTokenizer(tmp_path), list[int]()
    real = fast_lengths(tokenizer.spec(), trained(WORDS, True, True))
    assert real is not None
    monkeypatch.setattr(tokenizers, "MANY", 100)
    monkeypatch.setattr(tokenizer, "_fast", lambda texts: asked.append(len(texts)) or real(texts), raising=False)
    assert tokenizer.lengths(CORPUS[:1]) == [len(tokenizer.encode(CORPUS[0]))]
    assert asked == []
    assert tokenizer.lengths(CORPUS) == [len(tokenizer.encode(text)) for text in CORPUS]
    assert asked == [len(CORPUS)]
