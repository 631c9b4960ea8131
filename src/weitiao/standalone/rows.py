"""Rows in and answers out: a .csv comes and goes as a table, all else as a JSON object or a text a line."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from text import SETTINGS

KINDS = (".jsonl", ".txt", ".csv")
LONGEST_CELL = 1 << 24


def is_table(source):
    return Path(source).suffix.lower() == ".csv"


def rows_of(source):
    """(place, row) of each row."""
    name = "standard input" if source == "-" else source
    if source != "-" and Path(source).suffix.lower() not in KINDS:
        sys.exit(f"{source}: wanted {', '.join(KINDS)}, or - for standard input")
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{name}: cannot be read as UTF-8 text ({error}); save it as UTF-8")
    return _table(name, text) if is_table(source) else _lines(name, text)


def _lines(name, text):
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                bare = {SETTINGS["bare_field"]: line.rstrip("\r")}
                yield f"{name}:{number}", json.loads(line) if line.lstrip().startswith("{") else bare
            except ValueError as error:
                sys.exit(f"{name}:{number}: not JSON ({error})")


def _table(name, text):
    """The first row names the columns; commas part the cells."""
    csv.field_size_limit(LONGEST_CELL)
    reader, line = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    header: list[str] = []
    try:
        for cells in reader:
            place, line = f"{name}:{line}", reader.line_num + 1
            if len(cells) < 2 and not "".join(cells).strip():
                continue
            if header and len(cells) != len(header):
                sys.exit(f"{place}: {len(cells)} cells, but the header has {len(header)}; quote a cell with a comma")
            if header:
                yield place, dict(zip(header, cells, strict=True))
            header = header or [cell.strip() for cell in cells]
    except csv.Error as error:
        sys.exit(f"{name}:{line}: quotes do not match in the row that starts here ({error})")


def show(records, table):
    """Print answers as they come. A table begins with UTF-8's mark, by which Excel knows it."""
    out: Any = sys.stdout
    if table:
        out.reconfigure(encoding="utf-8-sig", newline="")
    writer = csv.writer(out)
    for number, record in enumerate(records):
        if table:
            if not number:
                writer.writerow(record)
            writer.writerow(map(_cell, record.values()))
        else:
            print(json.dumps(record, ensure_ascii=False))
        out.flush()


def _cell(value):
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
