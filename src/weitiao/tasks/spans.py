"""Where a text that a model wrote stands in the source. Offsets are code points of the source, end-exclusive.

Models see and write a tokenizer's normal form (NFC for Qwen), sources may be in another. Both sides are compared in
NFC, and a map leads back: a *cluster* is a stretch of the source that NFC changes on its own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def clusters(text: str) -> list[str]:
    """`text` cut where normalisation never reaches across: the NFC of the pieces joined is the NFC of the whole."""
    pieces: list[str] = []
    for char in text:
        if pieces and _joins_left(char):
            pieces[-1] += char
        else:
            pieces.append(char)
    return pieces


class Source:
    """A source text, searched in NFC, answering in its own code points."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.plain = unicodedata.is_normalized("NFC", text)
        self._nfc = text if self.plain else nfc(text)
        self._starts: dict[int, int] = {}
        if not self.plain:
            self._starts = _boundaries(clusters(text))

    def find(self, wanted: str, start: int = 0) -> tuple[int, int] | None:
        """First place of `wanted` at or after code point `start` of the source that begins and ends on whole
        characters; None when there is none."""
        needle = nfc(wanted)
        at = -1
        while needle and (at := self._nfc.find(needle, at + 1)) >= 0:
            begin, end = self._back(at), self._back(at + len(needle))
            if begin is not None and end is not None and begin >= start:
                return begin, end
        return None

    def _back(self, offset: int) -> int | None:
        return offset if self.plain else self._starts.get(offset)


def places(pairs: Sequence[tuple[str, str]], text: str, in_order: bool = True) -> list[tuple[int, int] | None]:
    """Where each (text, type) stands in `text`, from left to right; None where it does not (again). in_order: whether
    the pairs are in reading order.

    A mention is sought from the start of the one before it, and behind the last mention of the same text; failing
    that, anywhere behind that last mention; failing that, wherever the text stands without that type. So ordered pairs
    come back always, and offsets whenever every earlier mention of the same text is among the pairs and no span has
    two types while its text occurs again.
    """
    source = Source(text)
    last: dict[str, tuple[int, int]] = {}
    types: dict[tuple[int, int], set[str]] = {}
    found: list[tuple[int, int] | None] = []
    before = 0
    for written, kind in pairs:
        wanted = nfc(written)
        behind = last[wanted][0] + 1 if wanted in last else 0
        place = source.find(wanted, max(before, behind)) or source.find(wanted, behind)
        if place is None:
            place = source.find(wanted)
            while place is not None and kind in types.get(place, ()):
                place = source.find(wanted, place[0] + 1)
        found.append(place)
        if place is not None:
            last[wanted] = place
            before = place[0] if in_order else 0
            types.setdefault(place, set()).add(kind)
    return found


def chunks(text: str, normalize: Callable[[str], str]) -> list[str]:
    """The pieces of `normalize(text)` that a span may begin and end at."""
    whole = normalize(text)
    if whole == text:
        return clusters(text)
    pieces = [normalize(piece) for piece in clusters(text)]
    # A normal form that reaches across our clusters is taken character by character.
    return [piece for piece in pieces if piece] if "".join(pieces) == whole else list(whole)


def _boundaries(pieces: Iterable[str]) -> dict[int, int]:
    """Offset in NFC → offset in the source, at every cluster boundary."""
    places = {0: 0}
    ours = theirs = 0
    for piece in pieces:
        ours += len(piece)
        theirs += len(nfc(piece))
        places[theirs] = ours
    return places


@cache
def _joins_left(char: str) -> bool:
    # A few vowel signs of Tibetan are no marks themselves but decompose into marks, which change their order.
    first = unicodedata.normalize("NFD", char)[0]
    return char > "\u02ff" and (unicodedata.combining(first) != 0 or first in _composing())


@cache
def _composing() -> frozenset[str]:
    """Characters that NFC may merge into the one before although they are no combining marks: Hangul vowels and
    finals, and the second halves of canonical compositions (Unicode Standard Annex 15, `NFC_QC=Maybe`)."""
    found = {chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    # The planes of ideographs behind these hold none; looking through them takes a tenth of a second.
    for code in range(0x20000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            second = chr(int(parts[1], 16))
            if not unicodedata.combining(second):
                found.add(second)
    return frozenset(found)
