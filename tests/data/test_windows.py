"""Windows cover a text, have room for their tokens, overlap as told, and leave characters whole."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from texts import texts
from weitiao.data.windows import OVERLAP, overlap_of, windows
from weitiao.families.tokenizer import TextTokenizer
from weitiao.tasks.spans import clusters

LONGEST = 30
"""Tokens of a character with its marks in these texts."""

long_texts = st.lists(texts(20), min_size=1, max_size=30).map("".join)


@pytest.fixture(scope="module", params=["qwen2", "glm4"])
def tokenizer(request):
    return TextTokenizer(request.getfixturevalue(f"{request.param}_folder"))


@settings(max_examples=80)
@given(text=long_texts, room=st.integers(4, 120))
@example(text="😀" * 30, room=8)
@example(text="e" + "\u0301" * 100 + "end", room=8)
@example(text="\U0001d160" * 5, room=4)
@example(text=" " * 60 + "x", room=8)
def test_windows(tokenizer, text, room):
    found = windows(text, room, tokenizer.spans)
    edges = set(itertools.accumulate(map(len, clusters(text)), initial=0))
    assert found[0][0] == 0
    assert found[-1][1] == len(text)
    for (first, end), (following, last) in itertools.pairwise(found):
        assert first < following <= end < last or room < 2 * LONGEST
        assert first < following <= end <= last
        shared = len(tokenizer.encode(text[following:end]))
        # Tokens of a part are not those of the whole, and characters of many tokens stay whole.
        assert shared >= overlap_of(room) - LONGEST
        if room > 4 * LONGEST:
            assert shared <= overlap_of(room) + room // 8 + LONGEST
    for start, end in found:
        assert {start, end} <= edges
        if len(clusters(text[start:end])) > 4:
            assert len(tokenizer.encode(text[start:end])) <= room


@given(text=texts(20))
def test_what_fits_is_one_window(tokenizer, text):
    assert windows(text, len(tokenizer.encode(text)), tokenizer.spans) == [(0, len(text))]


def one_token_each(text):
    return [(at, at + 1) for at in range(len(text))]


def test_windows_end_and_begin_at_borders_nearby():
    """A token a character: lines before sentences, sentences before anything, and no border far away."""
    plain = windows("a" * 2000, 800, one_token_each)
    assert plain == [(0, 800), (800 - OVERLAP, 1600 - OVERLAP), (1600 - 2 * OVERLAP, 2000)]
    text = "a" * 650 + "。" + "a" * 50 + "。" + "a" * 2000
    assert windows(text, 800, one_token_each)[0] == (0, 702), "a sentence's end within 100 tokens"
    text = "a" * 700 + "\n" + "a" * 50 + "。" + "a" * 2000
    assert windows(text, 800, one_token_each)[0] == (0, 701), "a line's before a later sentence's"
    text = "a" * 710 + "3.14" + "a" * 2000
    assert windows(text, 800, one_token_each)[0] == (0, 800), "a point within a number ends nothing"
    text = "a" * 710 + ". b" + "a" * 2000
    assert windows(text, 800, one_token_each)[0] == (0, 711)
    text = "a" * 700 + "。" + "a" * 2000
    [_, second, *_] = windows(text, 730, one_token_each)
    assert second[0] == 701 - OVERLAP
    text = "a" * 600 + "。" + "a" * 2000
    [first, second, *_] = windows(text, 700, one_token_each)
    assert first == (0, 700)
    assert second[0] == 601, "a sentence's beginning up to an eighth farther back"


def test_small_windows_overlap_by_a_quarter():
    assert overlap_of(40) == 10
    assert windows("a" * 100, 40, one_token_each) == [(0, 40), (30, 70), (60, 100)]
