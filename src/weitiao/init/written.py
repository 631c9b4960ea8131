"""The config as YAML: only the keys that matter, each with what it is and why it has this value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any
from unicodedata import east_asian_width

from weitiao.config import yaml_value
from weitiao.init.found import Found
from weitiao.init.held_out import HeldOut
from weitiao.init.proposals import Proposal

Key = tuple[str, Any, str]
"""Name, value, comment."""
IMAGE_SIZE = [280, 280]
"""Height and width, as in the shipped configs."""
QUESTIONS = {"zh": "描述这张图片。", "en": "Describe the image."}
COMMENT_AT, WIDTH = 44, 120
"""Column at which comments begin, where the values leave room, and at which lines end."""
INDENT: Any = {"initial_indent": "  # ", "subsequent_indent": "  # "}


@dataclass(frozen=True)
class Source:
    """The file as the config names it."""

    train: str
    encoding: str
    names: Mapping[str, Any]
    """Its columns."""
    images: str | None = None
    """Folder of the images, where the user names one."""
    held_out: HeldOut = field(default_factory=dict)
    """Empty where a column says it."""


def yaml_text(name: str, source: Source, found: Found, made: Proposal, language: str, command: str) -> str:
    sections: dict[str, Sequence[Key]] = {
        "run": [("name", name, "the run's folder is output/ and this name")],
        "task": list(_task(found, language)),
        "model": [("name", made.model.name, made.model_why)],
        "data": list(_data(source, found, made)),
        "lora": [(key, value, "as in the model's shipped config") for key, value in made.model.lora],
        "training": list(_training(made)),
    }
    lines = [
        f"# Proposed by `weitiao init` from {source.train}: rules of thumb, not measured on these rows.",
        "# Any key can be changed here or on the command line; all of them are in docs/config.md.",
        "#",
        f"#     {command}",
        "",
    ]
    for section, keys in sections.items():
        if keys:
            lines += [f"{section}:", *(_line(*key) for key in keys)]
    return "\n".join([*map(printable, lines[:5]), *lines[5:]]) + "\n"


def printable(text: str) -> str:
    """A comment's text on one line, without what YAML does not take."""
    return "".join(char if char.isprintable() else " " for char in text)


def _line(name: str, value: Any, comment: str) -> str:
    """The key with its comment behind it, or above it where the line would be too long."""
    key = f"  {name}: {yaml_value(value)}"
    line = f"{key}{' ' * (COMMENT_AT - _width(key))}  # {printable(comment)}"
    return line if _width(line) <= WIDTH else "\n".join([*wrap(printable(comment), WIDTH, **INDENT), key])


def _width(text: str) -> int:
    """Columns of a terminal; Chinese characters take two each."""
    return sum(1 + (east_asian_width(char) in "WF") for char in text)


def _task(found: Found, language: str) -> Iterator[Key]:
    yield "name", found.task, "see README.md for what each task reads"
    for key, value in found.options.items():
        yield key, value, TASK_COMMENTS[key]
    if found.task == "generation" and not {"question", "text", "conversation"} & found.columns.keys():
        yield "question", QUESTIONS[language], "asked about each image; write your own"


def _data(source: Source, found: Found, made: Proposal) -> Iterator[Key]:
    yield "train", source.train, "relative to where you call weitiao"
    if found.split_field:
        yield "split_field", found.split_field, "the column that says train, validation or test"
    else:
        for split, (value, why) in source.held_out.items():
            yield split, value, why
    if columns := found.mapping(source.names):
        yield "columns", columns, 'our names: yours; "" leaves a column out'
    if source.encoding != "auto":
        yield "encoding", source.encoding, "of the files' text, as --encoding said"
    if source.images:
        yield "images", source.images, "folder of the images"
    yield "max_length", made.max_length.value, made.max_length.why
    if "image" in found.columns:
        yield "image_size", IMAGE_SIZE, "height and width, as in the shipped configs; leave out to keep each shape"
    for key, most in made.limits.items():
        yield key, most, "keeps a first run on a CPU short; remove it to use all rows"


def _training(made: Proposal) -> Iterator[Key]:
    yield "samples_per_step", made.samples.value, made.samples.why
    yield "num_train_epochs", made.epochs.value, f"passes over the rows; {made.epochs.why}"
    yield "learning_rate", made.model.learning_rate, made.model.rate_why
    if made.model.warmup_steps:
        yield "warmup_steps", made.model.warmup_steps, "as in the demo"


def settings(made: Proposal) -> list[str]:
    """The numbers of a proposal as lines for the screen."""
    keys = [("max_length", made.max_length.value, made.max_length.why), *_training(made)]
    lines = [f"{name}: {yaml_value(value)}, {why}" for name, value, why in keys]
    limits = ", ".join(f"{key} {most}" for key, most in made.limits.items())
    return lines + ([f"{limits}: a first run on a CPU shall be short"] if limits else [])


TASK_COMMENTS = {
    "options": "row: each row brings the labels that it may have; fixed: one set for all",
    "multi_label": "a row may have any number of labels",
    "label_separator": "what joins them in a cell",
}
