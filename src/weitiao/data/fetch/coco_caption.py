"""COCO 2014 captions, as the tutorial takes them: the first rows of the training split, an image and a caption each.

    coco_2014_caption/<image_id>.jpg       the photographs, as the source has them
    coco-2024-dataset.csv                  image_path,caption
    data_vl.json                           the same as conversations, "COCO Yes: " and the image by the user

Paths are relative to the folder. An image with several captions has several rows and one file.

ModelScope's repository holds no data but a script for the library `datasets`, which names a zipped table of captions
and of the images' addresses. `MsDataset.load` would run that script (`trust_remote_code=True`, and only beside older
versions of `datasets`). Here it is read and not run: the table is downloaded whole, for all rows, then the images of
the rows that are taken, one by one; 500 of them are about 80 MB. Neither states a hash; an image must be one that can
be read. Both are kept in the cache, so that a download that broke off goes on.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from weitiao.errors import DataError, first_line
from weitiao.hub.cache import hub_file
from weitiao.images import MOST_BYTES, image_facts
from weitiao.tracking.screen import Screen

if TYPE_CHECKING:
    from weitiao.hub.index_client import IndexClient

NOTICE = """\
The first rows of COCO 2014 Captions' training split: photographs, each with a sentence that a person wrote about it.

Fetched by `weitiao data fetch coco-caption` from the places that the ModelScope data set modelscope/coco_2014_caption
(https://modelscope.cn/datasets/modelscope/coco_2014_caption) names; captions and images are unchanged.

The captions are the COCO Consortium's (https://cocodataset.org), under the Creative Commons Attribution 4.0 License;
Lin et al. (2014), Microsoft COCO: Common Objects in Context. The consortium does not own the copyright of the images:
they come from Flickr, and their use must abide by the Flickr Terms of Use. Do not redistribute them.
"""

SOURCE = "modelscope:modelscope/coco_2014_caption/coco_2014_caption.py"
LIMIT = 500
"""Rows, as in the tutorial."""
IMAGES = "coco_2014_caption"
QUESTION = "COCO Yes: <|vision_start|>{}<|vision_end|>"
TABLE = re.compile(r"""["']train["']\s*:\s*["'](https?://[^"']+\.zip)["']""")
"""Where the script says the address of the training split's table."""
COLUMNS = {"image_id": r"[\w-]+", "image": r"https?://\S+", "caption": r"(?s:.+)"}
"""Of the table, and what is in them: a name and an address that cannot lead elsewhere on this disk."""


def build(root: Path, limit: int) -> dict[str, str | Path]:
    """The first `limit` rows; what is downloaded is kept in `root`/coco-caption."""
    from filelock import FileLock

    from weitiao.hub.index_client import IndexClient
    from weitiao.hub.pip_settings import read_settings

    cache = root / "coco-caption"
    address = _table_address(hub_file(SOURCE))
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"), IndexClient(address, read_settings()) as client:
        Screen().note(f"captions from {address}, then the images of {limit} rows")
        table = _downloaded(client, address, cache / address.rpartition("/")[2])
        rows = _rows(table, limit)
        images = _images(client, rows, cache / IMAGES)
    return {**images, "coco-2024-dataset.csv": _csv(rows), "data_vl.json": _conversations(rows)}


def _table_address(script: Path) -> str:
    match = TABLE.search(script.read_text("utf-8", "replace"))
    if match is None:
        raise DataError(f"{script}: names no table of the training split as it used to; update weitiao")
    return match[1]


def _rows(table: Path, limit: int) -> list[dict[str, str]]:
    """The first rows of the only file of an archive; DataError when it is no table of captions."""
    try:
        with zipfile.ZipFile(table) as archive, archive.open(archive.namelist()[0]) as raw:
            rows = list(islice(csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig", newline="")), limit))
    except (zipfile.BadZipFile, EOFError, IndexError, UnicodeError, csv.Error) as error:
        table.unlink()
        raise DataError(f"{table}: is damaged ({first_line(error)}) and was removed; fetch again") from None
    for number, row in enumerate(rows, 1):
        if not all(row.get(column) and re.fullmatch(wanted, row[column]) for column, wanted in COLUMNS.items()):
            raise DataError(f"{table}: its row {number} is {row!r:.80}; wanted {', '.join(COLUMNS)}: update weitiao")
    return rows


def _images(client: IndexClient, rows: Sequence[Mapping[str, str]], cache: Path) -> dict[str, Path]:
    """Files to write → where they are in the cache."""
    addresses = {_image_path(row): row["image"] for row in rows}
    found = {}
    with Screen().bar("images", len(addresses), "images") as advance:
        for name, address in addresses.items():
            found[name] = _downloaded(client, address, cache / Path(name).name, MOST_BYTES)
            advance()
    return found


def _downloaded(client: IndexClient, address: str, target: Path, most: int | None = None) -> Path:
    """`target` with what is at `address`, unless it is there; with `most` bytes, it must be an image."""
    import httpx

    def limit(done: int, whole: int | None) -> None:
        if most and max(done, whole or 0) > most:
            raise DataError(f"{max(done, whole or 0):,} bytes; wanted an image of at most {most:,}")

    if target.is_file():
        return target
    if os.environ.get("WEITIAO_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise DataError(f"no {target} on this disk, and WEITIAO_OFFLINE is set; unset it to fetch {address}")
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download(address, part, limit)
        if most:
            image_facts(str(part))
    except DataError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"cannot fetch {address}: {error}") from None
    except httpx.HTTPStatusError as error:
        raise DataError(f"cannot fetch {address}: HTTP status {error.response.status_code}; try again later") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise DataError(f"cannot fetch {address}: {first_line(error)}; the same command goes on with it") from None
    part.replace(target)
    return target


def _image_path(row: Mapping[str, str]) -> str:
    return f"{IMAGES}/{row['image_id']}.jpg"


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_path", "caption"])
    writer.writerows([_image_path(row), row["caption"]] for row in rows)
    return text.getvalue()


def _conversations(rows: Sequence[Mapping[str, str]]) -> str:
    return json.dumps(list(_conversation(rows)), ensure_ascii=False, indent=2) + "\n"


def _conversation(rows: Sequence[Mapping[str, str]]) -> Iterator[dict[str, object]]:
    for number, row in enumerate(rows, 1):
        yield {
            "id": f"identity_{number}",
            "conversations": [
                {"from": "user", "value": QUESTION.format(_image_path(row))},
                {"from": "assistant", "value": row["caption"]},
            ],
        }
