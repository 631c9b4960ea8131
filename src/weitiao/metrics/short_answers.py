"""Metrics of short answers to questions: exact match, VQA accuracy and ANLS, each 0 to 1 and one value a row.

All take one answer a row (None: no valid answer, always 0.0) and one or more references a row. Texts are compared in
Unicode's NFC form, without spaces at their ends, each run of white space as one space. An empty answer is right where
a reference is empty.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from weitiao.metrics.captions import Answers, References

ANLS_THRESHOLD = 0.5
"""Least similarity that counts, as in ST-VQA and DocVQA: below it the answer is another word, not a slip."""
VQA_MATCHES = 3
"""Humans that must agree with an answer for it to be wholly right."""


def exact_match(predicted: Answers, references: References) -> NDArray[np.float64]:
    """1.0 for each row whose answer is one of its references, else 0.0. Case and punctuation count."""
    return _each(predicted, references, lambda told, wanted: float(_plain(told) in map(_plain, wanted)))


def vqa_accuracy(predicted: Answers, references: References) -> NDArray[np.float64]:
    """VQA accuracy of each row; `references` are the answers of up to ten humans, equal ones repeated.

    Antol et al. 2015, VQA, and visualqa.org/evaluation: leave each human out in turn; an answer scores
    min(1, others who gave it / 3); the mean of these. Texts are compared as `vqa_normal` makes them.

    Two differences to the official script (github.com/GT-Vision-Lab/VQA). It cannot give a row of fewer than four
    humans a 1 (of one, always 0); here as many others as there are, at most 3, must agree, and a sole reference is
    compared plainly. Of the humans' texts, normal already in its data set, it only treats the punctuation, and only
    where they differ; here they are made normal like the answer.
    """
    return _each(predicted, references, _vqa_row)


def vqa_normal(text: str) -> str:
    """An answer as VQA's script compares it: `"The dog, and two cats."` → `"dog and 2 cats"`; made for English.

    Lower case; number words up to ten as digits (`none` as 0); no articles; apostrophes put into contractions that
    lack them; a point only before a digit; other punctuation but apostrophe and colon as a space, or dropped if the
    text has it beside a space or has a comma between digits. Text of other languages only loses ASCII punctuation.
    """
    text = plain = _plain(text)
    grouped_digits = re.search(r"\d,\d", plain) is not None
    for sign in VQA_PUNCTUATION:
        beside_space = f"{sign} " in plain or f" {sign}" in plain
        text = text.replace(sign, "" if beside_space or grouped_digits else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    numbers = (VQA_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(VQA_CONTRACTIONS.get(word, word) for word in numbers if word not in VQA_ARTICLES)


def anls(predicted: Answers, references: References) -> NDArray[np.float64]:
    """Normalised Levenshtein similarity of each row to its nearest reference; the mean over rows is ANLS.

    Biten et al. 2019, Scene Text Visual Question Answering, eq. 1: 1 − edits / length of the longer text, over code
    points in lower case, and 0.0 below 0.5. Exactly 0.5 counts, as in the script of the DocVQA challenge (the paper's
    equation makes it 0). Two empty texts are equal.
    """
    return _each(predicted, references, _anls_row)


def _each(
    predicted: Answers, references: References, row: Callable[[str, Sequence[str]], float]
) -> NDArray[np.float64]:
    pairs = zip(predicted, references, strict=True)
    return np.array([0.0 if told is None else row(told, wanted) for told, wanted in pairs])


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _vqa_row(told: str, wanted: Sequence[str]) -> float:
    answer, others = vqa_normal(told), len(wanted) - 1
    same = [vqa_normal(text) == answer for text in wanted]
    if not others:
        return float(same[0])
    enough = min(VQA_MATCHES, others)
    return sum(min(1.0, (sum(same) - left_out) / enough) for left_out in same) / len(same)


def _anls_row(told: str, wanted: Sequence[str]) -> float:
    best = max(_similarity(_plain(told).lower(), _plain(text).lower()) for text in wanted)
    return best if best >= ANLS_THRESHOLD else 0.0


def _similarity(first: str, second: str) -> float:
    longer = max(len(first), len(second))
    return 1 - _edits(first, second) / longer if longer else 1.0


def _edits(first: str, second: str) -> int:
    """Levenshtein distance.

    Bit-parallel as in Hyyrö 2003, A bit-vector algorithm for computing Levenshtein and Damerau edit distances: bit i
    of `up` and `down` says that the column of the table grows or falls from row i to i + 1. An answer that runs on for
    thousands of characters would take seconds cell by cell.
    """
    if not first:
        return len(second)
    places: dict[str, int] = {}
    for i, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << i
    everything, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    up, down, distance = everything, 0, len(first)
    for character in second:
        match = places.get(character, 0)
        diagonal = ((match & up) + up ^ up) | match | down
        right_up, right_down = down | ~(diagonal | up) & everything, diagonal & up
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = right_up << 1 | 1, right_down << 1
        up, down = (right_down | ~(diagonal | right_up)) & everything, right_up & diagonal & everything
    return distance


VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
VQA_NUMBERS = dict(
    zip(
        ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
        ("0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"),
        strict=True,
    )
)
VQA_ARTICLES = {"a", "an", "the"}


def _contractions() -> dict[str, str]:
    """Each contraction by its form with one apostrophe left out; forms that are other words (its, well) are not in."""
    forms = """
        ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't oughtn't
        shan't shouldn't wasn't weren't won't wouldn't could've might've must've not've should've we've what've
        where've who've would've they've you've he'd how'd it'd somebody'd someone'd something'd there'd they'd where'd
        who'd you'd how'll it'll somebody'll someone'll something'll they'll what'll who'll why'll you'll there're
        they're what're why're you're he's how's somebody's someone's that's there's what's when's where's who's why's
        ma'am o'clock y'all 'twas couldn't've hadn't've mightn't've shouldn't've wouldn't've he'd've it'd've she'd've
        somebody'd've someone'd've something'd've there'd've they'd've we'd've who'd've you'd've y'all'd've y'all'll
        'ow's'at
    """
    return {
        form[: mark.start()] + form[mark.end() :]: form for form in forms.split() for mark in re.finditer("'", form)
    }


VQA_CONTRACTIONS = _contractions()
