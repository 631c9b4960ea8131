"""Hugging Face by its own client, `huggingface_hub`.

The client's variables hold: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE and the others. It
goes on with a file that was cut off within a call; a later call keeps the files that are whole. It compares sizes only,
so large files are compared with the hub's SHA-256 here.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub import errors as told

from weitiao.errors import first_line
from weitiao.hub.names import Repository
from weitiao.hub.package_index import sha256_of
from weitiao.hub.remote import Reason, Refused, RemoteFile, cannot_write


class HuggingFace:
    """Implements `hub.remote.Remote`."""

    def __init__(self, repository: Repository, root: Path, snapshot: Path | None) -> None:
        """root: the client's cache. snapshot: unused, as the client's cache has one layout."""
        self.repository = repository
        self.root = root
        self.endpoint = constants.ENDPOINT
        self.folder = root / f"{repository.kind}s--{repository.id.replace('/', '--')}"
        self._snapshot = self.folder / "snapshots"

    def files(self) -> list[RemoteFile]:
        repository = self.repository
        with self._refusals():
            ask = HfApi().model_info if repository.kind == "model" else HfApi().dataset_info
            info = ask(repository.id, revision=repository.revision, files_metadata=True)
        self._snapshot = self.folder / "snapshots" / str(info.sha)
        return [
            RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or []
        ]

    def bytes_here(self, file: RemoteFile) -> int:
        path = self._snapshot / file.path
        return path.stat().st_size if path.is_file() else 0

    def fetch(self, files: list[RemoteFile]) -> Path:
        new = [file for file in files if not self.bytes_here(file)]
        with self._refusals(lost="broken"):
            folder = snapshot_download(
                self.repository.id,
                repo_type=self.repository.kind,
                revision=self.repository.revision,
                cache_dir=self.root,
                allow_patterns=[glob.escape(file.path) for file in files],
            )
        for file in new:
            _compare(Path(folder) / file.path, file.sha256)
        return Path(folder)

    @contextmanager
    def _refusals(self, lost: Reason = "unreachable") -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The transport is httpx or httpx2, by the client's version; hf_xet raises RuntimeError.
            transport = type(error).__module__.partition(".")[0] in ("httpx", "httpx2")
            if not isinstance(error, OSError | RuntimeError) and not transport:
                raise
            raise Refused(_reason(error) or lost, _text(error)) from None


def _reason(error: BaseException) -> Reason | None:
    """None where the connection, or the server behind it, failed."""
    cause = error.__cause__ if isinstance(error, told.LocalEntryNotFoundError) else error
    if isinstance(cause, told.GatedRepoError):
        return "forbidden"
    if isinstance(cause, told.RevisionNotFoundError):
        return "revision"
    if isinstance(cause, told.RepositoryNotFoundError):
        return "absent"
    if isinstance(cause, told.HfHubHTTPError):
        return "forbidden" if cause.response.status_code in (401, 403) else None
    return "disk" if cannot_write(error) else None


def _text(error: BaseException) -> str:
    chain = [known for known in (error, error.__cause__) if known]
    status = next((known.response.status_code for known in chain if isinstance(known, told.HfHubHTTPError)), None)
    return f"HTTP status {status}" if status else first_line(chain[-1])


def _compare(path: Path, sha256: str | None) -> None:
    """Remove a file that has another hash, so that the next call fetches it again."""
    if sha256 and (found := sha256_of(path)) != sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise Refused("damaged", f"the sha256 of {path.name} is {found[:16]}…, the hub's is {sha256[:16]}…")
