"""MinHash of character shingles, in batches, and what rows it brings together (Broder 1997; Leskovec et al., ch. 3).

A signature has BANDS × ROWS minima. Two texts whose shingles have the Jaccard index s agree in all minima of one band
with a chance of s**ROWS, and so meet in at least one band with 1 − (1 − s**ROWS)**BANDS: 0.996 at 0.8, 0.03 at 0.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BANDS, ROWS = 14, 5
SHINGLES = {"zh": 3, "en": 5}
"""Characters of a shingle. Letters repeat in any English text, so that short ones would bring all texts together."""
_RANDOM = np.random.default_rng(20)
_ODD = _RANDOM.integers(0, 2**31, BANDS * ROWS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_MASKS = _RANDOM.integers(0, 2**32, BANDS * ROWS, dtype=np.uint32)
_MIX, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


def bands(texts: Sequence[str], size: int) -> NDArray[np.uint64]:
    """A hash of each band of each text [texts, BANDS]. size: characters of a shingle."""
    hashes, starts = _shingles(texts, size)
    signature = np.empty((BANDS * ROWS, len(texts)), np.uint32)
    scratch = np.empty_like(hashes)
    for at in range(BANDS * ROWS):
        # An odd factor permutes the 32-bit numbers, and so does a mask; minima are taken in that order.
        np.multiply(hashes, _ODD[at], out=scratch)
        np.bitwise_xor(scratch, _MASKS[at], out=scratch)
        signature[at] = np.minimum.reduceat(scratch, starts)
    found = np.zeros((BANDS, len(texts)), np.uint64)
    for row in range(ROWS):
        found = (found ^ signature[row::ROWS]) * _MIX
        found ^= found >> np.uint64(31)
    return found.T


def _shingles(texts: Sequence[str], size: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """A hash of each shingle of all texts, and where each text's begin. A text that is shorter is filled up."""
    filled = [text if len(text) >= size else text.ljust(size, "\0") for text in texts]
    points = np.frombuffer("".join(filled).encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = np.array([len(text) for text in filled])
    ends = np.cumsum(sizes)
    hashes = np.zeros(len(points) - size + 1, np.uint64)
    for offset in range(size):
        hashes = hashes * _MIX + points[offset : len(points) - size + 1 + offset]
    hashes ^= hashes >> np.uint64(29)
    hashes *= _MIX_2
    # What would reach into the next text is left out.
    whole = np.ones(len(hashes), bool)
    for back in range(1, size):
        whole[ends[:-1] - back] = False
    starts = np.r_[0, np.cumsum(sizes - size + 1)[:-1]]
    return (hashes[whole] >> np.uint64(32)).astype(np.uint32), starts


def shingles(text: str, size: int) -> frozenset[str]:
    """The different ones of a text; a short text is one, an empty text has none."""
    return frozenset(text[at : at + size] for at in range(max(len(text) - size + 1, 1))) - {""}


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared ones by all; 0 where there are none."""
    shared = len(first & second)
    return shared / max(len(first) + len(second) - shared, 1)
