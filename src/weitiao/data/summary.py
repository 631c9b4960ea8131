"""What a split consists of, in numbers: for the log, and so for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weitiao.tasks.base import Example, Task
from weitiao.types import Encoded

BINS = 24
"""Most bins of the histogram of lengths."""
MOST_NAMES = 50
"""Labels that are counted one by one; the rest is counted together."""


def summary(task: Task, examples: Sequence[Example], encoded: Sequence[Encoded]) -> dict[str, Any]:
    """What `examples` and their tokens are, as JSON.

    rows         how many
    names        label or type → how often it is named, the most frequent first; at most 50
    other_names  what the remaining ones are named together, where there are more
    unnamed      rows that name none
    tokens       of prompt and answer: median, p95, max, and a histogram of at most 24 bins,
                     {"edges": [n + 1], "counts": [n]}; bin i holds edges[i] ≤ length < edges[i + 1]
    shortened    rows whose text is longer than `data.max_length`
    """
    if not examples:
        return {"rows": 0}
    named = [task.named(example.answer) for example in examples]
    counts = Counter(name for names in named for name in names).most_common()
    return {
        "rows": len(examples),
        "names": dict(counts[:MOST_NAMES]),
        "other_names": sum(count for _, count in counts[MOST_NAMES:]),
        "unnamed": sum(not names for names in named),
        "tokens": lengths_told(np.array([len(e.ids) for e in encoded])),
        "shortened": sum(e.removed > 0 for e in encoded),
    }


def lengths_told(lengths: NDArray[Any]) -> dict[str, Any]:
    """What `summary` says of tokens; at least one length is there."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // BINS)
    edges = np.arange(low, high + width + 1, width)
    heights, _ = np.histogram(lengths, edges)
    median, p95, most = np.quantile(lengths, (0.5, 0.95, 1.0), method="higher").tolist()
    return {
        "median": median,
        "p95": p95,
        "max": most,
        "histogram": {"edges": edges.tolist(), "counts": heights.tolist()},
    }
