"""What the proposed model cannot do, and what to call for a larger card."""

from __future__ import annotations

from collections.abc import Iterator

from weitiao.cost.at_hand import Card
from weitiao.init.proposals import MODELS, Proposal
from weitiao.tasks.base import Language

SMALL = {
    "classification": {
        "en": "in the demo it tells film reviews apart better than TF-IDF does; a larger model is better still",
        "zh": "but it is an English model: on Chinese product reviews it loses to TF-IDF (README)",
    },
    "ner": {
        "en": "expect names that it was trained on, and few others",
        "zh": "but it is an English model, and poor at Chinese: expect names that it was trained on, and few others",
    },
    "generation": {
        "en": "expect short answers of the trained form, many of them wrong",
        "zh": "but it is an English model, and poor at Chinese: expect the form of an answer, hardly its content",
    },
}
"""Task and language → what SmolLM2-135M is good for."""
LEAST_TESTED = 30
"""Test rows below which an interval is too wide to tell much (reckoned)."""


def cautions(made: Proposal, card: Card | None, task: str, language: Language, tested: int) -> Iterator[str]:
    """tested: rows of the test split."""
    model = made.model
    if model.name.startswith("pypi:smollm2"):
        yield f"{model.name} shows every step without a card, {SMALL[task][language]}"
        yield _LARGER
    elif model.least_gib > (card.gib if card else 0):
        came = f"the card has {card.gib:.0f} GiB" if card else "no card was found"
        yield (
            f"{model.name} wants a card of about {model.least_gib:.0f} GiB, and {came}: expect hours, or too little "
            "memory; data.train_rows=100 shows whether it works at all"
        )
    if tested < LEAST_TESTED:
        yield f"about {tested} test rows tell little, as the intervals will be wide; label more, or hold out a file"


_LEAST = next(model for model in MODELS if model.least_gib and not model.images)
_LARGER = (
    f"for a card of {_LEAST.least_gib:.0f} GiB or more, here or to be rented, call `weitiao init` again with --gpu and "
    f"its name, such as --gpu 4090: that proposes {_LEAST.name}"
)
