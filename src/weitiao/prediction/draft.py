"""Where answered rows stay until all rows are answered, so that a killed command loses no more than a block of them.

.answers.csv.partial        the answered rows as JSON lines, whatever the output is to be: only such a file can be
                            appended to, and cut back to its last whole block
.answers.csv.partial.json   {"belongs": {"adapter": …}, "rows": 2048, "bytes": 91023, "withheld": 3, "input": "5f1c…"}

A block is on the disk before the journal tells of it. `input` is a hash of the rows that are answered, so a file whose
later rows were corrected, or that has grown, is gone on with.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from weitiao.prediction.writers import write
from weitiao.run_folder import write_json
from weitiao.tasks.base import Example

Records = Sequence[Mapping[str, Any]]


class Printed:
    """JSON lines on standard output; nothing is kept of them."""

    resumable = False

    def __init__(self) -> None:
        self.rows = self.withheld = 0

    def check(self, examples: Iterable[Example]) -> int:
        """Number of rows, of which each is one that can be answered."""
        return sum(1 for _ in examples)

    def open(self) -> None:
        """Nothing to do."""

    def add(self, examples: Sequence[Example], records: Records, withheld: int) -> None:
        sys.stdout.write(_lines(records, escaped=not can_write_all(sys.stdout.encoding)))
        sys.stdout.flush()
        self.rows += len(records)
        self.withheld += withheld

    def finish(self, source: Path | None) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Draft:
    def __init__(self, output: Path, belongs: Mapping[str, Any] | None) -> None:
        """belongs: all but the rows that decides the answers; None where the rows cannot be read again, so that
        nothing is kept."""
        self.output, self.belongs = output, belongs
        self.path = output.with_name(f".{output.name}.partial")
        self.journal = output.with_name(f".{output.name}.partial.json")
        self.rows = self.withheld = self.bytes = 0
        self.given_up = False
        """Whether what was kept belongs to something else."""
        self._digest = hashlib.sha256()
        self._file: IO[bytes] | None = None

    @property
    def resumable(self) -> bool:
        return self.belongs is not None

    def check(self, examples: Iterable[Example]) -> int:
        """Number of rows, of which each is one that can be answered; takes up what was kept of the first ones."""
        kept = self._kept()
        self.given_up = kept is not None
        digest, count = hashlib.sha256(), 0
        for count, example in enumerate(examples, 1):
            digest.update(_identity(example))
            if kept and count == kept["rows"] and digest.hexdigest() == kept["input"]:
                self.rows, self.bytes, self.withheld = kept["rows"], kept["bytes"], kept["withheld"]
                self._digest, self.given_up = digest.copy(), False
        return count

    def open(self) -> None:
        if not self.rows:
            # A journal must never tell of a draft that is not its own.
            self.journal.unlink(missing_ok=True)
        self._file = self.path.open("r+b" if self.rows else "wb")
        self._file.truncate(self.bytes)
        self._file.seek(self.bytes)

    def add(self, examples: Sequence[Example], records: Records, withheld: int) -> None:
        """Keep the answered rows of a block."""
        assert self._file is not None
        written = self._file.write(_lines(records).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows, self.bytes, self.withheld = self.rows + len(records), self.bytes + written, self.withheld + withheld
        for example in examples:
            self._digest.update(_identity(example))
        if self.resumable:
            write_json(self.journal, self._told())

    def finish(self, source: Path | None) -> None:
        """The output, whole. source: the Parquet file that the rows are from."""
        assert self._file is not None
        self._file.close()
        write(self.path, self.output, source)
        self.journal.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if not self.resumable:
            self.path.unlink(missing_ok=True)

    def _told(self) -> dict[str, Any]:
        counts = {"rows": self.rows, "bytes": self.bytes, "withheld": self.withheld}
        return {"belongs": self.belongs, **counts, "input": self._digest.hexdigest()}

    def _kept(self) -> dict[str, Any] | None:
        """What the journal tells; `rows` is 0 where that is of no use here. None without a readable one."""
        try:
            told = json.loads(self.journal.read_text("utf-8"))
            usable = told["belongs"] == self.belongs and self.path.stat().st_size >= told["bytes"]
            return {**{name: told[name] for name in self._told()}, "rows": told["rows"] if usable else 0}
        except (OSError, ValueError, KeyError, TypeError):
            return None


def can_write_all(encoding: str | None) -> bool:
    """Whether a stream of that encoding has every character; a pipe on Windows may have no Chinese at all."""
    return (encoding or "utf-8").lower().replace("-", "").startswith("utf")


def _lines(records: Records, escaped: bool = False) -> str:
    return "".join(json.dumps(record, ensure_ascii=escaped, default=str) + "\n" for record in records)


def _identity(example: Example) -> bytes:
    """What an answer is of: the row's fields, and its images by path, size and time."""
    states = [(path, os.stat(path)) for path in example.images]
    images = [(path, state.st_size, state.st_mtime_ns) for path, state in states]
    return json.dumps([dict(example.row.fields), images], default=str).encode() + b"\n"
