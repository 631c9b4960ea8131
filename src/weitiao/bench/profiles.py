"""Samples of a kind of work: random token ids, lengths as in real data.

prefix (the same in all samples) · text · answer
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from weitiao.types import Encoded

Quantile = Callable[[float], int]
"""Share of the samples that are shorter, in (0, 1) → tokens."""
Z95 = NormalDist().inv_cdf(0.95)


def log_normal(mean: float, p95: float) -> Quantile:
    """Log-normal lengths of this mean and 95th percentile, at least 1 and at most 3 × p95.

    mean = exp(μ + σ²/2) and p95 = exp(μ + z σ), so that ln(p95 / mean) = z σ − σ²/2; the smaller σ is taken.
    """
    sigma = Z95 - math.sqrt(Z95**2 - 2 * math.log(p95 / mean))
    normal = NormalDist(math.log(mean) - sigma**2 / 2, sigma)
    return lambda share: round(min(max(math.exp(normal.inv_cdf(share)), 1), 3 * p95))


def uniform(low: int, high: int) -> Quantile:
    """Lengths from `low` to `high`, both included, equally often."""
    return lambda share: low + int(share * (high - low + 1))


@dataclass(frozen=True)
class Profile:
    prefix: int
    """Tokens that all samples begin with."""
    text: Quantile
    answer: Quantile
    """Supervised tokens, the stop id among them."""


PROFILES = {
    "ner": Profile(104, log_normal(33, 67), log_normal(21, 73)),
    "classification": Profile(35, log_normal(61, 136), uniform(2, 3)),
    "documents": Profile(20, uniform(1000, 4000), uniform(3, 3)),
}
"""Lengths of real sentences under the tutorial's prompts in Qwen2's vocabulary; documents are made up."""


def samples(profile: Profile, count: int, vocabulary: int, seed: int) -> list[Encoded]:
    """`count` samples with ids below `vocabulary`, the same for the same seed.

    Lengths are drawn from `count` equal strata, so that few samples have the profile's mean, too.
    """
    draw = random.Random(seed)
    prefix = _ids(draw, profile.prefix, vocabulary)
    texts, answers = (lengths(draw, quantile, count) for quantile in (profile.text, profile.answer))
    return [
        Encoded(prefix + _ids(draw, text + answer, vocabulary), profile.prefix + text)
        for text, answer in zip(texts, answers, strict=True)
    ]


def real_tokens(members: Sequence[Encoded]) -> int:
    """Tokens of all samples, each with its own prefix, without padding."""
    return sum(len(sample.ids) for sample in members)


def distinct_tokens(members: Sequence[Encoded], prefix: int) -> int:
    """Tokens that a step has to compute: the prefix once, and of each sample its own but the last, which is a label."""
    return prefix + sum(len(sample.ids) - 1 - prefix for sample in members)


def lengths(draw: random.Random, quantile: Quantile, count: int) -> list[int]:
    """`count` lengths in random order, one from each of as many equal strata."""
    drawn = [quantile((at + draw.uniform(0.001, 0.999)) / count) for at in range(count)]
    draw.shuffle(drawn)
    return drawn


def _ids(draw: random.Random, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(draw.choices(range(vocabulary), k=count))
