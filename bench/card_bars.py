"""The bars that the measurements of `card_plan.py` serve, and where each is seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from card_plan import BOTH

Found = Mapping[str, Mapping[str, Any]]
"""Name of a measurement that is done → its record, see `on_a_card.py`."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    what: str
    wanted: str
    seen: Callable[[Found], float | None]
    """None where it was not measured."""
    met: Callable[[float], bool]


def at_least(what: str, wanted: float, seen: Callable[[Found], float | None]) -> Bar:
    return Bar(what, f"≥ {wanted:g}", seen, lambda value: value >= wanted)


def at_most(what: str, wanted: float, seen: Callable[[Found], float | None]) -> Bar:
    return Bar(what, f"≤ {wanted:g}", seen, lambda value: value <= wanted)


WITHOUT_DROPOUT = ("train-16", "train-256", "train-1024", "documents")


def steps(found: Found, profile: str, system: str = "weitiao", names: Iterable[str] = WITHOUT_DROPOUT) -> list[Row]:
    """Rows of `bench train` of a system that ran."""
    return [row for row in _rows(found, names) if (row["profile"], row["system"]) == (profile, system)]


def _rows(found: Found, names: Iterable[str]) -> list[Row]:
    told = [found[name]["found"] for name in names if name in found and found[name]["found"]]
    return [row for one in told for row in one["rows"] if row["samples_per_second"] is not None]


def fastest(
    found: Found, profile: str, system: str = "weitiao", names: Iterable[str] = WITHOUT_DROPOUT
) -> float | None:
    return max((row["samples_per_second"] for row in steps(found, profile, system, names)), default=None)


def times(found: Found, profile: str, other: str, names: Iterable[str] = WITHOUT_DROPOUT) -> float | None:
    """Our median over the other system's best block, in whatever setting: a host may fail a system for a while."""
    ours = fastest(found, profile, names=names)
    theirs = max((row["high"] for row in steps(found, profile, other, names)), default=None)
    return ours / theirs if ours and theirs else None


def dropout(found: Found) -> float | None:
    """The least share of what is reached without."""
    plain = {(row["profile"], row["samples_per_step"]): row for p in BOTH for row in steps(found, p)}
    pairs = [
        (row["samples_per_second"], plain[at]["samples_per_second"])
        for p in BOTH
        for row in steps(found, p, names=["dropout"])
        if (at := (row["profile"], row["samples_per_step"])) in plain
    ]
    return min((with_ / without for with_, without in pairs), default=None)


def largest(found: Found, names: Iterable[str], figure: str, count: int | None = None) -> float | None:
    """Of our rows."""
    rows = [row for row in _rows(found, names) if row["system"] == "weitiao" and row.get(figure) is not None]
    return max((row[figure] for row in rows if count in (None, row["samples_per_step"])), default=None)


def off_curve(found: Found) -> float | None:
    """Times what another order changes."""
    told = [found[f"curve-{p}"]["found"] for p in BOTH if f"curve-{p}" in found]
    return max((c["gap"] / c["other_order"] for one in told if one for c in one["curves"]), default=None)


def agreed(found: Found, dtype: str, figure: str) -> float | None:
    """The worst of both profiles; `figure`: `same` or `flipped`."""
    told = [found[name]["found"] for name in ("predict-classification", "predict-ner") if name in found]
    seen = [one[figure] for each in told if each for one in each["agreement"] if one["dtype"] == dtype]
    seen = [value for value in seen if value is not None]
    return (min if figure == "same" else max)(seen) if seen else None


def of(found: Found, name: str, figure: str) -> float | None:
    return (found[name]["found"] or {}).get(figure) if name in found else None


def read(found: Found, name: str, pattern: str) -> float | None:
    """The largest number that a pattern finds in what was printed."""
    seen = re.findall(pattern, found[name]["text"]) if name in found else []
    return max(map(float, seen), default=None)


def ratio(found: Found, system: str) -> float | None:
    """Labels: times what the best of Hugging Face's ways reaches in the same run."""
    rows = steps(found, CLASSES, system, ["predict-classification"])
    return next((row["ratio"] for row in rows if row["ratio"] is not None), None)


def best_hf(found: Found) -> float | None:
    ours = fastest(found, "ner", names=["predict-ner"])
    others = [
        fastest(found, "ner", "hf_generate_batch", ["predict-ner"]),
        fastest(found, "ner", "hf_batch", ["predict-ner-hf-batch"]),
    ]
    theirs = max((value for value in others if value), default=None)
    return ours / theirs if ours and theirs else None


def held_back(found: Found, name: str) -> float | None:
    """Of a set's cases, the share whose score at twice the rows lay within what was said."""
    told = [record["found"] for one, record in found.items() if one.startswith(f"{name}-") and record["found"]]
    errors = [case["held"]["2"] for one in told for case in one["cases"]]
    within = [low <= truth <= high for _, low, high, truth in errors]
    return sum(within) / len(within) if within else None


NER, CLASSES = BOTH
TRAIN = (*WITHOUT_DROPOUT, "curve-ner", "curve-classification", "glm4-9b")
BARS = (
    at_most("6 gradients, worst ‖Δ‖/‖g‖", 1e-5, lambda f: largest(f, TRAIN, "equal_error")),
    at_most("6 curve of 200 steps, × shuffle noise", 1.5, off_curve),
    at_least("6 NER-like, best, samples/s", 1500, lambda f: fastest(f, NER)),
    at_least("6 NER-like, best, × Unsloth's best", 10, lambda f: times(f, NER, "unsloth")),
    at_least("6 NER-like, 16 a step, × tutorial", 70, lambda f: times(f, NER, "tutorial", ["train-16"])),
    at_least("6 NER-like, 16 a step, × Unsloth", 5, lambda f: times(f, NER, "unsloth", ["train-16"])),
    at_least("6 classification-like, best, samples/s", 1350, lambda f: fastest(f, CLASSES)),
    at_least("6 classification-like, best, × Unsloth's best", 4.5, lambda f: times(f, CLASSES, "unsloth")),
    at_least("6 documents, × Unsloth's best", 1.5, lambda f: times(f, "documents", "unsloth")),
    at_least("6 dropout 0.1, share of that without", 0.85, dropout),
    at_least("6 share of the products' rate", 0.55, lambda f: largest(f, ["train-256", "train-1024"], "gemm_share")),
    at_least("6 … of GLM4-9B's shape", 0.65, lambda f: largest(f, ["glm4-9b"], "gemm_share")),
    at_least("6 GLM4-9B's shape, NER-like, samples/s", 280, lambda f: fastest(f, NER, names=["glm4-9b"])),
    at_most("6 … GiB", 76, lambda f: largest(f, ["glm4-9b"], "peak_gib")),
    at_most("6 peak at 16 a step, GiB", 6.5, lambda f: largest(f, ["train-16"], "peak_gib", 16)),
    at_most("6 5 GiB allowed, GiB held", 5, lambda f: read(f, "small-memory", r"([\d.]+) GiB held")),
    at_least("7 classification, rows/s", 2000, lambda f: fastest(f, CLASSES, names=["predict-classification"])),
    at_least("7 classification, × best HF", 5, lambda f: ratio(f, "weitiao")),
    at_least("7 … adapter folded in, × best HF", 5, lambda f: ratio(f, "weitiao_merged")),
    at_least("7 entities, rows/s", 800, lambda f: fastest(f, NER, names=["predict-ner"])),
    at_least("7 entities, × best HF", 6, best_hf),
    at_least("7 random weights, float32: same answers", 1, lambda f: agreed(f, "float32", "same")),
    at_most("7 … flipped, batch 1 against 64", 0, lambda f: agreed(f, "float32", "flipped")),
    at_least("7 real weights, bfloat16: same answers", 0.999, lambda f: of(f, "same-answers", "same")),
    at_most("7 … flipped, batch 1 against 64", 0.001, lambda f: of(f, "same-answers", "flipped")),
    at_least("7 real weights, float32: same answers", 1, lambda f: of(f, "same-answers-float32", "same")),
    at_most("7 … flipped, batch 1 against 64", 0, lambda f: of(f, "same-answers-float32", "flipped")),
    at_most("7 start to first answer, s", 8, lambda f: read(f, "first-answer", r"predict, \w+ +([\d.]+) s")),
    at_least("8 reviews: curves within at twice the rows", 0.8, lambda f: held_back(f, "held-back-reviews")),
    at_least("8 entities: curves within at twice the rows", 0.8, lambda f: held_back(f, "held-back-daily")),
)
