"""ModelScope by its own client, `modelscope_hub`, which `modelscope` calls too (and which needs no torch).

The client's variables hold: MODELSCOPE_CACHE, MODELSCOPE_ENDPOINT (or MODELSCOPE_DOMAIN), MODELSCOPE_API_TOKEN and all
MODELSCOPE_DOWNLOAD_*. A file that was cut off stays as `NAME.incomplete`, and the next call goes on behind its bytes.
Files are compared with the hub's SHA-256.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelscope_hub import HubApi
from modelscope_hub import errors as told
from modelscope_hub.config import HubConfig

from weitiao.errors import first_line
from weitiao.hub.names import Repository
from weitiao.hub.remote import Reason, Refused, RemoteFile, cannot_write

REVISION = "master"
"""What the client takes where none is named."""


class ModelScope:
    """Implements `hub.remote.Remote`."""

    def __init__(self, repository: Repository, root: Path, snapshot: Path | None) -> None:
        """root: the client's cache. snapshot: a folder that has a part of the files, to be completed."""
        self.repository = repository
        self.root = root
        _hush()
        config = HubConfig()
        self._api = HubApi(config)
        self.endpoint = str(config.endpoint)
        # The layouts until 1.37 have no revisions; the client completes such a folder only where it is told to.
        self._local_dir = snapshot if snapshot and snapshot.parent.name != "snapshots" else None
        own = root / f"{repository.kind}s" / repository.id.replace("/", "--")
        self.folder = self._local_dir or own / "snapshots" / (repository.revision or REVISION)

    def files(self) -> list[RemoteFile]:
        with self._refusals():
            if "MODELSCOPE_PREFER_AI_SITE" in os.environ:
                self._choose_site()
            try:
                return self._list()
            except told.NotExistError:
                self._choose_site()
                return self._list()

    def bytes_here(self, file: RemoteFile) -> int:
        path = self.folder / file.path
        partial = path.with_name(f"{path.name}.incomplete")
        return next((p.stat().st_size for p in (path, partial) if p.is_file()), 0)

    def fetch(self, files: list[RemoteFile]) -> Path:
        with self._refusals(lost="broken"):
            return self._api.download_repo(
                self.repository.id,
                self.repository.kind,
                revision=self.repository.revision,
                cache_dir=self.root,
                local_dir=self._local_dir,
                allow_patterns=[glob.escape(file.path) for file in files],
            )

    def _choose_site(self) -> None:
        """The Chinese or the international site, whichever has it, unless the user has named an endpoint."""
        self.endpoint = self._api.resolve_endpoint_for_read(self.repository.id, repo_type=self.repository.kind)
        self._api = HubApi(HubConfig(endpoint=self.endpoint))

    def _list(self) -> list[RemoteFile]:
        repository = self.repository
        listed = self._api.list_repo_files(repository.id, repository.kind, revision=repository.revision)
        return [RemoteFile(file.path, file.size or 0, file.sha256) for file in listed if file.type != "tree"]

    @contextmanager
    def _refusals(self, lost: Reason = "unreachable") -> Iterator[None]:
        try:
            yield
        except (told.HubError, OSError) as error:
            # A download of several files tells each one's error; they are mostly the same.
            first = next(iter(getattr(error, "failed_files", {}).values()), error)
            raise Refused(self._reason(first) or lost, _text(first)) from None

    def _reason(self, error: BaseException) -> Reason | None:
        """None where the connection, or the server behind it, failed."""
        if isinstance(error, told.NotExistError | told.InvalidParameter):
            return "revision" if self.repository.revision and self._is_there() else "absent"
        if isinstance(error, told.AuthenticationError | told.PermissionDeniedError):
            return "forbidden"
        if isinstance(error, told.FileIntegrityError):
            return "damaged"
        return "disk" if cannot_write(error) else None

    def _is_there(self) -> bool:
        try:
            return self._api.repo_exists(self.repository.id, self.repository.kind)
        except (told.HubError, OSError):
            return False


def _text(error: BaseException) -> str:
    if isinstance(error, told.RequestTimeoutError):
        return "no answer in time"
    status = getattr(error, "status_code", None)
    if status:
        return f"HTTP status {status}"
    text = first_line(getattr(error, "message", None) or error)
    # A connection's error is wrapped four times; the innermost says what happened.
    inner = re.search(r"\[Errno -?\d+\] [\w ]+", text)
    # Some texts are Chinese and end with the error's kind.
    return inner[0] if inner else text.rpartition("：")[2]


def _hush() -> None:
    """Leave the client's warnings, such as a retry, and take its notices and the errors that we tell ourselves."""
    if "MODELSCOPE_LOG_LEVEL" not in os.environ:
        for handler in logging.getLogger("modelscope_hub").handlers:
            handler.addFilter(lambda record: record.levelno == logging.WARNING)
