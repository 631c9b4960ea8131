"""Turns of a conversation as messages.

An image is where the text names it, by its path between `<|vision_start|>` and `<|vision_end|>` or by `<image>`, and
before the text otherwise. Images that close a text are put before it: models are trained to look first and read then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from weitiao.errors import DataError
from weitiao.images import PLACEHOLDER
from weitiao.tasks.base import Task
from weitiao.types import ImagePart, Message, Role, Row, TextPart

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
}
IMAGE = re.compile(r"<\|vision_start\|>(?P<path>.*?)<\|vision_end\|>|<image>", re.DOTALL)


def messages_of(
    turns: Sequence[tuple[Role, Any]], images: Sequence[str], row: Row, filled: bool
) -> tuple[Message, ...]:
    """Messages of roles and contents, with images where their texts name them; those that none names go before the
    first text. filled: whether the row's field of images is; else `<image>` in a text is a text about markup.
    """
    left = list(images)
    messages = []
    for role, content in turns:
        parts = [part for piece in _pieces(content, row) for part in _parts(piece, left, role, row, filled)]
        messages.append(Message(role, _images_first(parts)))
    if len(left) not in (0, len(images)):
        raise DataError(f"{row.place}: {len(images)} images, but {len(images) - len(left)} places for them in the text")
    for at, message in enumerate(messages):
        if left and message.role == "user":
            messages[at] = Message("user", (*map(ImagePart, left), *message.parts))
            left = []
    _refuse_roles(messages, row)
    _refuse_empty(messages, row)
    return _with_shrinkable(messages)


def _parts(piece: Any, left: list[str], role: Role, row: Row, filled: bool) -> Iterator[TextPart | ImagePart]:
    """A piece of content as parts; takes the images that it uses from `left`."""
    if isinstance(piece, Mapping):
        path = piece.get("image", piece.get("path"))
        yield ImagePart(Task.image_at(path, row)) if path else _next(left, row)
        return
    start = 0
    for found in IMAGE.finditer(piece) if role == "user" else ():
        inside = (found["path"] or "").strip()
        named = inside not in ("", PLACEHOLDER)
        if not named and not filled:
            continue
        if found.start() > start:
            yield TextPart(piece[start : found.start()])
        yield ImagePart(Task.image_at(inside, row)) if named else _next(left, row)
        start = found.end()
    if start < len(piece):
        yield TextPart(piece[start:])


def _next(left: list[str], row: Row) -> ImagePart:
    if not left:
        raise DataError(f"{row.place}: the text has more places for images than the row has images")
    return ImagePart(left.pop(0))


def role_of(message: Any, row: Row) -> Role:
    name = message.get("from", message.get("role")) if isinstance(message, Mapping) else None
    if name not in ROLES:
        raise DataError(
            f"{row.place}: a message is {message!r:.60}; wanted {{'role': …, 'content': …}} or "
            f"{{'from': …, 'value': …}} by {', '.join(ROLES)}"
        )
    return ROLES[str(name)]


def joined(content: Any, row: Row) -> Any:
    """The text of a message's content where it is in parts of text alone; other content as it is."""
    if not isinstance(content, list | tuple):
        return content
    pieces = list(_pieces(content, row))
    return "".join(pieces) if all(isinstance(piece, str) for piece in pieces) else content


def _pieces(content: Any, row: Row) -> Iterator[Any]:
    """Texts, and mappings that stand for images, of a message's content."""
    for piece in content if isinstance(content, list | tuple) else [content]:
        if isinstance(piece, Mapping) and isinstance(piece.get("text"), str):
            yield piece["text"]
        elif isinstance(piece, str) or (isinstance(piece, Mapping) and piece.get("type") == "image"):
            yield piece
        else:
            raise DataError(f"{row.place}: a message says {piece!r:.60}; wanted text, or parts of type text and image")


def _images_first(parts: Sequence[TextPart | ImagePart]) -> tuple[TextPart | ImagePart, ...]:
    """The same parts, or with the images before the text where all of them close it."""
    texts = [part for part in parts if isinstance(part, TextPart)]
    images = [part for part in parts if isinstance(part, ImagePart)]
    if not images or list(parts) != [*texts, *images]:
        return tuple(parts)
    # What parted the text from its image closes nothing now.
    return (*images, *texts[:-1], replace(texts[-1], text=texts[-1].text.rstrip())) if texts else tuple(images)


def _with_shrinkable(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The longest text of the user is the one that may be shortened."""
    texts = [
        (len(part.text), at, inside)
        for at, message in enumerate(messages)
        for inside, part in enumerate(message.parts)
        if message.role == "user" and isinstance(part, TextPart)
    ]
    if not texts:
        return tuple(messages)
    _, at, inside = max(texts)
    parts = [
        TextPart(part.text, shrinkable=place == inside) if isinstance(part, TextPart) else part
        for place, part in enumerate(messages[at].parts)
    ]
    return (*messages[:at], Message(messages[at].role, tuple(parts)), *messages[at + 1 :])


def _refuse_roles(messages: Sequence[Message], row: Row) -> None:
    """DataError unless user and assistant take turns, the user first and last, behind at most one system message."""
    roles = [message.role for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise DataError(
            f"{row.place}: the conversation goes {', '.join(roles) or 'nowhere'}; "
            "wanted user and assistant in turn, a user's message first, an answer last"
        )


def _refuse_empty(messages: Sequence[Message], row: Row) -> None:
    for message in messages:
        if message.role != "system" and message.empty:
            raise DataError(f"{row.place}: a message of the {message.role} is empty; fill it in or remove the row")
