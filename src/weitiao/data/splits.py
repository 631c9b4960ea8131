"""A data section as typed examples in three splits, no text in two of them.

Two texts are the same when they agree after NFKC and with white space collapsed, and so do the images beside them.
Where splits are files or a field of the rows, a text keeps its place in test before validation before train and is left
out of the others; shares of the train file are drawn text by text, so that nothing has to be left out.
"""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from weitiao.config import DataSection
from weitiao.data.formats import image_folder
from weitiao.data.source import data_file, read_rows
from weitiao.errors import ConfigError, DataError
from weitiao.images import image_facts
from weitiao.tasks.base import Example, Task, TaskOptions, task_class
from weitiao.types import Row

NAMES = ("test", "validation", "train")
"""In the order in which they keep a text."""
SPELLINGS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev", "eval"), "validation"
)
Group = list[int]
"""Positions of the rows that have one text."""


@dataclass
class Splits:
    train: list[Example] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)
    test: list[Example] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the user should know of the data: rows left out, repeated or contradicting, one line each."""


def load(data: DataSection, options: TaskOptions, seed: int) -> tuple[Task, Splits]:
    """The task, its options completed from the training rows, and the examples of each split in file order.

    Raises DataError for a file or row that cannot be used and for a split without rows, ConfigError for shares that
    leave nothing to train on.
    """
    rows = _rows_by_field(data) if data.split_field else _rows_by_file(data)
    kind = task_class(options.name)
    task = kind(kind.resolve(options, rows["train"]))
    examples = {name: [task.example(row) for row in rows[name]] for name in NAMES}
    splits = Splits(examples["train"], examples["validation"], examples["test"])
    _leave_out_shared(splits, "rows" if data.split_field else "file")
    held = seed if data.split_seed is None else data.split_seed
    _hold_out_shares(splits, data, task, held)
    _refuse_empty(splits, data, asked=[name for name in NAMES if rows[name]])
    _limit_rows(splits, data, task, {"train": seed, "validation": held, "test": held})
    splits.notes += _repeats(splits.train, task)
    return task, splits


def text_key(text: str) -> str:
    """What two texts have in common when they are the same."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def row_key(example: Example) -> str:
    """What two rows have in common when their texts and their images are the same."""
    try:
        images = [image_facts(path).digest for path in example.images]
    except DataError as error:
        raise DataError(f"{example.row.place}: {error}") from None
    return "\0".join([text_key(example.text), *images])


def fingerprint(data: DataSection) -> dict[str, str]:
    """File → SHA-256 of its bytes, for every file that `load` reads; of a folder of images, of all that it holds."""
    found = {}
    for path in _files(data).values():
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
    """Positions for each share, at least one row each where the texts suffice.

    Rows of one text go together. Every stratum gives about its share and keeps its commonest text; strata of a single
    text are taken together as one, and give only what their number makes certain.
    """
    rng = random.Random(seed)
    strata, single = _strata(_groups(examples), examples, task, rng)
    kept = {stratum[-1][0] for stratum in [*strata, single] if stratum}
    left = [group for group in _evenly(strata, single, rng) if group[0] not in kept]
    held: dict[str, set[int]] = {}
    for name, share in shares.items():
        taken, left = _draw(left, max(1, round(share * len(examples))))
        held[name] = {position for group in taken for position in group}
    return held


def _files(data: DataSection) -> dict[str, str]:
    named = {"train": data.train}
    for name in ("validation", "test"):
        value = getattr(data, name)
        if isinstance(value, str) and not data.split_field:
            named[name] = value
    return named


def _rows_by_file(data: DataSection) -> dict[str, list[Row]]:
    return {name: [] for name in NAMES} | {name: read_rows(path, data) for name, path in _files(data).items()}


def _rows_by_field(data: DataSection) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {name: [] for name in NAMES}
    for row in read_rows(data.train, data):
        rows[_split_of(row, str(data.split_field))].append(row)
    if not rows["train"]:
        raise DataError(f"{data.train}: no row's {data.split_field!r} is 'train'; mark the rows to train on")
    return rows


def _split_of(row: Row, name: str) -> str:
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
    shares = {name: share for name in ("test", "validation") if isinstance(share := getattr(data, name), float)}
    if sum(shares.values()) >= 1:
        raise ConfigError(f"keys `data.validation` + `data.test` = {sum(shares.values()):g}; leave a share to train on")
    pool = splits.train
    held = hold_out(pool, shares, task, seed)
    for name, positions in held.items():
        setattr(splits, name, [pool[position] for position in sorted(positions)])
    gone = set[int]().union(*held.values())
    splits.train = [example for position, example in enumerate(pool) if position not in gone]


def _groups(examples: Sequence[Example]) -> list[Group]:
    groups: dict[str, Group] = defaultdict(list)
    for position, example in enumerate(examples):
        groups[row_key(example)].append(position)
    return list(groups.values())


def _strata(
    groups: list[Group], examples: Sequence[Example], task: Task, rng: random.Random
) -> tuple[list[list[Group]], list[Group]]:
    """(strata of several groups, the only groups of the others), each shuffled with its largest group last.

    A group goes by its first row.
    """
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        found[task.stratum(examples[group[0]])].append(group)
    strata = [stratum for stratum in found.values() if len(stratum) > 1]
    single = [stratum[0] for stratum in found.values() if len(stratum) == 1]
    for stratum in filter(None, [*strata, single]):
        rng.shuffle(stratum)
        stratum.append(stratum.pop(stratum.index(max(stratum, key=len))))
    return strata, single


def _evenly(strata: list[list[Group]], single: list[Group], rng: random.Random) -> list[Group]:
    """All groups in an order of which any stretch has its share of every stratum, up to one group.

    A group's place is the share of its stratum's rows before it. A random part of its own rows counts as before it,
    so that strata take turns in getting the odd row; all of them count for `single`, which comes late.
    """
    placed: list[tuple[float, Group]] = []
    for stratum, start in [*((stratum, rng.random()) for stratum in strata), (single, 1.0)]:
        rows, before = sum(map(len, stratum)), 0
        for group in stratum:
            placed.append(((before + start * len(group)) / rows, group))
            before += len(group)
    return [group for _, group in sorted(placed, key=itemgetter(0))]


def _draw(groups: list[Group], wanted: int) -> tuple[list[Group], list[Group]]:
    """(taken, rest): the first groups that fit into `wanted` rows, and one more if none does or that comes closer."""
    taken: list[Group] = []
    rest: list[Group] = []
    missing = wanted
    for group in groups:
        fits = len(group) <= missing
        (taken if fits else rest).append(group)
        missing -= len(group) * fits
    smallest = min(rest, key=len, default=None)
    if smallest is not None and (not taken or len(smallest) < 2 * missing):
        rest.remove(smallest)
        taken.append(smallest)
    return taken, rest


def _limit_rows(splits: Splits, data: DataSection, task: Task, seeds: Mapping[str, int]) -> None:
    """Of one seed, fewer rows are always among more of them: both are the beginning of one stratified order."""
    for name in NAMES:
        examples: list[Example] = getattr(splits, name)
        most: int | None = getattr(data, f"{name}_rows")
        if most is None or len(examples) <= most:
            continue
        rng = random.Random(f"{seeds[name]} {name}")
        strata, single = _strata([[position] for position in range(len(examples))], examples, task, rng)
        drawn = sorted(position for (position,) in _evenly(strata, single, rng)[:most])
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
        [f"{_count(len(repeated), 'train')} kept that have the text and answer of an earlier one (first {repeated[0]})"]
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
