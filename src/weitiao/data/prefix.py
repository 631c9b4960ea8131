"""What all examples begin with. It is the longest common *token* prefix: the prefix text encoded alone may differ."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix

from weitiao.types import Encoded


def common_prefix(encoded: Sequence[Encoded]) -> tuple[int, ...]:
    """Longest token prefix of all prompts. At least the last prompt token stays out of it: the loss of an answer's
    first token is read there, and it differs by row. So do images, whose tokens are the same in all of them."""
    if not encoded:
        return ()
    shared = commonprefix([encoded[0].prompt, *(e.prompt for e in encoded[1:])])
    own = min(e.prompt_length - 1 for e in encoded)
    return tuple(shared[: min([own, *(e.images[0].start for e in encoded if e.images)])])
