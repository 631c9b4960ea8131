"""What a check is given, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from weitiao.check.finding import Finding
from weitiao.check.reading import Trouble
from weitiao.check.table import Table
from weitiao.config import RunConfig
from weitiao.data.encode import Encoder
from weitiao.model.base import Base
from weitiao.tasks.base import Example, Task


@dataclass(frozen=True)
class Setting:
    """What holds for all rows."""

    config: RunConfig
    task: Task
    base: Base
    encoder: Encoder
    trouble: Trouble
    """Where rows go that training refuses."""


@dataclass(frozen=True)
class Batch:
    """Rows that follow one another, in memory for a moment."""

    start: int
    """Number of the first in the table."""
    splits: Sequence[str]
    """That their files, or their fields, say; shares are drawn later."""
    examples: Sequence[Example]
    keys: Sequence[str]
    """What equal rows have in common (`data/splits.py`)."""
    texts: Sequence[str]
    """What rows say, in one normal form; where answers are free texts, line by line, and the answer, too."""


class Check:
    """One subject. `look` is called with all rows, batch by batch; then `findings` and `facts` once."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def look(self, batch: Batch) -> None:
        """See rows while they are in memory; not all checks need to."""

    def findings(self, table: Table) -> Iterator[Finding]:
        """Only what was found: none has a count of 0."""
        return iter(())

    def facts(self, table: Table) -> dict[str, Any]:
        """Figures for the screen and the page, as JSON."""
        return {}
