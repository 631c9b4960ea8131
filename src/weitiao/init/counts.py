"""What the rows are: empty, repeated, contradicting, how long, in which language."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weitiao.init.found import Found
from weitiao.init.table import is_empty
from weitiao.tasks.base import Language, language_of
from weitiao.types import Row

INPUTS = ("question", "text", "conversation")
ANSWERS = ("label", "entities", "answer")
SHOWN = 12
"""Labels that are counted one by one on the screen."""
SAMPLED = 2_000
"""Rows whose letters tell the language."""
LEAST_SHARE = 0.005
"""Of the letters that are worth a word."""
LANGUAGES = {"zh": "Chinese", "en": "English"}
CJK = (("\u3000", "\u30ff"), ("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uff00", "\uffef"))
"""Ideographs, kana, and the punctuation that goes with them."""


@dataclass(frozen=True)
class Lengths:
    """Characters of a text, of which some are CJK."""

    cjk: int
    other: int

    @property
    def all(self) -> int:
        return self.cjk + self.other


@dataclass(frozen=True)
class Counts:
    rows: int
    lengths: list[Lengths]
    language: Language
    images: int
    """Most images of a row."""
    lines: list[str]
    """For the screen."""
    warnings: list[str]


def counts(rows: Sequence[Row], found: Found) -> Counts:
    texts = [text_of(row.fields, found) for row in rows]
    lengths = list(map(lengths_of, texts))
    # Images alone are asked about in the language of their answers.
    language = language_of(texts[:SAMPLED] if any(texts) else [_answer(row, found) for row in rows[:SAMPLED]])
    lines = [f"rows: {len(rows):,}"]
    named = found.labels.counts if found.labels else _types(rows, found)
    if named:
        lines.append(f"{'labels' if found.labels else 'types'}: {_listed(named)}")
    if any(texts):
        lines += [_told(lengths), f"letters: {_letters(texts[:SAMPLED])}; the prompt is in {LANGUAGES[language]}"]
    images = max((_images(row.fields, found) for row in rows), default=0)
    return Counts(
        len(rows),
        lengths,
        language,
        images,
        lines,
        [*_empty(rows, found), *_repeated(rows, texts, found), *_odd(named)],
    )


def text_of(fields: Mapping[str, Any], found: Found) -> str:
    """All that a row asks, on lines of its own."""
    values = (fields.get(found.columns[role]) for role in INPUTS if role in found.columns)
    return "\n".join(text for value in values for text in _texts(value))


def lengths_of(text: str) -> Lengths:
    cjk = sum(any(low <= char <= high for low, high in CJK) for char in text)
    return Lengths(cjk, len(text) - cjk)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for message in value if isinstance(value, list) else ():
        if isinstance(message, Mapping):
            yield from _texts(message.get("value", message.get("content", message.get("text"))))


def _answer(row: Row, found: Found) -> str:
    return " ".join(text for role in ANSWERS for text in _texts(row.fields.get(found.columns.get(role, ""))))


def _told(lengths: Sequence[Lengths]) -> str:
    ordered = sorted(length.all for length in lengths)
    median, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    return f"length: median {median:,} characters, 95 % have at most {high:,}, the longest {ordered[-1]:,}"


def _letters(texts: Sequence[str]) -> str:
    kinds = Counter(
        "CJK" if "\u3040" <= c <= "\u9fff" else "Latin" if c < "\u0250" else "other"
        for text in texts
        for c in text
        if c.isalpha()
    )
    shares = ((kind, count / kinds.total()) for kind, count in kinds.most_common())
    return ", ".join(f"{share:.0%} {kind}" for kind, share in shares if share >= LEAST_SHARE) or "none"


def _types(rows: Sequence[Row], found: Found) -> Counter[str]:
    lists = (row.fields.get(found.columns.get("entities", "")) for row in rows)
    items = (item for value in lists if isinstance(value, list) for item in value if isinstance(item, dict))
    return Counter(str(item.get("type", item.get("label", item.get("entity_label")))) for item in items)


def _images(fields: Mapping[str, Any], found: Found) -> int:
    value = fields.get(found.columns.get("image", ""))
    return len(value) if isinstance(value, list) else str(value or "").count(";") + bool(value)


def _listed(found: Counter[str]) -> str:
    shown = ", ".join(f"{name}: {count:,}" for name, count in found.most_common(SHOWN))
    more = len(found) - SHOWN
    return shown + (f", and {more:,} more, the rarest {found.most_common()[-1][1]:,} times" if more > 0 else "")


def _empty(rows: Sequence[Row], found: Found) -> Iterator[str]:
    """A warning for each column whose cells must not be empty, and are."""
    must = [role for role in (*ANSWERS, "image") if role in found.columns]
    must += ["text"] if found.task != "generation" and "text" in found.columns and "image" not in must else []
    for role in must:
        column = found.columns[role]
        empty = [row.place for row in rows if is_empty(row.fields.get(column))]
        if empty:
            yield f"rows without {role}: {len(empty):,} (first {empty[0]}); `train` refuses them, so fill in or remove"


def _repeated(rows: Sequence[Row], texts: Sequence[str], found: Found) -> Iterator[str]:
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    repeated = 0
    for row, text in zip(rows, texts, strict=True):
        key = text + "\0" + str(row.fields.get(found.columns.get("image", "")))
        told = [row.fields.get(found.columns[role]) for role in ANSWERS if role in found.columns]
        repeated += key in answers
        answers[key].setdefault(json.dumps(told, ensure_ascii=False, default=str), row.place)
    differing = [list(places.values()) for places in answers.values() if len(places) > 1]
    if repeated:
        yield f"rows that repeat an earlier one's text exactly: {repeated:,}; no text gets into two splits"
    if differing:
        first = " and ".join(differing[0][:2])
        yield f"texts with different answers: {len(differing):,} (first {first}); a model learns neither"


def _odd(named: Counter[str]) -> Iterator[str]:
    """Warnings on labels that are spelt in two ways, and on those that stand once."""
    spelt: dict[str, list[str]] = defaultdict(list)
    for name in named:
        spelt["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    alike = [names for names in spelt.values() if len(names) > 1]
    if alike:
        shown = ", ".join(" and ".join(map(repr, names)) for names in alike[:3])
        yield f"labels that differ in letter case, width or spaces only: {shown}; they are taken for different ones"
    once = [name for name, count in named.items() if count == 1]
    if once:
        yield f"labels that stand in one row only: {len(once):,} (such as {once[0]!r}); they cannot be tested"
