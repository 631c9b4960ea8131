"""Data files as rows. What a user can do to a file ends in a `DataError` of one line that starts with its place:

    train.jsonl:17: broken JSON at column 9, near '"text" "很好"' (Expecting ':' delimiter); correct or remove it

Formats are in `formats/`, which says how to add one. A folder of images is read as a file of rows, one for each image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weitiao.config import DataSection, nearest
from weitiao.data.formats import Format, formats, image_folder
from weitiao.errors import DataError
from weitiao.hub.cache import hub_file
from weitiao.hub.names import data_name, names_hub
from weitiao.images import image_root
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
        for source, line, fields in _records(file, data.encoding):
            row = Row(fields, str(source), line, data.columns, root)
            yield row
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    if row is None:
        raise DataError(f"{file}: holds no rows; wanted at least one")


def data_file(path: str | Path) -> Path:
    """Path of a file that exists and is not empty, or of a folder of images; DataError otherwise, with the likely name.

    What is no file here but names one on a hub (`hub/names.py`) is that file, downloaded once.
    """
    file = Path(path).expanduser()
    try:
        if names_hub(str(path)) and not file.exists():
            name = Path(path).as_posix()
            _format_of(Path(data_name(name)[1]))
            file = hub_file(name)
        if file.is_dir():
            _refuse_other_folders(file)
        if not file.exists():
            raise _missing(file)
        if file.is_file() and not file.stat().st_size:
            raise DataError(f"{file}: is empty; wanted at least one row")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    return file


def _records(file: Path, encoding: str) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """(file, line, fields) of each row."""
    if file.is_dir():
        yield from image_folder.read(file, encoding)
        return
    for line, fields in _format_of(file).read(file, encoding):
        yield file, line, fields


def _refuse_other_folders(folder: Path) -> None:
    """DataError for a folder whose images are not its rows: none are there, or data files tell of them."""
    names = _names_in(folder)
    if names and not any(name in names for name in image_folder.METADATA):
        raise DataError(f"{folder}: is a folder; name a file in it ({_listed(names)})")
    if not image_folder.is_image_folder(folder):
        raise DataError(
            f"{folder}: is a folder; name a file in it (it has none), or a folder of images, of classes with images, "
            "or with a metadata.jsonl"
        )


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


def _names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in formats())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
