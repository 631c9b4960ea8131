"""A folder of images. Not a format of files itself: `data/source.py` asks for it where a folder is named.

    photos/metadata.jsonl   {"file_name": "1.jpg", "caption": "A dog."}    its rows, with `file_name` as `image`; also
                                                                           metadata.csv (Hugging Face's imagefolder)
    photos/cat/1.jpg        {"image": "cat/1.jpg", "label": "cat"}         folders are classes, at any depth below them
    photos/1.jpg            {"image": "1.jpg"}                             images alone, to be predicted

Images are what ends as one (`images.EXTENSIONS`); they come in the order of their paths. Other files, and hidden ones,
are left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weitiao.data.formats import formats
from weitiao.errors import DataError
from weitiao.images import EXTENSIONS as IMAGES
from weitiao.images import allowed_path, image_facts

METADATA = ("metadata.jsonl", "metadata.csv")
SPLITS = frozenset(("train", "test", "validation", "valid", "val", "dev", "eval"))
"""Names of folders that are no classes where all are called so."""


def is_image_folder(folder: Path) -> bool:
    return bool(_metadata(folder)) or next(_images(folder), None) is not None


def read(folder: Path, encoding: str) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """(file, line, fields) of each row, images relative to `folder`. A row without metadata is at its image's line 1.

    Raises DataError for two files of metadata, for images of which some are in folders, and for split folders.
    """
    found = _metadata(folder)
    if len(found) > 1:
        raise DataError(f"{folder}: holds {' and '.join(path.name for path in found)}; remove one of them")
    if found:
        for line, fields in formats()[found[0].suffix].read(found[0], encoding):
            yield found[0], line, _with_image(fields, f"{found[0]}:{line}")
        return
    names = sorted(_images(folder))
    classes = _classes(folder, names)
    for name in names:
        label = {"label": name.partition("/")[0]} if classes else {}
        yield folder / name, 1, {"image": name, **label}


def digest(folder: Path, encoding: str) -> str:
    """SHA-256 of what `load` reads there: the paths of the rows' images, their content, and the metadata."""
    whole = hashlib.sha256()
    for path in _metadata(folder):
        whole.update(path.read_bytes())
    names = {fields["image"] for _, _, fields in read(folder, encoding) if isinstance(fields["image"], str)}
    for name in sorted(names):
        content = image_facts(allowed_path(name, str(folder))).digest
        whole.update(f"{name}\0{content}\n".encode())
    return whole.hexdigest()


def _metadata(folder: Path) -> list[Path]:
    return [folder / name for name in METADATA if (folder / name).is_file()]


def _with_image(fields: dict[str, Any], place: str) -> dict[str, Any]:
    if "file_name" not in fields:
        raise DataError(f"{place}: no 'file_name'; wanted the path of the row's image, found {', '.join(fields)}")
    others = {name: value for name, value in fields.items() if name not in ("file_name", "image")}
    return {"image": fields["file_name"], **others}


def _images(folder: Path) -> Iterator[str]:
    """Paths relative to `folder`, with `/`; OSError when a folder in it cannot be read."""
    for place, inside, files in os.walk(folder, onerror=_raise):
        inside[:] = [name for name in inside if not name.startswith(".")]
        for name in inside:
            # Followed, it might lead round in a circle; left out, a class would be missing without a word.
            if os.path.islink(path := os.path.join(place, name)):
                raise DataError(f"{path}: is a link to a folder; put the folder itself there")
        for name in files:
            if name.lower().endswith(IMAGES) and not name.startswith("."):
                yield _as_text((Path(place) / name).relative_to(folder))


def _raise(error: OSError) -> None:
    raise error


def _as_text(path: Path) -> str:
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{name!r}: the name of this image is not UTF-8; rename it") from None
    if ";" in name:
        raise DataError(f"{name!r}: the name of this image holds `;`, which parts a row's images; rename it")
    return name


def _classes(folder: Path, names: list[str]) -> bool:
    """Whether the images are in folders; DataError when only some are, or when the folders are splits."""
    inside = [name for name in names if "/" in name]
    beside = [name for name in names if "/" not in name]
    if inside and beside:
        raise DataError(
            f"{folder}: holds images ({beside[0]}) beside folders of them ({inside[0]}); wanted a folder for each "
            "class, or images alone: move some"
        )
    found = sorted({name.partition("/")[0] for name in inside})
    if found and SPLITS.issuperset(name.lower() for name in found):
        raise DataError(
            f"{folder}: its folders are splits, not classes ({', '.join(found)}); name each, such as "
            f"data.train={folder / found[0]}"
        )
    return bool(inside)
