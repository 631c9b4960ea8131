"""What a hub's client is asked for, in the same words for every hub, and the ways in which a hub says no."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Reason = Literal["absent", "revision", "file", "forbidden", "unreachable", "broken", "damaged", "disk"]
"""No such repository, revision or file · gated · no answer, or not to its end · wrong content · this disk."""

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class Refused(Exception):
    """A hub did not give what was asked for; the text is its own, on one line."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str
    size: int
    """Bytes; 0 where the hub does not say."""
    sha256: str | None
    """None where the hub does not say, as for small files on Hugging Face."""


class Remote(Protocol):
    """One repository at one revision, as its hub's own client sees it. Every method but `bytes_here` asks the hub."""

    endpoint: str
    """URL of the hub."""
    folder: Path
    """Where the client writes; what lies below it grows while it downloads."""

    def files(self) -> list[RemoteFile]:
        """All files of the repository. Raises Refused."""

    def bytes_here(self, file: RemoteFile) -> int:
        """How much of `file` need not be fetched again. Call after `files`."""

    def fetch(self, files: list[RemoteFile]) -> Path:
        """Folder that holds `files`, whole and checked. Call after `files`. Raises Refused."""


def cannot_write(error: BaseException) -> bool:
    """Whether it is this disk that failed, not the network."""
    return isinstance(error, OSError) and error.errno in _CANNOT_WRITE
