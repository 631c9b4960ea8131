"""Parquet, read in batches; a row's number is that of its record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weitiao.errors import DataError

EXTENSIONS = (".parquet",)
BATCH_ROWS = 1024


def read(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _refuse_repeated(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield number, fields
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: is damaged or no Parquet file ({reason}); write it again") from None


def _refuse_repeated(names: list[str], path: Path) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: column {twice!r} is there twice; rename or remove one")
