"""What may become of another program's key: it gets our name, is not needed, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BOTH, FACTORY, SWIFT = "LS", "L", "S"
"""Whose key it is: LLaMA-Factory's, ms-swift's, or that of both (most of these are transformers')."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """Becomes `ours`; `turn` gives our value, or several keys of ours, or a ValueError that says why not."""

    ours: str
    turn: Callable[[Any], Any] = lambda value: value
    note: str = ""
    of: str = BOTH
    weak: bool = False
    """Whether a key of ours that is there already stays as it is."""


@dataclass(frozen=True, slots=True)
class NotNeeded:
    """Left out, for the reason `why`. With `values`: only these; others are refused."""

    why: str
    values: tuple[Any, ...] | None = None
    of: str = BOTH


@dataclass(frozen=True, slots=True)
class Refused:
    """Has no counterpart, for the reason `why`; a value that switches it off is left out."""

    why: str
    of: str = BOTH
    secret: bool = False


Row = Renamed | NotNeeded | Refused


class Several(dict[str, Any]):
    """Keys of ours that one key of theirs becomes."""
