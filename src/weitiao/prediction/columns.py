"""By which columns a file that comes to a finished run is read: mostly by those of the run's own rows.

A run of `data.columns={text: 评论, label: 评价}` that is given a file with `text` and `label` reads these, and a note
says so. Each field is looked at by itself, and a file that can be read by the run's columns is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weitiao.config import DataSection
from weitiao.data.source import iter_rows
from weitiao.errors import DataError
from weitiao.tasks.base import Task
from weitiao.tracking.screen import Screen
from weitiao.types import Row


def columns_of_file(task: Task, path: str | Path, data: DataSection, labelled: bool, screen: Screen) -> dict[str, str]:
    """What its first row tells, with a note where that is not what `data` says. DataError for a file without rows."""
    row = next(iter_rows(path, data))
    columns = columns_for(task, row, labelled)
    say_standard(columns, row.columns, str(path), screen)
    return columns


def columns_for(task: Task, row: Row, labelled: bool) -> dict[str, str]:
    """The columns of a row, or the standard names in place of those that it lacks, if it cannot be read otherwise.

    A column that another field is read from stands for no second one.
    """
    missing = [name for name, column in row.columns.items() if column and column not in row.fields]
    free = [name for name in row.fields if name not in row.columns.values()]
    found = {name: [known for known in task.fields.get(name, ()) if known in free] for name in missing}
    standard = {name: known[0] for name, known in found.items() if known}
    columns = dict(row.columns)
    if not standard:
        return columns
    try:
        task.example(row, labelled)
    except DataError:
        columns |= standard
    return columns


def say_standard(columns: Mapping[str, str], usual: Mapping[str, str], source: str, screen: Screen) -> None:
    """A note of the columns that are not the usual ones."""
    other = [name for name, column in columns.items() if usual[name] != column]
    if other:
        missing = " or ".join(repr(usual[name]) for name in other)
        taken = ", ".join(f"{columns[name]!r} as {name}" for name in other)
        screen.note(f"{source}: no column {missing}, which the run's own rows have; read {taken}")
