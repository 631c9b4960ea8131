"""Data files as rows. What a user can do to a file ends in a `DataError` of one line that starts with its place:

    train.jsonl:17: broken JSON at column 9, near '"text" "很好"' (Expecting ':' delimiter); correct or remove it

Formats are in `formats/`, which says how to add one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from weitiao.config import DataSection, nearest
from weitiao.data.formats import Format, formats
from weitiao.errors import DataError
from weitiao.hub.cache import hub_file
from weitiao.hub.names import data_name, names_hub
from weitiao.types import Row


def read_rows(path: str | Path, data: DataSection) -> list[Row]:
    """All rows of a data file, in its order; at least one."""
    return list(iter_rows(path, data))


def iter_rows(path: str | Path, data: DataSection) -> Iterator[Row]:
    """Rows of a data file as they are read; DataError when there are none or the file cannot be used."""
    file = data_file(path)
    root = image_root(file, data)
    row = None
    try:
        for line, fields in _format_of(file).read(file, data.encoding):
            row = Row(fields, str(file), line, data.columns, root)
            yield row
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    if row is None:
        raise DataError(f"{file}: holds no rows; wanted at least one")


def image_root(file: Path, data: DataSection) -> str:
    """Folder below which the images of a data file must lie."""
    return data.images or str(file.parent)


def data_file(path: str | Path) -> Path:
    """The path of a file that exists and is not empty; DataError otherwise, with the name that was likely meant.

    What is no file here but names one on a hub (`hub/names.py`) is that file, downloaded once.
    """
    file = Path(path).expanduser()
    try:
        if names_hub(str(path)) and not file.exists():
            name = Path(path).as_posix()
            _format_of(Path(data_name(name)[1]))
            file = hub_file(name)
        if file.is_dir():
            raise DataError(f"{file}: is a folder; name a file in it ({_names_in(file) or 'it has none'})")
        if not file.exists():
            raise _missing(file)
        if file.is_file() and not file.stat().st_size:
            raise DataError(f"{file}: is empty; wanted at least one row")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    return file


def _format_of(file: Path) -> Format:
    known = formats()
    extension = file.suffix.lower()
    if extension not in known:
        came = f"extension {extension!r} is not known" if extension else "has no extension"
        raise DataError(f"{file}: {came}; wanted {', '.join(sorted(known))}")
    return known[extension]


def _missing(file: Path) -> DataError:
    folder = file.parent
    if not folder.is_dir():
        return DataError(f"{file}: no such file, nor a folder {str(folder)!r}; check the path")
    hint = nearest(file.name, (entry.name for entry in folder.iterdir() if entry.is_file()))
    return DataError(
        f"{file}: no such file; " + (f"did you mean {str(folder / hint)!r}?" if hint else "check the path")
    )


def _names_in(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in formats())
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
