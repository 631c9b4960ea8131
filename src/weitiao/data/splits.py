"""A data section as typed examples in three splits, no text in two of them.

Two texts are the same when they agree after NFKC and with white space collapsed, and so do the images beside them.
Where splits are files or a field of the rows, a text keeps its place in test before validation before train and is left
out of the others; shares of the train file are drawn text by text, so that nothing has to be left out.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from weitiao.config import DataSection
from weitiao.data.formats import image_folder
from weitiao.data.formats.text_file import TEXT_FILES, text_encoding
from weitiao.data.shares import asked_shares, limited, shares_of
from weitiao.data.source import data_file, read_rows
from weitiao.errors import DataError, ImageError
from weitiao.images import image_facts
from weitiao.tasks.base import Example, Task, TaskOptions, task_class
from weitiao.types import Row

NAMES = ("test", "validation", "train")
"""In the order in which they keep a text."""
SPELLINGS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev", "eval"), "validation"
)


@dataclass
class Splits:
    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the user should know of the splits: rows left out, one line each."""
    repeats: list[str] = field(default_factory=list)
    """… and of the training rows: those that repeat or contradict others."""


def load(data: DataSection, options: TaskOptions, seed: int) -> tuple[Task, Splits]:
    """The task, its options completed from the training rows, and the examples of each split in file order.

    Raises DataError for a file or row that cannot be used and for a split without rows, ConfigError for shares that
    leave nothing to train on.
    """
    rows = _rows_by_field(data) if data.split_field else _rows_by_file(data)
    kind = task_class(options.name)
    task = kind(kind.resolve(options, rows["train"]))
    examples = {name: _examples(rows[name], task) for name in NAMES}
    splits = Splits(examples["train"], examples["validation"], examples["test"])
    _leave_out_shared(splits, "rows" if data.split_field else "file")
    held = seed if data.split_seed is None else data.split_seed
    _hold_out_shares(splits, data, task, held)
    _refuse_empty(splits, data, asked=[name for name in NAMES if rows[name]])
    _limit_rows(splits, data, task, {"train": seed, "validation": held, "test": held})
    splits.repeats = _repeats(splits.train, task)
    return task, splits


def _examples(rows: Sequence[Row], task: Task) -> list[Example]:
    try:
        return [task.example(row) for row in rows]
    except DataError as error:
        raise type(error)(f"{error}; `weitiao check` lists all such rows") from None


def text_key(text: str) -> str:
    """What two texts have in common when they are the same."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def row_key(example: Example) -> str:
    """What two rows have in common when their texts and their images are the same."""
    try:
        images = [image_facts(path).digest for path in example.images]
    except DataError as error:
        raise ImageError(f"{example.row.place}: {error}") from None
    return "\0".join([text_key(example.text), *images])


def fingerprint(data: DataSection) -> dict[str, str]:
    """File → SHA-256 of its bytes, for every file that `load` reads; of a folder of images, of all that it holds."""
    found = {}
    for path in named_files(data).values():
        file = data_file(path)
        try:
            if file.is_dir():
                found[path] = image_folder.digest(file, data.encoding)
                continue
            with file.open("rb") as raw:
                found[path] = hashlib.file_digest(raw, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    return found


def hold_out(examples: Sequence[Example], shares: Mapping[str, float], task: Task, seed: int) -> dict[str, set[int]]:
    """Positions for each share; how they are drawn is in `data/shares.py`."""
    return shares_of([row_key(e) for e in examples], [task.stratum(e) for e in examples], shares, seed)


def named_files(data: DataSection) -> dict[str, str]:
    """Split → the file that a config names for it, the training file first."""
    named = {"train": data.train}
    for name in ("validation", "test"):
        value = getattr(data, name)
        if isinstance(value, str) and not data.split_field:
            named[name] = value
    return named


def read_as(data: DataSection) -> list[str]:
    """A line for each text file that is read in another encoding than UTF-8 without the config saying so."""
    told = []
    for path in named_files(data).values():
        file = data_file(path)
        if file.suffix.lower() in TEXT_FILES and (found := text_encoding(file, data.encoding)) != data.encoding:
            told += [f"{file}: read as {found}"] if found != "utf-8" else []
    return told


def _rows_by_file(data: DataSection) -> dict[str, list[Row]]:
    return {name: [] for name in NAMES} | {name: read_rows(path, data) for name, path in named_files(data).items()}


def _rows_by_field(data: DataSection) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {name: [] for name in NAMES}
    for row in read_rows(data.train, data):
        rows[split_of(row, str(data.split_field))].append(row)
    if not rows["train"]:
        raise no_row_to_train_on(data)
    return rows


def no_row_to_train_on(data: DataSection) -> DataError:
    """Of a file whose rows say their split."""
    return DataError(f"{data.train}: no row's {data.split_field!r} is 'train'; mark the rows to train on")


def split_of(row: Row, name: str) -> str:
    """The split that a row's field `name` says; DataError when it says none."""
    if name not in row.fields:
        raise DataError(f"{row.place}: no field {name!r} (data.split_field); it has {', '.join(map(str, row.fields))}")
    value = row.fields[name]
    split = SPELLINGS.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise DataError(f"{row.place}: {name!r} is {value!r:.40}; wanted train, validation or test")
    return split


def _leave_out_shared(splits: Splits, source: str) -> None:
    """Take texts out of validation and train that an earlier split of `NAMES` has, with a note."""
    for keeps in ("test", "validation"):
        texts = {row_key(example) for example in getattr(splits, keeps)}
        for name in NAMES[NAMES.index(keeps) + 1 :]:
            examples: list[Example] = getattr(splits, name)
            shared = [example for example in examples if row_key(example) in texts]
            if shared:
                setattr(splits, name, [example for example in examples if row_key(example) not in texts])
                splits.notes.append(
                    f"{_count(len(shared), name)} left out, as the {keeps} {source} "
                    f"{'have' if source == 'rows' else 'has'} the same text (first {shared[0].row.place})"
                )


def _hold_out_shares(splits: Splits, data: DataSection, task: Task, seed: int) -> None:
    if data.split_field:
        return
    pool = splits.train
    held = hold_out(pool, asked_shares(data), task, seed)
    for name, positions in held.items():
        setattr(splits, name, [pool[position] for position in sorted(positions)])
    gone = set[int]().union(*held.values())
    splits.train = [example for position, example in enumerate(pool) if position not in gone]


def _limit_rows(splits: Splits, data: DataSection, task: Task, seeds: Mapping[str, int]) -> None:
    """Of one seed, fewer rows are always among more of them: both are the beginning of one stratified order."""
    for name in NAMES:
        examples: list[Example] = getattr(splits, name)
        most: int | None = getattr(data, f"{name}_rows")
        if most is None or len(examples) <= most:
            continue
        drawn = limited([task.stratum(example) for example in examples], most, f"{seeds[name]} {name}")
        setattr(splits, name, [examples[position] for position in drawn])
        splits.notes.append(f"{_count(most, name)} of {len(examples)} used (data.{name}_rows={most})")


def _refuse_empty(splits: Splits, data: DataSection, asked: list[str]) -> None:
    for name in reversed(NAMES):
        wanted = name in asked or (not data.split_field and getattr(data, name) is not None)
        if getattr(splits, name) or not wanted:
            continue
        value = getattr(data, name)
        if isinstance(value, float) and not data.split_field:
            what = f"data.{name}={value:g} gives no {name} rows: the other splits need the few texts that there are"
            raise DataError(f"{data.train}: {what}; add rows, name a file or set data.{name}=null")
        file = data.train if data.split_field else value
        raise DataError(f"{file}: no {_kind(name)} rows remain ({'; '.join(splits.notes)}); give it texts of its own")


def _repeats(examples: Sequence[Example], task: Task) -> list[str]:
    """Notes on rows that repeat an earlier one and on texts with different answers."""
    seen: dict[str, dict[str, str]] = defaultdict(dict)
    repeated: list[str] = []
    for example in examples:
        answers = seen[row_key(example)]
        answer = json.dumps(task.record(example.answer), ensure_ascii=False, sort_keys=True, default=str)
        if answer in answers:
            repeated.append(example.row.place)
        answers.setdefault(answer, example.row.place)
    notes = (
        [f"kept with the text and answer of an earlier one: {_count(len(repeated), 'train')} (first {repeated[0]})"]
        if repeated
        else []
    )
    differing = [list(answers.values()) for answers in seen.values() if len(answers) > 1]
    if differing:
        notes.append(
            f"training texts with different answers: {len(differing)} (first {' and '.join(differing[0][:2])})"
        )
    return notes


def _count(number: int, split: str) -> str:
    return f"{number} {_kind(split)} row" + ("s" if number != 1 else "")


def _kind(split: str) -> str:
    return "training" if split == "train" else split
