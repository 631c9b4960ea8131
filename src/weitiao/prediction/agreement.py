"""Whether a model with its adapter folded in answers as the one with the adapter apart does."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from weitiao.data.splits import load
from weitiao.errors import ConfigError, WeitiaoError
from weitiao.families.base import model_config
from weitiao.images import measured_root
from weitiao.prediction.adapter_folder import AdapterFolder
from weitiao.prediction.evaluate import run_config
from weitiao.run_folder import RunFolder
from weitiao.tasks.base import Example
from weitiao.tracking.screen import Screen
from weitiao.types import Prediction, Row

if TYPE_CHECKING:
    from weitiao.prediction.predictor import Predictor

T = TypeVar("T")

ROWS = 16
"""Rows that are answered both ways before `predict` goes on with merged weights."""
LEAST_EQUAL = 15 / 16
"""Share of them whose answers have to be equal."""
LEAST_EQUAL_TEXTS = 0.5
"""The same for free text, which parts for good at the first word that is as likely as another one."""
MOST_NATS = {"float32": 0.01, "bfloat16": 1.0, "float16": 1.0}
"""Largest difference of an answer's log-probability. In float32 only the order of sums differs, ≈ 1e-4; in 16 bits
each token of a long answer adds some hundredths."""
TOLD = ("prediction", "probability", "suggestion", "reference")
"""Fields of a row of `predictions.jsonl` that the run added."""


@dataclass(frozen=True)
class Agreement:
    rows: int
    equal: int
    """Rows whose answers are equal."""
    gap: float
    """Largest difference of an answer's log-probability, in nats, where both give it one."""

    def holds(self, least_equal: float, most_nats: float) -> bool:
        """least_equal: share of the rows; one row may always differ, as it may lie on the edge between two answers."""
        return self.equal >= min(least_equal * self.rows, self.rows - 1) and self.gap <= most_nats

    def __str__(self) -> str:
        return (
            f"{self.equal} of {self.rows} answers equal, log-probabilities of answers at most {self.gap:.2g} nats apart"
        )


def compared(first: Sequence[Prediction], second: Sequence[Prediction]) -> Agreement:
    """Two systems' answers to the same rows."""
    pairs = list(zip(first, second, strict=True))
    chances = [pair for a, b in pairs if (pair := _chances(a, b)) is not None]
    # One that is 0 has no logarithm; then only its answer is compared.
    gaps = [abs(math.log(a) - math.log(b)) for a, b in chances if a and b]
    return Agreement(len(pairs), sum(a.text == b.text for a, b in pairs), max(gaps, default=0.0))


def refuse_quantized(folder: AdapterFolder) -> None:
    """ConfigError where the weights are not whole numbers of 16 or 32 bits: a sum would be rounded to 4 bits again, and
    an adapter that was trained beside such weights makes up for their errors."""
    if folder.told.base.quantization or model_config(folder.base.folder).get("quantization_config"):
        what = folder.told.base.quantization or "few bits"
        raise ConfigError(
            f"{folder.path}: was trained on weights in {what}, into which it cannot be folded; use the adapter apart "
            "(no --merged), or train with model.placement=one"
        )


def open_merged(
    folder: AdapterFolder,
    examples: Sequence[Example],
    screen: Screen,
    device: str = "auto",
    dtype: str = "auto",
) -> Predictor:
    """The model with its adapter folded into the weights, once it has answered `examples` as the adapter apart does.

    Where it does not, a warning says so and the adapter stays apart: that is the model that was measured, and a job of
    many rows is not lost. Raises ConfigError for weights in 4 bits.
    """
    refuse_quantized(folder)
    from weitiao.model.merge import merge
    from weitiao.prediction.predictor import Predictor

    apart = Predictor.open(folder, device, dtype, merging=True)
    wanted = apart.answer(examples)
    model = apart.model
    # It holds the weights as they were laid together for it.
    del apart
    gc.collect()
    merged = Predictor.around(folder, merge(model))
    del model
    if not examples:
        screen.note("merged weights: no rows to compare them on with the adapter apart")
        return merged
    found = compared(wanted, merged.answer(examples))
    screen.note(f"merged weights beside the adapter apart: {found}")
    least = LEAST_EQUAL if folder.task.has_labels else LEAST_EQUAL_TEXTS
    most = MOST_NATS[str(merged.forward.head.weight.dtype).removeprefix("torch.")]
    if found.holds(least, most):
        return merged
    screen.warn(
        f"wanted {least:.1%} equal and at most {most:g} nats; going on with the adapter apart, which was measured"
    )
    del merged
    gc.collect()
    return Predictor.open(folder, device, dtype)


def held_out(folder: AdapterFolder, most: int, screen: Screen) -> list[Example]:
    """Up to `most` rows, evenly spaced, of those that the adapter's run was measured on; none, with a note, where they
    are gone."""
    try:
        return _answered(folder, most) or _of_data(folder, most)
    except (WeitiaoError, OSError, ValueError) as error:
        screen.note(f"the run's held-out rows cannot be read ({error})")
        return []


def _answered(folder: AdapterFolder, most: int) -> list[Example]:
    """Of `predictions.jsonl`."""
    run = RunFolder(folder.path.parent)
    if not run.predictions.is_file():
        return []
    root = measured_root(run_config(folder.path).data, str(run.read_metrics().get("split")))
    lines = list(enumerate(run.predictions.read_text("utf-8").splitlines(), 1))
    examples = []
    for number, line in _spaced(lines, most):
        fields = {key: value for key, value in json.loads(line).items() if key not in TOLD}
        row = Row(fields, str(run.predictions), number, folder.told.columns, root)
        examples.append(folder.task.example(row, labelled=False))
    return examples


def _of_data(folder: AdapterFolder, most: int) -> list[Example]:
    config = run_config(folder.path)
    _, splits = load(config.data, folder.task.options, config.run.seed)
    return _spaced(splits.test or splits.validation, most)


def _spaced(rows: Sequence[T], most: int) -> list[T]:
    count = min(most, len(rows))
    return [rows[at * len(rows) // count] for at in range(count)]


def _chances(first: Prediction, second: Prediction) -> tuple[float, float] | None:
    """Probability of the first answer in both."""
    if isinstance(first.answer, str) and first.answer in first.scores:
        return first.scores[first.answer], second.scores[first.answer]
    if first.text != second.text or first.probability is None or second.probability is None:
        return None
    return first.probability, second.probability
