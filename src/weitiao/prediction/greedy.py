"""The label that a decoder writes which takes the likeliest allowed token each time: `--decoding greedy`.

Labels' tokens, each with its stop, are a tree. By default the label whose whole path is likeliest is the answer
(`exact`). A greedy decoder is bound to its first choice, however unlikely all that follows is:

    ─┬─ 0.6 Real ─┬─ 0.3 (stop)           0.18
     │            └─ 0.4 estate (stop)    0.24     the greedy answer
     └─ 0.4 Sport (stop)                  0.40     the likeliest label
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weitiao.config import suggestion
from weitiao.errors import ConfigError
from weitiao.tasks.base import Task

DECODINGS = ("exact", "greedy")


def refuse_decoding(task: Task, decoding: str) -> None:
    """ConfigError for a decoding that there is not, or greedy answers of a task that picks no single label."""
    if decoding not in DECODINGS:
        raise ConfigError(f"decoding {decoding!r}: no such way; {suggestion(decoding, DECODINGS)}")
    if decoding == "greedy" and not task.picks_one:
        why = "several labels are chosen by their probabilities" if task.lists_labels else "its answers always are"
        raise ConfigError(f"decoding greedy: is for one label of a list ({task.name}: {why}); leave it out")


def greedy(paths: Sequence[tuple[int, ...]], steps: Sequence[NDArray[np.float64]]) -> int:
    """Which of the paths it is; of equal ones the first.

    paths: token ids of each label, its stop included, which is in no path before its end.
    steps: log-probability of each token of each path behind those before it, in nats, [tokens of the path].
    """
    left, depth = list(range(len(paths))), 0
    while True:
        best = max(left, key=lambda at: steps[at][depth])
        if depth == len(paths[best]) - 1:
            return best
        left = [at for at in left if paths[at][depth] == paths[best][depth]]
        depth += 1
