"""What a row must be once it is tokens. Training and `weitiao check` refuse by the same words; how a row is typed, and
what is refused then, each task says itself.
"""

from __future__ import annotations

from weitiao.errors import RenderError


class UnsupervisedError(RenderError):
    """A row whose answer has no tokens."""

    finding = "no-supervised-token"


class TooLongError(RenderError):
    """A row that the model cannot take."""

    finding = "too-long"


def refuse_unsupervised(answer_tokens: int, target: str, place: str) -> None:
    """RenderError when an answer has no token that could be trained."""
    if not answer_tokens:
        raise UnsupervisedError(f"{place}: the answer {target!r} has no tokens; fill it in or remove the row")


def refuse_too_long(tokens: int, limit: int, place: str) -> None:
    """RenderError when a row has more tokens than the model takes."""
    if tokens > limit:
        raise TooLongError(
            f"{place}: {tokens} tokens, but the model takes {limit}; "
            "lower data.max_length, or shorten the instruction, the labels or the answer"
        )
