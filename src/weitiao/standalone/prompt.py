"""A run's prompt as a text that a program without Weitiao makes the same ids of, and the fields that it shows."""

from __future__ import annotations

import re
from typing import Any

from weitiao.errors import ConfigError
from weitiao.prediction.adapter_folder import AdapterFolder
from weitiao.types import Row

HOLES = {"text": "\ue000", "options": "\ue001"}
"""What stands for a row's text and options until a placeholder is known that nothing else says: private characters,
which no normal form changes."""


def written_prompt(folder: AdapterFolder) -> tuple[str, dict[str, str], dict[str, int]]:
    """The prompt, control tokens by name; the placeholder of each hole in it; ids of the control tokens.

    Raises ConfigError where its own words name one, too: a text cannot tell both apart.
    """
    chat, task = folder.base.chat, folder.task
    example = task.example(Row(_fields_with_holes(folder), "prompt.txt", 1, folder.told.columns), labelled=False)
    pieces = chat.pieces(task.prompt(example))
    if chat.lead:
        pieces.append(chat.tokenizer.decode(chat.lead))
    names = {id: name for name, id in chat.tokenizer.controls.items()}
    controls = {names[piece]: piece for piece in pieces if isinstance(piece, int)}
    told = "".join(names[piece] if isinstance(piece, int) else piece for piece in pieces)
    longest_first = "|".join(map(re.escape, sorted(controls, key=len, reverse=True)))
    if [controls.get(piece, piece) for piece in re.split(f"({longest_first})", told) if piece] != pieces:
        raise ConfigError(
            f"{folder.path}: the prompt's own words hold the name of a control token ({', '.join(controls)}), which "
            "prompt.txt cannot tell from the token; reword task.instruction or the label, or use --format adapter"
        )
    placeholders = {name: _placeholder(name, told) for name, hole in HOLES.items() if hole in told}
    for name, placeholder in placeholders.items():
        told = told.replace(HOLES[name], placeholder)
    return told, placeholders, controls


def row_settings(folder: AdapterFolder) -> dict[str, Any]:
    """Which fields of a row are read: for each of `fields` several names, of which the first that is there counts."""
    fields = [names for field in ("question", "text") if (names := _names(folder, field))]
    return {
        "fields": fields,
        "bare_field": "text" if "text" in fields[-1] else fields[-1][0],
        "refused_fields": [name for field in ("image", "conversation", "system") for name in _names(folder, field)],
        "question": getattr(folder.task.options, "question", None) or "",
        "options": _options(folder),
    }


def _options(folder: AdapterFolder) -> dict[str, Any] | None:
    """How a row's own labels are read and shown; None where all rows have the same."""
    if getattr(folder.task.options, "options", None) != "row":
        return None
    separator = "、" if (folder.task.options.language or "zh") == "zh" else ", "
    return {"fields": _names(folder, "options"), "separator": separator}


def _fields_with_holes(folder: AdapterFolder) -> dict[str, Any]:
    settings = row_settings(folder)
    bare = settings["bare_field"]
    fields: dict[str, Any] = {names[0]: "" for names in settings["fields"] if bare not in names}
    fields[bare] = HOLES["text"]
    if settings["options"]:
        fields[settings["options"]["fields"][0]] = [HOLES["options"]]
    return fields


def _names(folder: AdapterFolder, field: str) -> list[str]:
    """What a file may call one of our fields; none where `data.columns` says that there is none."""
    if field in folder.told.columns:
        return [column for column in [folder.told.columns[field]] if column]
    return list(folder.task.fields.get(field, ()))


def _placeholder(name: str, told: str) -> str:
    """One that the prompt does not say itself."""
    wanted, number = f"{{{name}}}", 2
    while wanted in told:
        wanted, number = f"{{{name}_{number}}}", number + 1
    return wanted
