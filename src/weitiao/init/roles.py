"""The task of a file: what the user says, what its cells show, what its columns are called, in this order."""

from __future__ import annotations

from weitiao.errors import ConfigError, DataError
from weitiao.init.choices import CHOICES, label_columns, prose
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
    """The task that the columns tell, with its reason in `found`; DataError when they do not."""
    for column in table.values():
        if is_conversation(column):
            return _told(found, "generation", f"column {column.name!r} holds conversations")
        if is_entities(column) and asked.label in (None, column.name):
            return _told(found, "ner", f"column {column.name!r} holds lists of entities")
    question, answer = _named(table, "question"), _named(table, "answer")
    if question and answer and not asked.label:
        return _told(found, "generation", f"{question[0]!r} and {answer[0]!r} are called question and answer")
    if asked.label:
        return _told(found, "classification", f"{asked.label!r} is to be its label")
    if known := label_columns(table, asked, image):
        return _told(found, "classification", f"column {known[0][0].name!r} has few values that come often")
    if answer:
        return _told(found, "generation", f"{answer[0]!r} is called answer, and its cells mostly differ")
    if image and len(prose(table, found)) == 1:
        return _told(found, "generation", "each image has a text of its own")
    raise DataError(undecided(table, _why_none(table)))


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


def _told(found: Found, task: str, why: str) -> str:
    found.reasons.append(f"task: {task}, since {why}")
    return task
