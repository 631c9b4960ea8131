"""Which rows validate and test: files that lie beside one called `train`, or shares of the file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from weitiao.config import DataSection
from weitiao.data.source import iter_rows
from weitiao.data.splits import SPELLINGS
from weitiao.errors import WeitiaoError
from weitiao.init.counts import ANSWERS
from weitiao.init.found import Found
from weitiao.init.proposals import RULES, Rows, ruled
from weitiao.init.table import is_empty
from weitiao.types import Row

HeldOut = Mapping[str, tuple[str | float, str]]
"""`validation`, `test` → a file or a share, and why."""
Say = Callable[[str], None]


def held_out(file: str, data: DataSection, found: Found, rows: int, say: Say) -> HeldOut:
    """Empty where a field of the rows says it."""
    if found.split_field:
        return {}
    share = ruled(RULES["share"], rows)
    chosen: dict[str, tuple[str | float, str]] = {}
    for split in ("validation", "test"):
        other = _beside(file, split, data, found, say)
        chosen[split] = (other, "lies beside it") if other else (share.value, f"share of the rows; {share.why}")
        value, why = chosen[split]
        say(f"{split}: {value}, {why}" if other else f"{split}: {share.value:.0%} of the rows; {share.why}")
    return chosen


def split_rows(chosen: HeldOut, found: Found, data: DataSection, rows: Sequence[Row]) -> Rows:
    """About how many rows each split has."""
    if found.split_field:
        said = Counter(SPELLINGS[str(row.fields[found.split_field]).strip().lower()] for row in rows)
        return Rows(said["train"], said["validation"], said["test"])
    counts = {split: _rows_of(value, data, len(rows)) for split, (value, _) in chosen.items()}
    kept = len(rows) - sum(counts[split] for split, (value, _) in chosen.items() if isinstance(value, float))
    return Rows(kept, **counts)


def _rows_of(value: str | float, data: DataSection, rows: int) -> int:
    return sum(1 for _ in iter_rows(value, data)) if isinstance(value, str) else max(1, round(value * rows))


def _beside(file: str, split: str, data: DataSection, found: Found, say: Say) -> str | None:
    """The file of a split's rows that lies beside one called `train`, if its rows are labelled."""
    path = Path(file)
    for spelling in (name for name, means in SPELLINGS.items() if means == split):
        other = path.with_name(re.sub("train", spelling, path.name, flags=re.IGNORECASE))
        if other.name == path.name or not other.is_file():
            continue
        why = _unusable(other, data, found)
        if why is None:
            return str(other)
        say(f"{split}: {other} lies beside it, but {why}; it is left out")
    return None


def _unusable(other: Path, data: DataSection, found: Found) -> str | None:
    answer = next(found.columns[role] for role in (*ANSWERS, "conversation") if role in found.columns)
    try:
        rows = list(iter_rows(other, data))
    except WeitiaoError as error:
        return f"cannot be read as this file is ({error})"
    without = [row.place for row in rows if is_empty(row.fields.get(answer))]
    return f"{len(without):,} of its rows have no {answer!r} (first {without[0]})" if without else None
