"""A few numbers of each row: 42 bytes of memory, whatever the row's text. The texts lie in a temporary file.

Splits are drawn from it by the same code as in training (`data/shares.py`), and repeats are found in it.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.config import DataSection
from weitiao.data.shares import asked_shares, limited, shares_of
from weitiao.data.splits import NAMES

UNUSED = len(NAMES)
"""Code of a row that no split has; a split's is its place in `NAMES`."""
COLUMNS = {"key": "Q", "answer": "Q", "stratum": "I", "split": "B", "file": "I", "line": "L"}
Positions = NDArray[np.int64]


class Texts:
    """Texts by number, in a file that goes when it is closed."""

    def __init__(self) -> None:
        self._file = TemporaryFile(prefix="weitiao-check-")  # noqa: SIM115  (open as long as the table)
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def extend(self, texts: Sequence[str]) -> None:
        for raw in (text.encode("utf-8", "surrogatepass") for text in texts):
            self._file.write(raw)
            self._ends.append(self._ends[-1] + len(raw))

    def __getitem__(self, at: int) -> str:
        self._file.seek(self._ends[at])
        return self._file.read(self._ends[at + 1] - self._ends[at]).decode("utf-8", "surrogatepass")


class Table:
    def __init__(self) -> None:
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in COLUMNS.items()}
        self._files: dict[str, int] = {}
        self._strata: dict[str, int] = {}
        self.names: list[tuple[str, ...]] = []
        """Of each stratum, the labels or types that its rows name."""
        self.texts = Texts()
        self.images = False
        """Whether a row has any."""
        self.left_out: dict[tuple[str, str], Positions] = {}
        """(split that keeps, split that loses) → rows that training leaves out, as the former has the same text."""

    def __len__(self) -> int:
        return len(self._columns["key"])

    def add(
        self, key: str, answer: Hashable, stratum: str, names: tuple[str, ...], split: str, place: tuple[str, int]
    ) -> int:
        """A row; its number."""
        if stratum not in self._strata:
            self._strata[stratum] = len(self.names)
            self.names.append(tuple(dict.fromkeys(names)))
        file = self._files.setdefault(place[0], len(self._files))
        values = (digest(key), hash(answer) % 2**64, self._strata[stratum], NAMES.index(split), file, place[1])
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        return len(self) - 1

    def column(self, name: str) -> NDArray[Any]:
        """A view of a column; no row can be added while it is held."""
        return np.frombuffer(self._columns[name], dtype=self._columns[name].typecode)

    def of(self, split: str) -> Positions:
        """Numbers of a split's rows."""
        return np.flatnonzero(self.split == NAMES.index(split))

    def place(self, at: int) -> str:
        return f"{list(self._files)[self.file[at]]}:{self.line[at]}"

    def places(self, pair: Positions, sign: str) -> str:
        """Two rows, each with its label where these differ, and a sign between them."""
        one, two = pair.tolist()
        names = [", ".join(self.names[self.stratum[at]]) for at in (one, two)]
        labels = [f" [{name}]" if names[0] != names[1] else "" for name in names]
        return f"{self.place(one)}{labels[0]} {sign} {self.place(two)}{labels[1]}"

    def settle(self, data: DataSection, seed: int, refused: Sequence[int] = ()) -> None:
        """Give each row the split that it has in training. No row is added after that.

        refused: rows that training refuses; no split has them.
        """
        self.key, self.answer, self.stratum = map(self.column, ("key", "answer", "stratum"))
        self.file, self.line = self.column("file"), self.column("line")
        self.split_said: NDArray[np.uint8] = self.column("split")
        """By the files or the field of the rows, before anything is drawn."""
        self.split: NDArray[np.uint8] = self.split_said.copy()
        self.split[list(refused)] = UNUSED
        for keeps in ("test", "validation"):
            for loses in NAMES[NAMES.index(keeps) + 1 :]:
                self._leave_out(keeps, loses)
        pool = self.of("train")
        shares, held = asked_shares(data), seed if data.split_seed is None else data.split_seed
        drawn = shares_of(self.key[pool].tolist(), self.stratum[pool].tolist(), shares, held) if shares else {}
        for name, positions in drawn.items():
            self.split[pool[sorted(positions)]] = NAMES.index(name)
        for name in NAMES:
            self._limit(name, getattr(data, f"{name}_rows"), seed if name == "train" else held)

    def _leave_out(self, keeps: str, loses: str) -> None:
        rows = self.of(loses)
        shared = rows[np.isin(self.key[rows], self.key[self.of(keeps)])]
        if len(shared):
            self.left_out[keeps, loses] = shared
            self.split[shared] = UNUSED

    def _limit(self, name: str, most: int | None, seed: int) -> None:
        rows = self.of(name)
        if most is not None and len(rows) > most:
            self.split[rows] = UNUSED
            self.split[rows[limited(self.stratum[rows].tolist(), most, f"{seed} {name}")]] = NAMES.index(name)


def digest(key: str) -> int:
    """The same in every process: a sample is drawn by it."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
