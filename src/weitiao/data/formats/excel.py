"""Excel workbooks (.xlsx): the first sheet, its first row the header; a row's number is the sheet's own.

Rows without any value are skipped; an empty cell is None. Formulas give the value that was saved with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weitiao.data.formats.delimited import header
from weitiao.errors import DataError

EXTENSIONS = (".xlsx",)


def read(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    names: list[str] = []
    for number, cells in _cells(path):
        if not names:
            names = header(cells, f"{path}:{number}")
            continue
        if len(cells) > len(names):
            raise DataError(
                f"{path}:{number}: {cells[-1]!r:.40} stands in column {len(cells)}, "
                f"but the header has {len(names)}; name the column or clear the cell"
            )
        missing = len(names) - len(cells)
        yield number, dict(zip(names, [*cells, *[None] * missing], strict=True))


def _cells(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """(row number, values up to the last one) of the first sheet's rows that have a value."""
    from openpyxl import load_workbook

    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
        try:
            sheet = workbook.worksheets[0]
            # Some programs write a wrong size of the sheet, at which a read-only sheet would stop.
            sheet.reset_dimensions()
            for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
                if cells := _trimmed(list(row)):
                    yield number, cells
        finally:
            workbook.close()
    # A damaged archive fails in whichever part is read first: zip, XML, styles, strings.
    except Exception as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise DataError(
            f"{path}: is damaged, has a password or is no .xlsx workbook ({reason}); save it again as .xlsx"
        ) from None


def _trimmed(cells: list[Any]) -> list[Any]:
    while cells and (cells[-1] is None or cells[-1] == ""):
        cells.pop()
    return cells
