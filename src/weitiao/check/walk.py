"""The walk of a check: files → typed rows → checks, batch by batch → findings → result.

A result is plain JSON, and all that the screen and the page know:

    schema_version  1
    task, model     as the config names them
    rows            {"train": …, "validation": …, "test": …, "unused": …, "refused": …}
    files           file → SHA-256
    findings        [{"name", "level", "what", "do", "count", "examples": [{"place", "text"}]}], errors first
    tokens          of the training rows, their texts and answers: median, 95 % quantile, longest, deviation, histogram;
                    null where none could be encoded
    labels          label or type → rows of each split that name it
    read_back       rows whose tokens were read back
    shared          tokens that all these begin with
    notes           how files were read, and what was not looked at
    cost            what the training takes on a machine (`cost/estimate.py` has its keys), added by `priced.py`, for it
                    depends on more than rows; null until then, and where nothing is known of the machine or the model
    seconds         that it took
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

from weitiao.check import remembered
from weitiao.check.base import Batch, Check, Setting
from weitiao.check.checks import checks
from weitiao.check.finding import LEVELS, Finding
from weitiao.check.reading import Trouble, examples, task_of
from weitiao.check.table import UNUSED, Table
from weitiao.config import RunConfig
from weitiao.data.splits import NAMES, fingerprint, named_files, read_as, row_key, text_key
from weitiao.errors import DataError
from weitiao.model.base import Base, open_base
from weitiao.tasks.base import Example, Task, task_options
from weitiao.tracking.screen import LINE_EVERY, Screen

BATCH = 512
"""Rows that are in memory at once."""


def check(config: RunConfig, screen: Screen | None = None) -> dict[str, Any]:
    """Look at the rows of a config; the result. What was found before for the same files, config and version is kept.

    Raises ConfigError, DataError or ModelError for what leaves nothing to look at: a missing file, a model that is not
    there, a task that cannot be made of the rows.
    """
    start = time.monotonic()
    options = task_options(config.task)
    files = fingerprint(config.data)
    base = open_base(config.model)
    key = remembered.key(config, files, base)
    if (found := remembered.read(config, key)) is not None:
        return found
    task = task_of(config.data, options)
    setting = setting_of(config, task, base)
    looked = [kind(setting) for kind in checks().values()]
    table = walked(setting, looked, screen or Screen())
    result = _result(setting, table, looked, files)
    result["seconds"] = round(time.monotonic() - start, 3)
    if not table.images:  # their content is not in the key
        remembered.write(config, key, result)
    return result


def setting_of(config: RunConfig, task: Task, base: Base) -> Setting:
    encoder = base.encoder(task, config.data.max_length, base.image_limits(config.data))
    return Setting(config, task, base, encoder, Trouble())


def walked(setting: Setting, looked: Sequence[Check], screen: Screen | None = None) -> Table:
    """Show all rows to checks; the rows' numbers, each row in its split."""
    table = Table()
    said = time.monotonic()
    for batch in batches_of(setting, table):
        for one in looked:
            one.look(batch)
        if screen and time.monotonic() - said > LINE_EVERY:
            screen.note(f"looked at {len(table):,} rows")
            said = time.monotonic()
    table.settle(setting.config.data, setting.config.run.seed, setting.trouble.numbers)
    return table


def batches_of(setting: Setting, table: Table) -> Iterator[Batch]:
    """All rows, each of them noted in the table."""
    rows = _keyed(setting)
    while batch := list(itertools.islice(rows, BATCH)):
        splits, found, keys = zip(*batch, strict=True)
        yield _added(setting, table, splits, found, keys)


def _keyed(setting: Setting) -> Iterator[tuple[str, Example, str]]:
    for split, example in examples(setting.config.data, setting.task, setting.trouble):
        try:
            yield split, example, row_key(example)
        except DataError as error:
            setting.trouble.add(error)


def _added(
    setting: Setting, table: Table, splits: tuple[str, ...], found: tuple[Example, ...], keys: tuple[str, ...]
) -> Batch:
    task, start = setting.task, len(table)
    for split, example, key in zip(splits, found, keys, strict=True):
        place = (example.row.file, example.row.line)
        table.images = table.images or bool(example.images)
        table.add(key, example.answer, task.stratum(example), task.named(example.answer), split, place)
    if task.has_labels:
        texts = [key.partition("\0")[0] for key in keys]
    else:
        texts = [_lines(f"{example.text}\n{task.target(example.answer)}") for example in found]
    table.texts.extend(texts)
    return Batch(start, splits, found, keys, texts)


def _lines(text: str) -> str:
    return "\n".join(filter(None, map(text_key, text.split("\n"))))


def _result(setting: Setting, table: Table, looked: list[Check], files: dict[str, str]) -> dict[str, Any]:
    config = setting.config
    findings = [*setting.trouble.findings(), *_empty(config, table)]
    findings += [finding for one in looked for finding in one.findings(table)]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    rows = {name: len(table.of(name)) for name in reversed(NAMES)}
    rows |= {
        "unused": int((table.split == UNUSED).sum()) - len(setting.trouble.numbers),
        "refused": setting.trouble.count,
    }
    facts: dict[str, Any] = {"tokens": None, "labels": {}, "read_back": 0, "shared": 0, "notes": []}
    for one in looked:
        facts |= one.facts(table)
    facts["notes"] = [*read_as(config.data), *facts["notes"]]
    return {
        "schema_version": 1,
        "task": config.task["name"],
        "model": config.model.name,
        "rows": rows,
        "files": files,
        "findings": [finding.record() for finding in findings],
        **facts,
        "cost": None,
    }


def _empty(config: RunConfig, table: Table) -> Iterator[Finding]:
    """Splits that are asked for and have no rows."""
    for name in reversed(NAMES):
        asked = getattr(config.data, name) is not None and not config.data.split_field
        if (name == "train" or asked) and not len(table.of(name)):
            file = named_files(config.data).get(name, config.data.train)
            what = f"no {'training' if name == 'train' else name} rows remain of {file}"
            if isinstance(share := getattr(config.data, name), float):
                what = f"{file}: data.{name}={share:g} gives no {name} rows"
            do = f"add rows, name a file or set data.{name}=null" if name != "train" else "add rows"
            yield Finding("empty-split", "error", what, do, 1)
