"""How entities are written as an answer. A format is one class: what it writes, reads and admits stay together.

    lines   one entity a line, `text⇥type`; tab, line breaks and backslash inside a text are escaped
    json    one array: [{"text":"南京","type":"地点"}]

An answer without entities is the word `nothing` in `lines` and `[]` in `json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

Pair = tuple[str, str]
"""An entity's text and its type."""

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_TO_ESCAPE = str.maketrans(_ESCAPES)
_UNESCAPES = {written: char for char, written in _ESCAPES.items()}


class EntityFormat(Protocol):
    def write(self, pairs: Sequence[Pair], nothing: str) -> str: ...

    def read(self, text: str, nothing: str) -> list[Pair] | None:
        """The pairs of a complete answer; None when it is malformed."""

    def ends(self, text: str, nothing: str) -> list[int]:
        """Where each pair of an answer that reads ends: the code point behind its type. What stands between two pairs
        belongs to the later one, since to write it instead of the end is to say that there is another."""

    def complete_part(self, text: str) -> str:
        """The longest complete answer that a cut-off text begins with; empty when there is none."""

    def escaped(self, text: str) -> str:
        """How an answer writes a piece of the source."""

    def lark(self, pieces: Sequence[str], types: Sequence[str], nothing: str) -> str:
        """Grammar (llguidance's Lark) of all answers whose texts are made of consecutive `pieces` of the source."""


class Lines:
    def write(self, pairs: Sequence[Pair], nothing: str) -> str:
        return "\n".join(f"{_escape(text)}\t{kind}" for text, kind in pairs) or nothing

    def read(self, text: str, nothing: str) -> list[Pair] | None:
        if text == nothing:
            return []
        pairs = []
        for line in text.split("\n"):
            written, tab, kind = line.partition("\t")
            if not written or not tab or not kind:
                return None
            pairs.append((_unescape(written), kind))
        return pairs

    def ends(self, text: str, nothing: str) -> list[int]:
        if text == nothing:
            return []
        return [at for at, char in enumerate(text) if char == "\n"] + [len(text)]

    def complete_part(self, text: str) -> str:
        return text.rpartition("\n")[0]

    def escaped(self, text: str) -> str:
        return _escape(text)

    def lark(self, pieces: Sequence[str], types: Sequence[str], nothing: str) -> str:
        return "\n".join(
            [
                f'start: {_literal(nothing)} | line ("\\n" line)*',
                'line: TEXT "\\t" TYPE',
                *_terminals([*map(self.escaped, pieces)], types),
            ]
        )


class Json:
    def write(self, pairs: Sequence[Pair], nothing: str) -> str:
        rows = [{"text": text, "type": kind} for text, kind in pairs]
        return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))

    def read(self, text: str, nothing: str) -> list[Pair] | None:
        try:
            rows = json.loads(text)
            pairs = [(row["text"], row["type"]) for row in rows]
        except (ValueError, TypeError, KeyError):
            return None
        return pairs if all(isinstance(part, str) and part for pair in pairs for part in pair) else None

    def ends(self, text: str, nothing: str) -> list[int]:
        decoder, found = json.JSONDecoder(), []
        at = text.find("{")
        while at >= 0:
            _, end = decoder.raw_decode(text, at)
            found.append(end - len('"}'))
            at = text.find("{", end)
        return found

    def complete_part(self, text: str) -> str:
        cut = len(text)
        # An entity may hold this ending itself; then what is before it does not read.
        while (cut := text.rfind('"}', 0, cut)) >= 0:
            if self.read(part := text[: cut + 2] + "]", "") is not None:
                return part
        return ""

    def escaped(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False)[1:-1]

    def lark(self, pieces: Sequence[str], types: Sequence[str], nothing: str) -> str:
        kinds = [*map(self.escaped, types)]
        return "\n".join(
            [
                'start: "[]" | "[" entity ("," entity)* "]"',
                'entity: "{\\"text\\":\\"" TEXT "\\",\\"type\\":\\"" TYPE "\\"}"',
                *_terminals([*map(self.escaped, pieces)], kinds),
            ]
        )


FORMATS: dict[str, EntityFormat] = {"lines": Lines(), "json": Json()}


def _terminals(pieces: Sequence[str], types: Sequence[str]) -> list[str]:
    # A substring may be empty in llguidance; an entity may not.
    return [
        "TEXT: /(?s:.)+/ & SOURCE",
        "SOURCE: %regex " + json.dumps({"substring_chunks": list(pieces)}),
        "TYPE: " + " | ".join(map(_literal, types)),
    ]


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _escape(text: str) -> str:
    return text.translate(_TO_ESCAPE)


def _unescape(text: str) -> str:
    out, at = [], 0
    while at < len(text):
        pair = text[at : at + 2]
        out.append(_UNESCAPES.get(pair, text[at]))
        at += 2 if pair in _UNESCAPES else 1
    return "".join(out)
