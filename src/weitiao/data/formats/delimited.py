"""CSV and TSV with a header row. Cells with the separator, a quote or a line break stand in double quotes.

text,label
"续航两天,很满意",好评

Commas part the cells of .csv, tabs those of .tsv; a file whose first rows only fit another of `SEPARATORS` is read by
that one: spreadsheets write semicolons where the comma is the decimal mark. A header without any of them names the one
column that there is, whose cells may hold all but the mark that the spreadsheet would have quoted.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from weitiao.data.formats.text_file import lines
from weitiao.errors import DataError

EXTENSIONS = (".csv", ".tsv")
SEPARATORS = {".csv": (",", ";", "\t"), ".tsv": ("\t", ",", ";")}
"""Extension → what may part its cells, the usual one first."""
SAMPLED = 50
"""Rows that tell the separator."""
LONGEST_CELL = 1 << 24
"""Characters; long documents fit, and a quote that is never closed does not take in a whole file."""


def read(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = _cells(path, encoding, separator(path, encoding))
    line, first = next(rows, (0, []))
    if not first:
        return
    names = header(first, f"{path}:{line}")
    for line, cells in rows:
        if len(cells) != len(names):
            raise DataError(
                f"{path}:{line}: {len(cells)} cells, but the header has {len(names)}; "
                "put a cell that holds the separator in double quotes"
            )
        yield line, dict(zip(names, cells, strict=True))


def separator(path: Path, encoding: str) -> str:
    """What parts the cells: the first that the header and the rows behind it agree on, else that the header has. Of one
    column, the first that parts no cell of it."""
    known = SEPARATORS[path.suffix.lower()]
    in_header = []
    for mark in known:
        widths = _widths(path, encoding, mark, SAMPLED)
        if widths[:1] > [1]:
            in_header.append(mark)
            if len(set(widths)) == 1:
                return mark
    if in_header:
        return in_header[0]
    return next((mark for mark in known if set(_widths(path, encoding, mark, None)) == {1}), known[0])


def header(cells: Sequence[Any], place: str) -> list[str]:
    """Names of the columns; DataError when one is missing or there twice.

    The first may be empty: pandas writes its index so.
    """
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    if not any(names):
        raise DataError(f"{place}: no header; wanted the names of the columns in the first row")
    if "" in names[1:]:
        raise DataError(f"{place}: the header has no name for column {names.index('', 1) + 1}; name it or remove it")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{place}: column {twice!r} is in the header twice; rename or remove one")
    return names


def _widths(path: Path, encoding: str, mark: str, rows: int | None) -> list[int]:
    """How many cells each of the first rows has, or each of all; -1 where quotes do not match."""
    found: list[int] = []
    try:
        for _, cells in islice(_cells(path, encoding, mark), rows):
            found.append(len(cells))
    except DataError:
        found.append(-1)
    return found


def _cells(path: Path, encoding: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line on which it starts."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    text = (line for _, line in lines(path, encoding, newline=""))
    reader = csv.reader(text, delimiter=mark, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}:{start}: quotes do not match in the row that starts here ({error}); "
                "write a quote inside a quoted cell twice"
            ) from None
        if cells is None:
            return
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield start, cells
