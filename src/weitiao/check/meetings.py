"""Pairs of rows that meet in a band: the band hashes lie on disk, one file a band, and one band at a time in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from weitiao.check.minhash import BANDS, bands
from weitiao.check.table import Positions

MOST_ROWS = 1_000_000
"""Rows that are looked at; of more, a sample by the hash of their text."""
MOST_PAIRS = 1_000_000
"""Pairs that are compared."""


class Meetings:
    """Rows by number; `add` them, then ask for `pairs`."""

    def __init__(self, shingle: int, most: int = MOST_ROWS) -> None:
        self._shingle, self._most = shingle, most
        self._folder = TemporaryDirectory(prefix="weitiao-check-")
        self._files = [(Path(self._folder.name) / str(at)).open("wb+") for at in range(BANDS)]
        self._numbers: list[NDArray[np.int64]] = []
        self._keys: list[NDArray[np.uint64]] = []
        self._within = 0
        self.limit = 2**64 - 1
        """Largest key of the sample; it falls as rows come."""

    def add(self, numbers: Sequence[int], keys: Sequence[int], texts: Sequence[str]) -> None:
        """Rows with the keys by which a sample is drawn; equal texts have equal keys."""
        kept = [at for at, key in enumerate(keys) if key <= self.limit]
        if not kept:
            return
        found = bands([texts[at] for at in kept], self._shingle)
        for file, column in zip(self._files, found.T, strict=True):
            file.write(np.ascontiguousarray(column).tobytes())
        self._numbers.append(np.array([numbers[at] for at in kept], np.int64))
        self._keys.append(np.array([keys[at] for at in kept], np.uint64))
        self._within += len(kept)
        if self._within > self._most:
            self._narrow()

    def _narrow(self) -> None:
        keys = np.concatenate(self._keys)
        while self._within > self._most:
            self.limit //= 2
            self._within = int((keys <= self.limit).sum())

    @property
    def share(self) -> float:
        """Of all texts that are looked at."""
        return (self.limit + 1) / 2**64

    def pairs(self, wanted: Positions) -> tuple[NDArray[np.int64], int]:
        """Pairs [pairs, 2] of those of the `wanted` rows (their numbers) that meet, and how many were left out.

        Each row of a bucket is paired with its first and with the one before: chains and stars, so that a thousand
        copies give two thousand pairs.
        """
        if not self._numbers:
            return np.empty((0, 2), np.int64), 0
        numbers, keys = np.concatenate(self._numbers), np.concatenate(self._keys)
        places = np.flatnonzero(np.isin(numbers, wanted) & (keys <= self.limit))
        numbers = numbers[places]
        found = np.unique(np.concatenate([_paired(self._band(at)[places], numbers) for at in range(BANDS)]))
        left_out = max(0, len(found) - MOST_PAIRS)
        found = found[:MOST_PAIRS]
        return np.stack([found >> 32, found & 0xFFFFFFFF], axis=1), left_out

    def _band(self, at: int) -> NDArray[np.uint64]:
        self._files[at].flush()
        return np.fromfile(self._files[at].name, np.uint64)

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._folder.cleanup()


def _paired(hashes: NDArray[np.uint64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs that share a hash, each as one number: the smaller row, then the larger."""
    order = np.argsort(hashes, kind="stable")
    same = np.r_[False, hashes[order][1:] == hashes[order][:-1]]
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    behind = np.flatnonzero(same)
    one = numbers[order[np.r_[behind - 1, firsts[behind]]]]
    two = numbers[order[np.r_[behind, behind]]]
    return np.unique(np.minimum(one, two) << 32 | np.maximum(one, two))
