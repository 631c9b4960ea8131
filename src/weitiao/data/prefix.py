"""What all examples begin with. It is the longest common *token* prefix: the prefix text encoded alone may differ."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

from weitiao.types import Encoded


def common_prefix(encoded: Sequence[Encoded]) -> tuple[int, ...]:
    """Longest token prefix of all prompts. At least the last prompt token stays out of it: the loss of an answer's
    first token is read there, and it differs by row."""
    if not encoded:
        return ()
    shared = commonprefix([encoded[0].prompt, *(e.prompt for e in encoded[1:])])
    return tuple(shared[: min(e.prompt_length for e in encoded) - 1])
