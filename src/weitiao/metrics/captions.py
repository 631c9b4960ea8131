"""Metrics that compare the words of a text with those of its references: BLEU, ROUGE-L and CIDEr-D.

All take one answer a row (None: no valid answer, it counts as a text without words) and one or more references a row.
What a word is, `words` says. A text without words is no error: BLEU counts its missing length, ROUGE-L and CIDEr of
it are 0.0, also where the reference has no words either.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from weitiao.metrics.classification import ratio
from weitiao.metrics.intervals import Counts

Answers = Sequence[str | None]
References = Sequence[Sequence[str]]

ORDERS = range(1, 5)
"""Lengths of the n-grams of BLEU and CIDEr, as in coco-caption."""
SIGMA = 6.0
"""Width of CIDEr-D's length penalty in words, as in coco-caption."""
UNSPACED = (
    (0x3005, 0x3007),
    (0x3041, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0x20000, 0x3FFFF),
)
"""Code points of ideographs and kana: scripts that put no spaces between words."""

Gram = tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text in any language: `"A dog's 2 toys，狗的玩具。"` → `a dog s 2 toys 狗 的 玩 具`.

    The text is put into Unicode's NFKC form (full-width letters become ASCII) and lower-cased. A word is a longest run
    of letters, digits and combining marks, but each ideograph and each kana is a word of its own. Punctuation, symbols
    and emoji are dropped and end a word. Korean is split at its spaces; Thai, Lao, Khmer and Burmese, which have
    none, are not split.

    coco-caption uses Stanford's PTBTokenizer, a Java program, and drops the commonest punctuation. It differs:

        here                    there
        don t · dog s           do n't · dog 's         as many words, so that lengths agree
        black and white         black-and-white         hyphens inside a word
        3 5 · 1 000             3.5 · 1,000             points and commas inside a number
        (nothing)               $ · % · & · #           symbols
        一 只 狗                一只狗                  Chinese and Japanese

    So figures of English captions are near published ones, not equal to them.
    """
    return unicodedata.normalize("NFKC", text).lower().translate(_SPACING).split()


class _Spacing(dict[int, str]):
    """For `str.translate`: a character of a word as it is, one that is a word between spaces, others as a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] not in "LMN":
            self[code] = " "
        elif any(first <= code <= last for first, last in UNSPACED):
            self[code] = f" {character} "
        else:
            self[code] = character
        return self[code]


_SPACING = _Spacing()


def bleu_counts(predicted: Answers, references: References) -> Counts:
    """What each row adds to BLEU's sums, [rows, 9]: reference words; n-grams found, n = 1 to 4; n-grams answered.

    An n-gram is found at most as often as one reference has it (the one that has it most often). Reference words are
    those of the reference whose length is nearest to the answer's, of two equally near the shorter.
    """
    return np.array([_bleu_row(words(p or ""), [words(r) for r in row]) for p, row in _rows(predicted, references)])


def bleu(counts: Counts, order: int = 4) -> NDArray[np.float64]:
    """BLEU with n-grams up to `order` of summed counts [..., 9], 0 to 1.

    Papineni et al. 2002, BLEU: exp(min(0, 1 − reference words / answered words)) · the geometric mean of the shares
    of n-grams found. Sums are over the corpus, not a mean of rows. There is no smoothing: 0.0 when for some n no
    n-gram is found, so BLEU-4 is 0.0 if no answer has four words. (coco-caption adds 1e-15 to n-grams found and 1e-9
    to those answered, which gives such a corpus of perfect short answers 0.03 instead.)
    """
    found, answered = counts[..., 1 : 1 + order], counts[..., 5 : 5 + order]
    shortness = ratio(counts[..., 0], counts[..., 5])
    with np.errstate(divide="ignore"):
        logs = np.log(ratio(found, answered))
    return np.asarray(np.exp(np.minimum(0.0, 1 - shortness) + logs.mean(axis=-1)))


def rouge_l(predicted: Answers, references: References, beta: float = 1.0) -> NDArray[np.float64]:
    """ROUGE-L of each row, [rows], 0 to 1; of several references the one with the best value counts.

    Lin 2004, ROUGE, section 3: with L the length of the longest common subsequence of words, P = L / answered words,
    R = L / reference words, (1 + beta²)·P·R / (R + beta²·P). beta = 1 is F1, as in rouge-score. coco-caption has
    beta = 1.2 and takes P and R each from the reference where it is best: equal with one reference only.
    """
    return np.array(
        [_rouge_row(words(p or ""), [words(r) for r in row], beta) for p, row in _rows(predicted, references)]
    )


def cider(predicted: Answers, references: References) -> NDArray[np.float64]:
    """CIDEr-D of each row, [rows], 0 to 10, as in coco-caption.

    Vedantam et al. 2015, CIDEr, section 3 and its CIDEr-D: a text is a vector of tf·idf for each n = 1 to 4, where
    idf = ln(rows / rows with the n-gram in a reference). Of an answer h and a reference r, for each n,
    Σ min(h, r)·r / (‖h‖·‖r‖), times exp(−Δ² / (2·6²)) with Δ the difference of their lengths, in bigrams; then the
    mean over n and references, times 10.

    idf comes from the references given here, so values depend on the test set. What is in every row weighs nothing:
    a single row scores 0.0 whatever it says. A perfect answer scores 10 only if it is the sole reference, has four
    words and for each n an n-gram that some row lacks.
    """
    rows = [(_grams(words(p or "")), [_grams(words(r)) for r in row]) for p, row in _rows(predicted, references)]
    occurs = Counter(gram for _, row in rows for gram in set().union(*row))
    idf = {gram: math.log(len(rows)) - math.log(times) for gram, times in occurs.items()}
    # An n-gram of an answer that no reference has: coco-caption gives it the weight of one that occurs once.
    rare = math.log(len(rows)) if rows else 0.0
    return np.array(
        [_cider_row(_Weighted(told, idf, rare), [_Weighted(r, idf, rare) for r in row]) for told, row in rows]
    )


def _rows(predicted: Answers, references: References) -> zip[tuple[str | None, Sequence[str]]]:
    return zip(predicted, references, strict=True)


def _grams(text: Sequence[str]) -> Counter[Gram]:
    return Counter(tuple(text[i : i + n]) for n in ORDERS for i in range(len(text) - n + 1))


def _bleu_row(told: Sequence[str], wanted: Sequence[Sequence[str]]) -> list[int]:
    grams, most = _grams(told), Counter[Gram]()
    for text in wanted:
        most |= _grams(text)
    _, nearest = min((abs(len(text) - len(told)), len(text)) for text in wanted)
    found = Counter[int]()
    for gram, times in (grams & most).items():
        found[len(gram)] += times
    return [nearest, *(found[n] for n in ORDERS), *(max(0, len(told) - n + 1) for n in ORDERS)]


def _rouge_row(told: Sequence[str], wanted: Sequence[Sequence[str]], beta: float) -> float:
    # (1 + beta²)·P·R / (R + beta²·P) with the lengths put in and L cancelled once.
    lengths = [(_longest_common(told, text), len(told) + beta**2 * len(text)) for text in wanted]
    return max((1 + beta**2) * common / length if length else 0.0 for common, length in lengths)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel as in Hyyrö 2004, Bit-parallel LCS-length computation revisited: the zero bits of `row` are the places
    of `first` at which the length grows. Texts of thousands of words would take seconds a row cell by cell.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    row = everything = (1 << len(first)) - 1
    for word in second:
        hit = row & places.get(word, 0)
        row = (row + hit | row - hit) & everything
    return len(first) - row.bit_count()


class _Weighted:
    """A text as CIDEr's vectors: tf·idf of each n-gram, their length for each n, and its number of bigrams."""

    def __init__(self, grams: Counter[Gram], idf: Mapping[Gram, float], rare: float) -> None:
        self.weights = {gram: times * idf.get(gram, rare) for gram, times in grams.items()}
        squares = [sum(w * w for gram, w in self.weights.items() if len(gram) == n) for n in ORDERS]
        self.norms = np.sqrt(squares)
        self.bigrams = sum(times for gram, times in grams.items() if len(gram) == 2)


def _cider_row(told: _Weighted, wanted: Sequence[_Weighted]) -> float:
    return 10 * float(np.mean([_similarity(told, text) for text in wanted]))


def _similarity(told: _Weighted, wanted: _Weighted) -> float:
    overlap = np.zeros(len(ORDERS))
    for gram, weight in told.weights.items():
        other = wanted.weights.get(gram, 0.0)
        overlap[len(gram) - 1] += min(weight, other) * other
    cosines = ratio(overlap, told.norms * wanted.norms)
    return float(cosines.mean()) * math.exp(-((told.bigrams - wanted.bigrams) ** 2) / (2 * SIGMA**2))
