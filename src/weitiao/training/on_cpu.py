"""A large model is not trained on a CPU unless that is asked for: it may take days, and the first hour does not tell.

The estimate is a lower bound: the products of matrices alone, at the rate of one that is measured here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weitiao.config import RunConfig
from weitiao.data.pack import steps_per_epoch
from weitiao.errors import ConfigError
from weitiao.model.files import tensor_shapes
from weitiao.types import Encoded

if TYPE_CHECKING:
    import torch

MOST = 1_000_000_000
"""Parameters of a model that is trained on a CPU without being asked for."""
PASSES = 4
"""Operations for a parameter and a token: 2 forwards, 2 backwards to its input; frozen weights have no gradient."""
PRODUCT = (256, 2048, 2048)
"""Sizes of the product that is measured, as a layer has them."""
TRIES = 3


def refuse_large(config: RunConfig, folder: Path, dtype: torch.dtype, encoded: Sequence[Encoded], prefix: int) -> None:
    """ConfigError when the model in `folder` is too large for a CPU and `training.on_cpu` does not allow it.

    Reads the headers of its weights. prefix: first tokens that all rows share, computed once a step.
    """
    if config.training.on_cpu == "allow":
        return
    shapes = tensor_shapes(folder)
    count = sum(map(math.prod, shapes.values()))
    if count <= MOST:
        return
    tokens, rate = tokens_of_run(config, [len(e.ids) for e in encoded], prefix), operations_per_second(dtype)
    least = duration(PASSES * in_products(shapes) * tokens / rate)
    raise ConfigError(
        f"{config.model.name} has {count / 1e9:.1f} billion parameters, and would be trained on a CPU: at least about "
        f"{least} for {tokens:,} tokens at {rate / 1e9:,.0f} GFLOP/s, as measured here; "
        "use a card or a smaller model, or set training.on_cpu=allow"
    )


def tokens_of_run(config: RunConfig, lengths: Sequence[int], prefix: int) -> int:
    """Tokens that all steps compute."""
    section = config.training
    per_epoch = steps_per_epoch(len(lengths), section.samples_per_step)
    steps = section.max_steps or max(1, round(section.num_train_epochs * per_epoch))
    own = sum(lengths) - prefix * len(lengths)
    return round(steps * (own / per_epoch + prefix))


def in_products(shapes: Mapping[str, Sequence[int]]) -> int:
    """Parameters that every token is multiplied with: embeddings are looked up, and the head is for answers only."""
    left_out = ("embed", "lm_head", "output_layer", "visual")
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and not any(part in name for part in left_out)
    )


def operations_per_second(dtype: torch.dtype) -> float:
    """The best of a few products, after one that warms up."""
    import torch

    rows, width, out = PRODUCT
    left, right = torch.ones(rows, width, dtype=dtype), torch.ones(width, out, dtype=dtype)
    return best_rate(lambda: left @ right)


def best_rate(product: Callable[[], object]) -> float:
    """Of a product of the sizes `PRODUCT`."""
    seconds = []
    for _ in range(TRIES + 1):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return 2 * math.prod(PRODUCT) / min(seconds[1:])


def duration(seconds: float) -> str:
    """`90 minutes`, `5 hours`, `12 days`."""
    for unit, length, most in (("minutes", 60, 120), ("hours", 3600, 48)):
        if seconds / length < most:
            return f"{max(1, round(seconds / length))} {unit}"
    return f"{round(seconds / 86400):,} days"
