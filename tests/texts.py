"""Texts that are hard to cut, to normalise or to escape, for properties over generated examples."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import strategies as st

PIECES = (
    *("南京", "市", "长江", "ab", "a", "b", "7", "12", " ", "  ", "，", "{", "[", "}]", "I'm"),
    *("\n", "\t", "\r", "\\", "\\n", "\\t", '"', '"}'),
    *("é", "e\u0301", "e\u0323\u0301", "ả\u0323", "한", "\u1112\u1161\u11ab", "\u1112\u1161", "ก\u0e33", "\u212b"),
    *("😀", "👩\u200d👧", "🇨🇳", "\ufeff", "\u2028", "\u0f40\u0f74\u0f73", "豈", "\U0001d160"),
)
"""Repeats, escapes, NFD, conjoining Hangul, marks in an order that NFC changes, characters that NFC makes longer."""

CONTROLS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>"),
    *("[MASK]", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
)

MARK_BEHIND_CONTROL = re.compile("[\x00-\x1f](?=(.))", re.DOTALL)


def pieces(most: int = 12) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(PIECES), min_size=1, max_size=most).map("".join)


def texts(most: int = 12) -> st.SearchStrategy[str]:
    """Any text that a row may have: not blank, no control string."""
    return (pieces(most) | st.text(min_size=1, max_size=3 * most)).filter(
        lambda text: text.strip() and not any(name in text for name in CONTROLS)
    )


def marked_control(text: str) -> bool:
    """Whether a combining mark follows a control character: it would fuse with the letter of that one's escape."""
    followers = (match[1] for match in MARK_BEHIND_CONTROL.finditer(text))
    return any(unicodedata.combining(unicodedata.normalize("NFD", char)[0]) for char in followers)
