"""The task of a file: what the user says, what its cells show, what its columns are called, in this order."""

from __future__ import annotations

from collections.abc import Iterator

from weitiao.errors import ConfigError, DataError
from weitiao.init.choices import CHOICES, label_columns, prose, row_options
from weitiao.init.found import Asked, Found, Table, undecided
from weitiao.init.labels import labels_in
from weitiao.init.names import says
from weitiao.init.shapes import image_column, is_conversation, is_entities, is_split, other_entities
from weitiao.init.table import Column
from weitiao.tasks.base import task_class


def roles(table: Table, asked: Asked, root: str) -> Found:
    """Task and columns of a file. root: folder of its images.

    Raises DataError when the file does not tell, ConfigError for a column or task that there is not.
    """
    _refuse_unknown(table, asked)
    found = Found(split_field=next((name for name, column in table.items() if is_split(column)), None))
    if found.split_field:
        found.reasons.append(f"split: column {found.split_field!r} says which rows train and which are held out")
    image = image_column(table, found, root)
    found.task = asked.task or _task(table, asked, image, found)
    if asked.task:
        found.reasons.append(f"task: {found.task}, as you say")
    conversation = next((column for column in table.values() if is_conversation(column)), None)
    if found.task == "generation" and conversation and not asked.label:
        found.take("conversation", conversation, "lists of messages; the last answer is trained")
        for column in (column for name, column in table.items() if says(name, "system") and column.kind == "text"):
            found.take("system", column, "by its name")
    else:
        CHOICES[found.task](table, asked, image, found)
    return found


def _refuse_unknown(table: Table, asked: Asked) -> None:
    for option, name in (("--text", asked.text), ("--label", asked.label)):
        if name is not None and name not in table:
            raise ConfigError(f"{option} {name!r}: no such column; the file has {', '.join(table)}")
    if asked.task and asked.task not in CHOICES:
        task_class(asked.task)  # refuses what is no task at all
        raise ConfigError(f"--task {asked.task}: init writes configs for {', '.join(CHOICES)}; write this one by hand")


def _task(table: Table, asked: Asked, image: Column | None, found: Found) -> str:
    """The task that the columns tell, with its reason in `found`; DataError when they tell none, or two."""
    claims = dict(_claims(table, asked, image)) or dict(_weak_claims(table, asked, image, found))
    if len(claims) > 1:
        both = " or ".join(f"{task} ({why})" for task, why in claims.items())
        raise DataError(f"the file may be for {both}; say which with --task")
    if not claims:
        raise DataError(undecided(table, _why_none(table)))
    ((task, why),) = claims.items()
    found.reasons.append(f"task: {task}, since {why}")
    return task


def _claims(table: Table, asked: Asked, image: Column | None) -> Iterator[tuple[str, str]]:
    """Each task that a column's shape or name, or the user's --label, speaks for, and why."""
    for column in table.values():
        if is_conversation(column):  # nothing else reads one
            yield "generation", f"column {column.name!r} holds conversations"
            return
    for column in table.values():
        if is_entities(column) and asked.label in (None, column.name):
            yield "ner", f"column {column.name!r} holds lists of entities"
    if asked.label:
        yield from _claim_of(table[asked.label])
        return
    question, answer = _named(table, "question"), _named(table, "answer")
    if question and answer:
        yield "generation", f"columns {question[0]!r} and {answer[0]!r} are called question and answer"
    for column, _ in label_columns(table, asked, image):
        if says(column.name, "label") or row_options(table, column):
            yield "classification", f"column {column.name!r} has few values that come often"


def _claim_of(label: Column) -> Iterator[tuple[str, str]]:
    """What the column that the user calls the label speaks for."""
    if is_entities(label):
        return
    if label.is_prose and isinstance(labels_in(label, "asked"), str):
        yield "generation", f"column {label.name!r} is to be its answer, and holds texts that differ"
    else:
        yield "classification", f"column {label.name!r} is to be its label"


def _weak_claims(table: Table, asked: Asked, image: Column | None, found: Found) -> Iterator[tuple[str, str]]:
    """The first task that the contents alone speak for."""
    if known := label_columns(table, asked, image):
        yield "classification", f"column {known[0][0].name!r} has few values that come often"
    elif answer := _named(table, "answer"):
        yield "generation", f"column {answer[0]!r} is called answer, and its cells mostly differ"
    elif image and len(prose(table, found)) == 1:
        yield "generation", "each image has a text of its own"


def _why_none(table: Table) -> str:
    for column in table.values():
        if shape := other_entities(column):
            return (
                f"no task fits: column {column.name!r} holds {shape}, and entities are read as lists of "
                "{start, end, type, text} in .jsonl or .json"
            )
    called = [column for name, column in table.items() if says(name, "label")]
    whys = [f"{column.name!r} is called label, but {labels_in(column, 'named')}" for column in called]
    return "; ".join(["no column looks like labels (few values that come often), entities, answers or images", *whys])


def _named(table: Table, role: str) -> list[str]:
    return [name for name, column in table.items() if says(name, role) and column.kind not in ("empty", "number")]
