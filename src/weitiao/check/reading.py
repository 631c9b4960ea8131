"""The rows of a config, typed one after another. What cannot be read or typed is counted, and the rest goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, overload

from weitiao.check.finding import Finding
from weitiao.config import DataSection
from weitiao.data.source import data_file, iter_rows
from weitiao.data.splits import named_files, no_row_to_train_on, split_of
from weitiao.errors import DataError, WeitiaoError
from weitiao.tasks.base import Example, Task, TaskOptions, task_class
from weitiao.types import Row

FEW_ROWS = 200
"""Rows that are kept, as tasks look at the first ones more than once; by so many they tell the language."""
FIRST_ROWS = 1_000
"""Rows by which a task without labels completes its options."""
BROKEN = "broken-file"
TROUBLE = {
    BROKEN: (("broken place", "behind which nothing was read of the file"), "mend the file there, then check again"),
    "bad-row": (("row", "without what the task needs"), "correct or remove them"),
    "bad-image": (
        ("row", "with an image that is missing or of no use"),
        "correct the path, replace or remove the image",
    ),
    "entity-offsets": (
        ("row", "with an entity that is not where its offsets say"),
        "count code points, the end exclusive; or leave offsets out, to have entities looked up",
    ),
    "unknown-label": (
        ("row", "with a label or type outside the set"),
        "correct it, or add it to task.labels or task.types",
    ),
    "no-supervised-token": (
        ("row", "with an answer of no tokens, so that nothing is trained"),
        "fill it in, or remove the row",
    ),
    "too-long": (
        ("row", "with more tokens than the model takes"),
        "lower data.max_length, or shorten what is never cut",
    ),
}
"""Name of an error → what has it (a noun, and the rest), and what to do."""


class Trouble:
    """Rows that training refuses, by the name of the error."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}
        self.numbers: list[int] = []
        """Of those that were typed before."""

    def add(self, error: WeitiaoError, number: int | None = None, name: str | None = None) -> None:
        place, _, said = str(error).partition(": ")
        name = name or error.finding
        self._found.setdefault(name, Finding(name, "error")).add(place, said, most=len(said))
        if number is not None:
            self.numbers.append(number)

    @property
    def count(self) -> int:
        """Rows; what a broken file may have is not known."""
        return sum(finding.count for name, finding in self._found.items() if name != BROKEN)

    def findings(self) -> Iterator[Finding]:
        for name in TROUBLE:
            if (finding := self._found.get(name)) is not None:
                (noun, rest), finding.do = TROUBLE[name]
                finding.what = f"{finding.count:,} {noun}{'' if finding.count == 1 else 's'} {rest}"
                yield finding


class _TrainingRows(Sequence[Row]):
    """The training rows, read anew each time that they are asked for; those that cannot be read are left out."""

    def __init__(self, data: DataSection, most: int | None = None, only: Any = None) -> None:
        self._data, self._most, self._only = data, most, only
        self.broken: DataError | None = None
        """What is wrong with the file, where it cannot be read to its end."""
        self._first = list(itertools.islice(self, FEW_ROWS))

    def __iter__(self) -> Iterator[Row]:
        return itertools.islice(filter(self._only, self._read()), self._most)

    def _read(self) -> Iterator[Row]:
        try:
            for row in iter_rows(self._data.train, self._data):
                if not self._data.split_field or _is_training(row, self._data.split_field):
                    yield row
        except DataError as error:
            self.broken = error

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        if isinstance(at, slice):
            return self._first[at] if (at.stop or FEW_ROWS + 1) <= FEW_ROWS else list(self)[at]
        return self._first[at] if 0 <= at < FEW_ROWS else list(self)[at]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._first)


def task_of(data: DataSection, options: TaskOptions) -> Task:
    """The task, its options completed from the training rows that can be typed. DataError when none can."""
    for path in named_files(data).values():
        data_file(path)
    kind = task_class(options.name)
    most = None if kind.has_labels else FIRST_ROWS
    rows = _TrainingRows(data, most)
    try:
        return kind(kind.resolve(options, rows))
    except DataError as error:
        if data.split_field and not rows and not rows.broken:
            raise _none_to_train_on(data, data.split_field) from None
        good = _TrainingRows(data, most, lambda row: _resolves(kind, options, row))
        if not good:
            raise good.broken or error from None
        return kind(kind.resolve(options, good))


def _none_to_train_on(data: DataSection, field: str) -> DataError:
    """Why: the first row that says no split, or that none says `train`."""
    try:
        for row in iter_rows(data.train, data):
            split_of(row, field)
    except DataError as error:
        return error
    return no_row_to_train_on(data)


def examples(data: DataSection, task: Task, trouble: Trouble) -> Iterator[tuple[str, Example]]:
    """(split that the file or the field says, typed row), in the order of the files."""
    for split, path in named_files(data).items():
        rows = iter_rows(path, data)
        while (row := _next(rows, trouble)) is not None:
            try:
                yield split_of(row, data.split_field) if data.split_field else split, task.example(row)
            except DataError as error:
                trouble.add(error)


def _next(rows: Iterator[Row], trouble: Trouble) -> Row | None:
    """The next row; None at the file's end, and where it is broken, so that no more can be read of it."""
    try:
        return next(rows, None)
    except DataError as error:
        trouble.add(error, name=BROKEN)
        return None


def _is_training(row: Row, field: str) -> bool:
    try:
        return split_of(row, field) == "train"
    except DataError:
        return False


def _resolves(kind: type[Task], options: TaskOptions, row: Row) -> bool:
    try:
        kind.resolve(options, [row])
    except DataError:
        return False
    return True
