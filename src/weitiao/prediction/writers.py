"""Answered rows, one JSON object a line, → the file that the user asked for. Two passes, a few rows in memory.

.jsonl     the lines themselves
.csv       a column for each key of any row, in the order in which they appear; a list or an object is JSON. Our
           probabilities have six digits. It begins with UTF-8's mark, without which Excel reads Chinese as another
           encoding
.parquet   the same columns. The input's own keep their types where the input is Parquet too. Of any other, the values
           that are not null decide: all whole numbers, all numbers, all booleans, else text, where what is no text is
           JSON (lists, objects, mixed values, whole numbers beyond 64 bits).

To add one: a function (draft, target, source) in `WRITERS`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from weitiao.errors import DataError

ROW_GROUP = 8192
"""Rows of a Parquet row group, and those in memory at once."""
ANSWERS = ("prediction", "suggestion", "probability", "reference")
"""Keys that a record has besides the row's own (`evaluate.prediction_record`)."""
DIGITS = 6
"""Significant ones, of a probability in a .csv."""
EXACT = 2**53
"""Whole numbers up to this one are the same as 64-bit floats."""
Columns = dict[str, set[str]]
"""Name → kinds of its values."""


def write(draft: Path, output: Path, source: Path | None) -> None:
    """`output` whole, of the kind that its extension says, from the records of `draft`, which is then removed.

    source: the Parquet file that the rows are from, if they are. Raises DataError when it has changed since.
    """
    writer = WRITERS[output.suffix.lower()]
    if writer is None:
        draft.replace(output)
        return
    target = output.with_name(f".{output.name}.whole")
    try:
        writer(draft, target, source)
        with target.open("rb") as file:
            os.fsync(file.fileno())  # the draft goes next
        target.replace(output)
    finally:
        target.unlink(missing_ok=True)
    draft.unlink()


def _csv(draft: Path, target: Path, source: Path | None) -> None:
    with target.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(_columns(draft)))
        writer.writeheader()
        for record in _records(draft):
            told = {name: _short(name, value) if name in (*ANSWERS, "top") else value for name, value in record.items()}
            writer.writerow({name: _cell(value) for name, value in told.items()})


def _parquet(draft: Path, target: Path, source: Path | None) -> None:
    import pyarrow.parquet as pq

    columns = _columns(draft)
    if source is None:
        _write_tables(draft, target, columns)
        return
    with pq.ParquetFile(source) as file:
        _write_beside(draft, target, columns, file, source)


def _write_tables(draft: Path, target: Path, columns: Columns) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _type(kinds)) for name, kinds in columns.items()])
    records = _records(draft)
    with pq.ParquetWriter(target, schema) as writer:
        while block := list(islice(records, ROW_GROUP)):
            writer.write_table(pa.Table.from_arrays([_array(block, field) for field in schema], schema=schema))


def _write_beside(draft: Path, target: Path, columns: Columns, file: Any, source: Path) -> None:
    """The columns of an input file as they are, with those of the answers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    given = file.schema_arrow
    own = {name for name in given.names if name not in ANSWERS}
    # Metadata of the whole (pandas, datasets) tell of columns that the output no longer has alone.
    schema = pa.schema([given.field(n) if n in own else pa.field(n, _type(kinds)) for n, kinds in columns.items()])
    records = _records(draft)
    with pq.ParquetWriter(target, schema) as writer:
        for batch in file.iter_batches(batch_size=ROW_GROUP):
            block = list(islice(records, batch.num_rows))
            if len(block) < batch.num_rows:
                raise DataError(f"{source}: has changed since its rows were answered; call predict again")
            arrays = [batch.column(f.name) if f.name in own else _array(block, f) for f in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _records(draft: Path) -> Iterator[dict[str, Any]]:
    with draft.open("rb") as file:
        yield from map(json.loads, file)


def _columns(draft: Path) -> Columns:
    found: Columns = {}
    for record in _records(draft):
        for name, value in record.items():
            kinds = found.setdefault(name, set())
            if value is not None:
                kinds.add(_kind(value))
    return found


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "exact" if abs(value) <= EXACT else "long" if -(2**63) <= value < 2**63 else "other"
    return type(value).__name__ if isinstance(value, bool | float | str) else "other"


def _type(kinds: set[str]) -> Any:
    import pyarrow as pa

    if kinds and kinds <= {"exact", "long"}:
        return pa.int64()
    if kinds and kinds <= {"exact", "float"}:
        return pa.float64()
    return pa.bool_() if kinds == {"bool"} else pa.string()


def _array(records: list[dict[str, Any]], field: Any) -> Any:
    import pyarrow as pa

    values = [record.get(field.name) for record in records]
    if pa.types.is_string(field.type):
        values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pa.array(values, field.type)


def _short(name: str, value: Any) -> Any:
    """With as many digits of each probability as a person reads."""
    if isinstance(value, list):
        return [_short(name, item) for item in value]
    if isinstance(value, dict):
        return {key: _short(key, item) for key, item in value.items()}
    return float(f"{value:.{DIGITS}g}") if name == "probability" and isinstance(value, float) else value


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


WRITERS: dict[str, Callable[[Path, Path, Path | None], None] | None] = {
    ".jsonl": None,  # the draft is one
    ".csv": _csv,
    ".parquet": _parquet,
}
