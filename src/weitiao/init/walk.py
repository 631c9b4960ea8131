"""`weitiao init`: the walk from a file to its config. Results go to standard output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weitiao.config import DataSection, RunConfig, load_config
from weitiao.cost.at_hand import Card, card
from weitiao.cost.machine import named
from weitiao.data.formats.delimited import SEPARATORS, separator
from weitiao.data.formats.text_file import TEXT_FILES, sniffed
from weitiao.data.source import data_file, read_rows
from weitiao.data.splits import SPELLINGS, load
from weitiao.errors import ConfigError, DataError, WeitiaoError
from weitiao.hub.package_index import atomic
from weitiao.images import image_root
from weitiao.init.cautions import cautions
from weitiao.init.counts import Counts, counts
from weitiao.init.found import Asked, Found
from weitiao.init.held_out import Say, held_out, split_rows
from weitiao.init.proposals import LEAST_ROWS, Proposal, Rows, estimated, proposal
from weitiao.init.roles import roles
from weitiao.init.table import Column, headless, table
from weitiao.init.written import Source, settings, yaml_text
from weitiao.shell import typed
from weitiao.tasks.base import task_options
from weitiao.types import Row

NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}


def init(
    file: str,
    asked: Asked,
    *,
    model: str | None = None,
    output: Path | None = None,
    images: str | None = None,
    encoding: str | None = None,
    gpu: str | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> Path:
    """Write a config for `file`; its path. What is decided, and why, goes to `say`.

    output: by default `config_name(file)` in the working directory. gpu: the card to write it for, as `cost.machine`
    knows them; by default the one that is here. Raises ConfigError when the output is there and not to be overwritten,
    or no card is of that name, DataError when the file cannot be read or does not tell what it is for.
    """
    here = _card(gpu)  # a wrong name is told before rows are read
    target = output or Path(config_name(file))
    _refuse_to_overwrite(target, file, overwrite)
    data, rows = _read(file, images, encoding, say)
    columns = table(rows)
    _refuse_headless(file, columns)
    for column in columns.values():
        say(f"  {column.told()}")
    found = roles(columns, asked, image_root(data_file(file), data))
    seen = counts(rows, found)
    for line in (*found.reasons, *seen.lines, *map(_warning, seen.warnings)):
        say(line)
    chosen = held_out(file, data, found, len(rows), say)
    say(f"card: {here.told() if here else 'none'}, as --gpu says" if gpu else f"card: {_told(here)}")
    made = _proposed(found, seen, split_rows(chosen, found, data, rows), model, here, say)
    source, command = Source(file, data.encoding, columns, images, chosen), next_command(target, gpu)
    with atomic(target) as written:
        written.write(yaml_text(target.stem, source, found, made, seen.language, command).encode())
    works = _try(load_config(target), say)
    say(f"wrote {target}; {'next' if works else 'once that is mended'}:\n  {command}")
    return target


def next_command(config: Path, gpu: str | None = None) -> str:
    """What to call with a fresh config, written for that card."""
    return typed("weitiao", "check", config, *(["--gpu", gpu] if gpu else []))


def config_name(file: str) -> str:
    """`reviews.csv` → `reviews.yaml`; a file called after a split goes by its folder: `reviews/train.csv`."""
    path = Path(file)
    stem = path.parent.resolve().name if path.stem.lower() in SPELLINGS else path.stem or path.resolve().name
    return f"{stem or 'config'}.yaml"


def _refuse_to_overwrite(target: Path, file: str, overwrite: bool) -> None:
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; name a file with -o")
    if target.exists() and (target.samefile(file) if Path(file).exists() else False):
        raise ConfigError(f"{target}: is the data file itself; name another one with -o")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: there already; name another file with -o, or pass --overwrite")


def _read(file: str, images: str | None, encoding: str | None, say: Say) -> tuple[DataSection, list[Row]]:
    """How the file is read, and its rows; at least so many that some can be held out."""
    path = data_file(file)
    is_text = path.is_file() and path.suffix.lower() in TEXT_FILES
    try:
        found = encoding or (sniffed(path) if is_text else "utf-8")
    except DataError as error:
        raise DataError(f"{error}; with --encoding") from None
    data = DataSection(train=file, images=images, **({"encoding": encoding} if encoding else {}))  # type: ignore[arg-type]
    rows = read_rows(file, data)
    how = [f"read as {found}"] * is_text
    if path.suffix.lower() in SEPARATORS:
        how.append(f"cells parted by {NAMES[separator(path, found)]}")
    say(", ".join([f"{file}: {len(rows):,} rows", *how]))
    if len(rows) < LEAST_ROWS:
        raise DataError(
            f"{file}: {len(rows)} row{'s' * (len(rows) != 1)}; wanted at least {LEAST_ROWS}, as some are held out to "
            "validate and test: label more rows"
        )
    return data, rows


def _refuse_headless(file: str, columns: Mapping[str, Column]) -> None:
    if Path(file).suffix.lower() in (*SEPARATORS, ".xlsx") and (name := headless(columns)):
        raise DataError(
            f"{file}: column {name!r} holds its own name as a value, so the first row looks like data; "
            "write the names of the columns above it, such as text,label"
        )


def _card(gpu: str | None) -> Card | None:
    if gpu is None:
        return card()
    machine = named(gpu)
    return None if machine.cpu or machine.gib is None else Card(machine.name, machine.gib)


def _told(here: Card | None) -> str:
    return here.told() if here else "none found (by nvidia-smi)"


def _proposed(found: Found, seen: Counts, rows: Rows, model: str | None, here: Card | None, say: Say) -> Proposal:
    made = proposal(found.task, rows, seen.lengths, seen.images, here.gib if here else None, model)
    say(f"model: {made.model.name}, {made.model_why}")
    tokens = [f"tokens: {estimated(seen.lengths, made.model)}"] if any(text.all for text in seen.lengths) else []
    for line in (*tokens, *settings(made)):
        say(line)
    for text in cautions(made, here, found.task, seen.language, rows.test):
        say(_warning(text))
    return made


def _try(config: RunConfig, say: Say) -> bool:
    """Make splits and examples as `train` does, and say what comes of it; whether it can begin."""
    try:
        _, splits = load(config.data, task_options(config.task), config.run.seed)
    except WeitiaoError as error:
        say(_warning(f"`train` will stop here: {error}"))
        return False
    for note in splits.notes:
        say(note)
    used = ", ".join(f"{len(getattr(splits, name)):,} {name}" for name in ("train", "validation", "test"))
    say(f"rows of a run: {used}")
    return True


def _warning(text: str) -> str:
    return f"warning: {text}"
