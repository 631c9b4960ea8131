"""What is asked of a file, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weitiao.init.labels import Labels
from weitiao.init.table import Column
from weitiao.tasks.base import task_class

Table = Mapping[str, Column]


@dataclass(frozen=True)
class Asked:
    """What the user says of the file; None leaves it to us."""

    task: str | None = None
    text: str | None = None
    label: str | None = None


@dataclass
class Found:
    """A task, its columns (our field → the file's), its options, and a line on each decision."""

    task: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    split_field: str | None = None
    labels: Labels | None = None
    reasons: list[str] = field(default_factory=list)

    def take(self, role: str, column: Column, why: str) -> None:
        self.columns[role] = column.name
        self.reasons.append(f"{role}: column {column.name!r}, {why}")

    def mapping(self, names: Mapping[str, Any]) -> dict[str, str]:
        """`data.columns`: each column that the task would not find by itself, and `""` for each that it should not."""
        found = {}
        for ours, known in task_class(self.task).fields.items():
            by_name = next((name for name in known if name in names), None)
            taken = self.columns.get(ours)
            # A fixed set of labels is written as such, and asks no column for options.
            if by_name != taken and (taken or ours != "options"):
                found[ours] = taken or ""
        return found


def undecided(table: Table, why: str) -> str:
    return (
        f"{why}; say what the file is for with --task classification, ner or generation, and which columns to take "
        f"with --text and --label (columns: {', '.join(table)})"
    )
