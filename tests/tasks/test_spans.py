"""Where a span may begin and end, and that it is found again in the source's own code points."""

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from texts import pieces
from weitiao.tasks.spans import Source, chunks, clusters, nfc


@given(st.text() | pieces())
@example("\u0f40\u0f74\u0f73")
@example("a\u0315\u0300\u05ae\u0300")
@example("\u09c7\u09be\u1100\u1161\u11a8\u11a8")
def test_normalising_pieces_is_normalising_the_whole(text):
    cut = clusters(text)
    assert "".join(cut) == text
    assert "".join(map(nfc, cut)) == nfc(text), cut


def test_no_character_that_starts_a_cluster_reaches_to_the_left():
    """Every code point that normalisation knows, behind letters that compose and marks that are reordered."""
    lefts = ["a", "=", "\u1100", "\uac00", "\u09c7", "\u0f71", "a\u0345", "\u0f40\u0f74", "\U00011099", "\u0300"]
    known = [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.decomposition(char) or unicodedata.combining(char) or "\u1100" <= char <= "\u11ff"
    ]
    bad = [
        (left, hex(ord(char)))
        for char in known
        for left in lefts
        if len(clusters(left + char)) > len(clusters(left)) and nfc(left + char) != nfc(left) + nfc(char)
    ]
    assert not bad


@given(st.data())
def test_a_span_is_found_where_a_search_by_hand_finds_it(data):
    text = data.draw(pieces(6))
    cut = clusters(text)
    ends = [sum(map(len, cut[:i])) for i in range(len(cut) + 1)]
    first, last = sorted(data.draw(st.lists(st.sampled_from(ends), min_size=2, max_size=2, unique=True)))
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    start = data.draw(st.integers(0, len(text)))
    wanted = unicodedata.normalize(form, text[first:last])
    boundaries = range(len(text) + 1) if nfc(text) == text else ends
    expected = next(
        ((i, j) for i in boundaries for j in boundaries if start <= i < j and nfc(text[i:j]) == nfc(wanted)), None
    )
    assert Source(text).find(wanted, start) == expected
    assert Source(text).find(wanted) is not None


def test_half_a_character_is_not_found():
    assert Source("cafe\u0301").find("e") is None
    assert Source("cafe\u0301s").find("caf\u00e9") == (0, 5)
    assert Source("\u1112\u1161\u11ab국").find("\u1112\u1161") is None
    assert Source("abc").find("") is None


@given(pieces())
def test_chunks_make_up_the_normal_form(text):
    for normalize in (nfc, str, str.lower, lambda t: unicodedata.normalize("NFKC", t)):
        cut = chunks(text, normalize)
        assert "".join(cut) == normalize(text)
        assert all(cut)


def test_a_normal_form_that_reaches_further_is_cut_by_character():
    def joined(text):
        return text.replace("ab", "X")

    assert chunks("1ab2", joined) == ["1", "X", "2"]


@pytest.mark.parametrize("text", ["南京", "", "a\tb"])
def test_plain_text_is_cut_by_character(text):
    assert clusters(text) == list(text)
