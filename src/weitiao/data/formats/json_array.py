"""JSON: one array of objects. One object after another, as in .jsonl, is read too.

[
  {"text": "续航两天，很满意", "label": "好评"},
  {"text": "屏幕有划痕", "label": "差评"}
]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from weitiao.data.formats.jsonl import DECODER, as_fields, explain
from weitiao.data.formats.text_file import BLOCK, nul_error, opened
from weitiao.errors import DataError

EXTENSIONS = (".json",)
SPACE = re.compile(r"[ \t\r\n]*")
LONGEST_TOKEN = 16
"""Characters; a literal or escape cut by the end of a block is reported at its start, no further back than this."""


def read(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with opened(path, encoding) as text:
        cursor = _Cursor(path, text)
        yield from _array(cursor) if cursor.peek() == "[" else _sequence(cursor)


def _array(cursor: _Cursor) -> Iterator[tuple[int, dict[str, Any]]]:
    cursor.skip()
    more = cursor.peek() != "]"
    while more:
        yield cursor.record()
        mark = cursor.peek()
        if mark not in (",", "]"):
            raise cursor.error("wanted `,` or `]` after an object of the array")
        if more := mark == ",":
            cursor.skip()
    cursor.skip()
    if cursor.peek():
        raise cursor.error("wanted nothing after the array's end")


def _sequence(cursor: _Cursor) -> Iterator[tuple[int, dict[str, Any]]]:
    while cursor.peek():
        yield cursor.record()


class _Cursor:
    """A place in the file, with only the text from there to the end of the block in memory."""

    def __init__(self, path: Path, text: TextIO) -> None:
        self.path = path
        self.text = text
        self.block = ""
        self.at = 0
        self.line = 1
        self.column = 1

    def peek(self) -> str:
        """The next character that is not white space, which becomes the place; empty at the end of the file."""
        while True:
            end = SPACE.match(self.block, self.at).end()  # type: ignore[union-attr]
            self.skip(end - self.at)
            if self.at < len(self.block) or not self._grow():
                return self.block[self.at : self.at + 1]

    def skip(self, count: int = 1) -> None:
        end = self.at + count
        breaks = self.block.count("\n", self.at, end)
        self.line += breaks
        self.column = end - self.block.rfind("\n", self.at, end) if breaks else self.column + count
        self.at = end

    def record(self) -> tuple[int, dict[str, Any]]:
        """(line, fields) of the object that starts here; DataError when none does."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.block, self.at)
                break
            except (ValueError, RecursionError) as error:
                if not (self._may_be_cut(error) and self._grow()):
                    raise self._broken(error) from None
        line = self.line
        fields = as_fields(value, self.block[self.at : end], f"{self.path}:{line}")
        self.skip(end - self.at)
        return line, fields

    def error(self, message: str) -> DataError:
        near = self.block[self.at : self.at + 20]
        return DataError(f"{self.path}:{self.line}: {message}, found {near or 'the end of the file'!r}")

    def _grow(self) -> bool:
        # Twice the text each time: a long record is then parsed again few times.
        rest = self.block[self.at :]
        block = self.text.read(max(BLOCK, len(rest)))
        if not block:
            return False
        self.block, self.at = rest + block, 0
        if "\0" in block:
            self.skip(self.block.index("\0"))
            raise nul_error(f"{self.path}:{self.line}")
        return True

    def _may_be_cut(self, error: Exception) -> bool:
        """Whether more text could mend the error."""
        if not isinstance(error, JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos + LONGEST_TOKEN > len(self.block)

    def _broken(self, error: Exception) -> DataError:
        position = error.pos if isinstance(error, JSONDecodeError) else self.at
        block = self.block
        self.skip(position - self.at)
        return DataError(f"{self.path}:{self.line}: {explain(error, block, position, self.column)}")
