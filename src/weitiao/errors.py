"""The errors that a user can cause and mend. Each message is one line: what came, what was wanted, what to do.

The command line prints the message alone and exits with code 2; a library user can catch `WeitiaoError`.
Anything else that escapes is a bug of ours and keeps its traceback.
"""

import json
from typing import Any


class WeitiaoError(Exception):
    """Base of every error that names something that the user can change."""

    finding = "bad-row"
    """Name under which `weitiao check` counts it, where it is of a row."""


class ConfigError(WeitiaoError):
    """A key or value of the configuration, or a run folder that belongs to another configuration."""


class DataError(WeitiaoError):
    """A data file or one of its rows; the message starts with `file:line`."""


class ImageError(DataError):
    """An image of a row that is missing, elsewhere, broken or too large."""

    finding = "bad-image"


class OffsetsError(DataError):
    """An entity that does not stand where its row says."""

    finding = "entity-offsets"


class LabelError(DataError):
    """An answer that names a label or type outside the set."""

    finding = "unknown-label"


class RenderError(WeitiaoError):
    """An example that cannot be written as tokens for the chosen model."""


class CheckpointError(WeitiaoError):
    """A run, adapter or checkpoint folder that is damaged or belongs to something else."""


class ModelError(WeitiaoError):
    """A base model that is missing, unreadable or not supported."""


def first_line(error: BaseException | str) -> str:
    """What another library's error says, on one line; its kind when it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def shown(value: Any, most: int = 80) -> str:
    """A value in an error, at most so many characters of it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 3] + "..."
