"""Folders and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MANIFEST = "files.json"


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes `target` at the end of the block, or vanishes when the block fails."""
    draft = target.with_name(f".{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        with ThreadPoolExecutor() as pool:
            written = [pool.submit(_to_disk, path) for path in files]
            hashes = dict(zip([str(path.relative_to(draft)) for path in files], pool.map(_sha256, files), strict=True))
            for done in written:
                done.result()
        write_json(draft / MANIFEST, hashes)
        _to_disk(draft / MANIFEST)
        for path in files:  # safetensors' are for their owner alone
            path.chmod((draft / MANIFEST).stat().st_mode)
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            draft.rename(target)
            shutil.rmtree(old)
        else:
            draft.rename(target)
        _to_disk(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def damage(folder: Path, editable: Collection[str] = ()) -> str | None:
    """What is wrong with a folder that `whole_folder` wrote, or None. editable: files that may be others by now."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text("utf-8"))
        for name, wanted in hashes.items():
            if name not in editable and _sha256(folder / name) != wanted:
                return f"{name} is not what was saved"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """As far as the system can: Windows opens no folder, and syncs no file that was opened to be read."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
