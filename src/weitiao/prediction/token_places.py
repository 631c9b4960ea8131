"""Where in an answer's text each of its tokens begins: a token may hold a part of a character, or of several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

PARTIAL = "\ufffd"
"""What a decoder shows in place of a part of a character."""


class TokenPlaces:
    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        """decode: the tokenizer's text of ids."""
        self._decode = decode
        self._alone = lru_cache(1 << 16)(lambda token: decode([token]))

    def starts(self, ids: Sequence[int], text: str) -> list[int]:
        """Code point of `text`, the text of all `ids`, at which each begins: inside of a character, the character's."""
        pieces = [self._alone(token) for token in ids]
        if PARTIAL not in text and "".join(pieces) == text:
            return list(accumulate(map(len, pieces), initial=0))[:-1]
        # Of each token, what it adds to the text of those before: not to all of them, but back to the last one that
        # ended with a whole character. That one is decoded too, since some decoders drop a first space.
        starts, start, whole = [], 0, 0
        anchor, known = 0, 0
        for at in range(len(ids)):
            starts.append(start)
            added = self._decode(list(ids[anchor : at + 1]))[known:]
            told = len(os.path.commonprefix([added, text[whole : whole + len(added)]]))
            start = whole + told
            if told == len(added) and not added.endswith(PARTIAL):
                whole, anchor, known = start, at, len(pieces[at])
        return starts
