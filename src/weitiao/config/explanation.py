"""What is wrong with a config, in one line: the key, the value, what was wanted."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from weitiao.errors import ConfigError, shown

S = TypeVar("S", bound=BaseModel)
MOST_DIFFERING = 1 / 3 + 1e-9
"""Share of a label's characters."""


def validated(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """`model` made of `values`, or a ConfigError that names the key, the value and the nearest valid key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(model, error)}") from None


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` most likely meant, or None."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return found[0] if found else None


def nearest_label(label: str, labels: Iterable[str]) -> str | None:
    """The same of labels and types, which are often short, so that one other character has another meaning (差评,
    中评). At most a third of the characters may differ, beside case, width and spaces."""
    return _nearest_label(label, tuple(labels))


@lru_cache(maxsize=1024)
def _nearest_label(label: str, labels: tuple[str, ...]) -> str | None:
    """Kept, for a file may have the same wrong label in each row."""
    differing = {other: _differing(_plain(label), _plain(other)) for other in labels}
    best = min(labels, key=lambda other: differing[other], default=None)
    return best if best is not None and differing[best] <= MOST_DIFFERING else None


def _differing(one: str, other: str) -> float:
    """Share of the longer word's characters that the other one does not have in its order."""
    longest, shortest = sorted((len(one), len(other)))[::-1]
    if longest - shortest > MOST_DIFFERING * longest:
        return 1.0
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return 1 - sum(block.size for block in blocks) / max(longest, 1)


def _plain(text: str) -> str:
    """Without case, width (NFKC) and spaces."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def suggestion(
    word: str,
    words: Collection[str],
    otherwise: str | None = None,
    near: Callable[[str, Iterable[str]], str | None] = nearest,
) -> str:
    """How an error ends that was caused by a word which is none of `words`: with the one that was meant, or else with
    `otherwise`, by default all of them."""
    meant = near(word, words)
    return f"did you mean {meant!r}?" if meant else otherwise or f"choices: {', '.join(words)}"


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    # A union adds the name of each alternative to the location; those are no keys.
    key = ".".join(part for part in location if part not in ("str", "float", "int"))
    value = shown(first["input"])
    if first["type"] == "extra_forbidden":
        choices = _keys_beside(model, location)
        hint = nearest(location[-1], choices)
        tail = f"did you mean `{hint}`?" if hint else f"valid keys: {', '.join(sorted(choices))}"
        return f"unknown key `{key}` (value {value}); {tail}"
    if first["type"] == "missing":
        return f"key `{key}` is missing"
    if first["type"] in ("model_type", "dict_type"):
        return f"key `{key}` = {value}: wanted keys below it, one a line (or leave `{key}` out)"
    message = first["msg"].removeprefix("Value error, ")
    return f"key `{key}` = {value}: {message[0].lower()}{message[1:]}"


def _keys_beside(model: type[BaseModel], location: list[str]) -> list[str]:
    current = model
    for part in location[:-1]:
        inner = current.model_fields[part].annotation if part in current.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        current = inner
    return list(current.model_fields)
