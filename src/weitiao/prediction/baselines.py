"""What a simple method scores on the same rows: a fine-tuned model that does not beat it is not worth its cost.

A baseline is a function (training examples, test examples) → one prediction for each test example, or None where it has
nothing to go by, such as a text. It never reads an answer of the test examples. To add one, write the function and name
it in `BASELINES`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.metrics.entities import Entity
from weitiao.prediction.pixels import pixels
from weitiao.tasks.base import Example
from weitiao.tasks.classification import ClassificationExample
from weitiao.types import Prediction

Baseline = Callable[[Sequence[Example], Sequence[Example]], list[Prediction] | None]

Features = Callable[[Sequence[Example], Sequence[Example], int], tuple[Any, Any]]
"""(training examples, test examples, most features) → a row of numbers for each."""

COEFFICIENTS = 5_000_000
"""Most weights of the TF-IDF classifier, n-grams × classes (40 MB; the solver keeps some twenty copies)."""
FEATURES = 200_000
"""Most n-grams, the frequent ones; more gained nothing on Chinese reviews."""
CHARACTERS = 2_000
"""Characters of a text that TF-IDF reads, from its beginning; bounds time and memory on long documents."""
MOST_IMAGES = 5_000
"""Training rows whose images a baseline opens; a minute on two cores for photographs."""
INVERSE_PENALTY = 10.0
"""`C` of the logistic regression; accuracy is flat from 4 to 30 on Chinese reviews and grows on English mails."""


def majority(train: Sequence[Example], test: Sequence[Example]) -> list[Prediction]:
    """The most frequent training answer that the row's options allow; in case of a tie, the first one in training.

    The probability is its share among the allowed training answers; where none occurs in training, a single label
    is the first option at 1 / options, and several labels are the empty set without a probability.
    """
    many = _many(train)
    seen = Counter(frozenset(_labels(e)) for e in train).most_common()
    choose = cache(lambda options: _most_frequent(seen, options, many))
    return [choose(_options(e)) for e in test]


def tfidf(train: Sequence[Example], test: Sequence[Example]) -> list[Prediction] | None:
    """Logistic regression over TF-IDF of character 1- to 4-grams within words, among the row's options.

    One setting for both languages: it beats words, and n-grams across words, on English mails, and equals the latter
    on Chinese reviews. Several labels: one classifier each, a label from probability 0.5 on.
    The probability is of the whole answer: renormalised over the options, or the product over the independent labels.
    """
    if any(e.text.strip() for e in train):
        return _by_regression(train, test, _text_features)
    return None


def pixel_regression(train: Sequence[Example], test: Sequence[Example]) -> list[Prediction] | None:
    """The same over the first image of each row, at 16 × 16 grey pixels; of training at most 5,000 rows."""
    train = train[:MOST_IMAGES]
    if all(e.images for e in (*train, *test)):
        return _by_regression(train, test, lambda train, test, most: (pixels(train), pixels(test)))
    return None


def commonest(train: Sequence[Example], test: Sequence[Example]) -> list[Prediction]:
    """The most frequent training answer; in case of a tie, the first one in training."""
    [(answer, _)] = Counter(e.answer for e in train).most_common(1)
    return [Prediction(answer, str(answer)) for _ in test]


def nearest(train: Sequence[Example], test: Sequence[Example]) -> list[Prediction]:
    """The answer of the training row that is most alike, by the cosine of TF-IDF, of 16 × 16 grey pixels, or both."""
    if not test:
        return []
    train = train[:MOST_IMAGES] if train[0].images else train
    parts = []
    if any(e.text.strip() for e in train):
        parts.append(_text_features(train, test, FEATURES))
    if all(e.images for e in (*train, *test)):
        known, asked = pixels(train), pixels(test)
        mean = known.mean(axis=0)
        parts.append((known - mean, asked - mean))
    from sklearn.metrics.pairwise import cosine_similarity

    alike = sum(cosine_similarity(asked, known) for known, asked in parts)
    answers = [train[int(at)].answer for at in np.asarray(alike).argmax(axis=1)]
    return [Prediction(answer, str(answer)) for answer in answers]


def dictionary(train: Sequence[Example], test: Sequence[Example]) -> list[Prediction]:
    """Texts that are entities in training, found again: left to right, the longest one first.

    A text is taken when at least half of its occurrences in training are entities; its type is the most frequent.
    """
    types = _entity_types(train)
    known = _Lexicon(types)
    mentions = Counter(e.text[start:end] for e in train for start, end in {(m.start, m.end) for m in e.answer})
    occurrences = Counter(text for e in train for texts in known.at_each_place(e.text) for text in texts)
    kept = _Lexicon({t: name for t, name in types.items() if 2 * mentions[t] >= occurrences[t] > 0})
    return [Prediction(tuple(kept.entities(e.text))) for e in test]


BASELINES: Mapping[str, Mapping[str, Baseline]] = {
    "classification": {"majority": majority, "tfidf": tfidf, "pixels": pixel_regression},
    "ner": {"dictionary": dictionary},
    "generation": {"commonest": commonest, "nearest": nearest},
}
"""Task name → the names that metrics are reported under → baseline."""


def _options(example: Example) -> tuple[str, ...]:
    assert isinstance(example, ClassificationExample)
    return example.options


def _many(train: Sequence[Example]) -> bool:
    return any(isinstance(e.answer, tuple) for e in train)


def _labels(example: Example) -> tuple[str, ...]:
    return example.answer if isinstance(example.answer, tuple) else (example.answer,)


def _most_frequent(seen: Sequence[tuple[frozenset[str], int]], options: tuple[str, ...], many: bool) -> Prediction:
    allowed = [(labels, count) for labels, count in seen if labels.issubset(options)]
    if not allowed:
        return Prediction(()) if many else Prediction(options[0], probability=1 / len(options))
    labels, count = allowed[0]
    answer = tuple(option for option in options if option in labels)
    return Prediction(answer if many else answer[0], probability=count / sum(count for _, count in allowed))


def _by_regression(train: Sequence[Example], test: Sequence[Example], features: Features) -> list[Prediction]:
    if not test:
        return []
    names = sorted({label for e in train for label in _labels(e)})
    many = _many(train)
    chances = (_chance_of_each if many else _chance_of_one)(train, test, names, features)
    decide = _decide_many if many else _decide_one
    return [
        decide(_options(e), dict(zip(names, row.tolist(), strict=True))) for e, row in zip(test, chances, strict=True)
    ]


def _chance_of_one(
    train: Sequence[Example], test: Sequence[Example], names: Sequence[str], features: Features
) -> NDArray[np.float64]:
    """Probability of each label, [test, names], rows summing to 1."""
    if len(names) == 1:
        return np.ones((len(test), 1))
    known, asked = features(train, test, min(FEATURES, COEFFICIENTS // len(names)))
    place = {name: i for i, name in enumerate(names)}
    return _probabilities(known, [place[e.answer] for e in train], asked)


def _chance_of_each(
    train: Sequence[Example], test: Sequence[Example], names: Sequence[str], features: Features
) -> NDArray[np.float64]:
    """Probability of each label, independent of the others, [test, names]."""
    known, asked = features(train, test, FEATURES)
    chances = np.ones((len(test), len(names)))
    for column, name in enumerate(names):
        has = [name in e.answer for e in train]
        if not all(has):
            chances[:, column] = _probabilities(known, has, asked)[:, 1]
    return chances


def _text_features(train: Sequence[Example], test: Sequence[Example], most: int) -> tuple[Any, Any]:
    """Sparse TF-IDF rows of the training and of the test texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, max_features=most, dtype=np.float32
    )
    known = vectorizer.fit_transform([e.text[:CHARACTERS] for e in train])
    return known, vectorizer.transform([e.text[:CHARACTERS] for e in test])


def _probabilities(known: Any, classes: Sequence[int], asked: Any) -> NDArray[np.float64]:
    """Probability of each class by logistic regression, [asked rows, classes]."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(known, classes)
    return np.asarray(fitted.predict_proba(asked), dtype=np.float64)


def _decide_one(options: tuple[str, ...], chances: Mapping[str, float]) -> Prediction:
    total = sum(chances.get(option, 0.0) for option in options)
    if total == 0:
        return Prediction(options[0], probability=1 / len(options))
    best = max(options, key=lambda option: chances.get(option, 0.0))
    return Prediction(best, probability=chances[best] / total)


def _decide_many(options: tuple[str, ...], chances: Mapping[str, float]) -> Prediction:
    answer = tuple(option for option in options if chances.get(option, 0.0) >= 0.5)
    sure = (max(chances.get(option, 0.0), 1 - chances.get(option, 0.0)) for option in options)
    return Prediction(answer, probability=math.prod(sure))


def _entity_types(train: Sequence[Example]) -> dict[str, str]:
    """Each entity text of training and its most frequent type."""
    types: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        for entity in example.answer:
            types[entity.text][entity.type] += 1
    return {text: counter.most_common(1)[0][0] for text, counter in types.items() if text}


class _Lexicon:
    """Texts with their types, found in other texts; a Latin word is never cut."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self.types = types
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for text in types:
            lengths[text[0]].add(len(text))
        # Only the lengths that occur behind a first character are tried: near-linear time, whatever the size.
        self.lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def at(self, text: str, start: int) -> list[str]:
        """The known texts that begin at a place, longest first."""
        if _inside_word(text, start):
            return []
        ends = [start + n for n in self.lengths.get(text[start], ()) if start + n <= len(text)]
        return [text[start:end] for end in ends if text[start:end] in self.types and not _inside_word(text, end)]

    def at_each_place(self, text: str) -> Iterator[list[str]]:
        return (self.at(text, start) for start in range(len(text)))

    def entities(self, text: str) -> Iterator[Entity]:
        start = 0
        while start < len(text):
            found = self.at(text, start)
            if found:
                yield Entity(start, start + len(found[0]), self.types[found[0]], found[0])
            start += len(found[0]) if found else 1


def _inside_word(text: str, place: int) -> bool:
    """Whether a cut before a place would part two ASCII letters or digits."""
    around = text[place - 1 : place + 1]
    return 0 < place < len(text) and around.isascii() and around.isalnum()
