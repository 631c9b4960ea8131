"""Where tokens begin, whatever is in them: checked against the decoded text of all that stands before each."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from texts import texts
from weitiao.families.tokenizer import TextTokenizer
from weitiao.prediction.token_places import TokenPlaces


@pytest.fixture(scope="module", params=["qwen2", "glm4", "llama"])
def tokenizer(request: pytest.FixtureRequest) -> TextTokenizer:
    return TextTokenizer(request.getfixturevalue(f"{request.param}_folder"))


@given(text=texts(20))
@example(text="龘😀南京\t地点\n鱻\t人名")
@example(text="�")
@example(text="a�b😀�")
def test_starts(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    whole = tokenizer.decode(ids)
    prefixes = [os.path.commonprefix([tokenizer.decode(ids[:at]), whole]) for at in range(len(ids))]
    found = TokenPlaces(tokenizer.decode).starts(ids, whole)
    if "�" in whole:  # the first byte of it looks like all of it
        assert all(abs(a - len(b)) <= 1 for a, b in zip(found, prefixes, strict=True))
    else:
        assert found == [len(prefix) for prefix in prefixes]


@given(ids=st.lists(st.integers(0, 255), max_size=12))
def test_any_tokens(tokenizer: TextTokenizer, ids: list[int]) -> None:
    """Bytes in an order that is no text, as a model may write them freely."""
    whole = tokenizer.decode(ids)
    found = TokenPlaces(tokenizer.decode).starts(ids, whole)
    assert found == sorted(found)
    assert len(found) == len(ids)
    assert all(0 <= start <= len(whole) for start in found)


def test_a_decoder_that_drops_a_first_space() -> None:
    made = Tokenizer(models.WordLevel({"▁New": 0, "▁York": 1, "er": 2}, unk_token="er"))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    decode = lambda ids: str(made.decode(ids))  # noqa: E731
    assert decode([0, 1, 2]) == "New Yorker"
    assert TokenPlaces(decode).starts([0, 1, 2], "New Yorker") == [0, 3, 8]
