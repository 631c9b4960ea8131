"""What a standalone folder holds: files of ours as they are, and what parts this run from others.

predict.py, rows.py, text.py,
language_model.py                         the program; for entities also entities.py and the files that it imports
prompt.txt                                what the model sees, control tokens by name, with {text} for the text
labels.json | grammar.lark                what an answer may be
settings.json, requirements.txt           the base model, stop ids, limits, temperature; versions
tokenizer.json, adapter/ | model/         the base's tokenizer with the adapter, or the model with it folded in
"""

from __future__ import annotations

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from weitiao.config import SCHEMA_VERSION
from weitiao.errors import ConfigError
from weitiao.families.base import context_length, model_config
from weitiao.hub.names import model_name
from weitiao.prediction.adapter_folder import AdapterFolder
from weitiao.run_folder import write_json
from weitiao.standalone.prompt import row_settings, written_prompt
from weitiao.tasks.ner import NOTHING

PROGRAM = tuple(("weitiao.standalone", name) for name in ("predict.py", "rows.py", "text.py", "language_model.py"))
FILES = {
    "classification": PROGRAM,
    "generation": PROGRAM,
    "ner": (
        *PROGRAM,
        ("weitiao.standalone", "entities.py"),
        ("weitiao.tasks", "spans.py"),
        ("weitiao.tasks", "entity_formats.py"),
        ("weitiao.prediction", "token_places.py"),
    ),
}
"""Task → (package, file): copied as they are; none imports anything of ours that is not copied, too."""
REQUIREMENTS = ("torch>=2.11", "transformers>=5.17", "peft>=0.19", "llguidance>=1.9", "numpy>=2.0")
"""As in pyproject.toml."""
ONLY = {"peft": "adapter", "llguidance": "ner", "numpy": "ner"}
"""Requirement → the form or task that needs it."""


def refuse_standalone(folder: AdapterFolder, merged: bool) -> None:
    """ConfigError for a run that `predict.py` would answer in another way than Weitiao does."""
    task, problem = folder.task, None
    if task.name not in FILES:
        problem = f"predict.py does not know task {task.name!r}"
    elif task.lists_labels and not task.picks_one:
        problem = "several labels of a row are weighed by Weitiao alone"
    elif folder.base.vision is not None:
        problem = "its model reads images, which predict.py does not"
    if problem:
        raise ConfigError(f"{folder.path}: {problem}; answer with `weitiao predict`, or use --format adapter or merged")
    if merged:
        return
    if folder.told.base.quantization:
        problem = f"predict.py does not load weights in {folder.told.base.quantization}, which it was trained beside"
        raise ConfigError(f"{folder.path}: {problem}; answer with `weitiao predict`, or use --format adapter")
    if model_config(folder.base.folder)["model_type"] == "chatglm":
        raise ConfigError(f"{folder.path}: GLM-4's first checkpoints need code of their own; add --merged")


def write_standalone(folder: AdapterFolder, draft: Path, merged: bool) -> None:
    """Everything but `model/`, which is there if `merged`, and the card."""
    task = folder.task
    prompt, placeholders, controls = written_prompt(folder)
    (draft / "prompt.txt").write_bytes(prompt.encode())
    if not merged:
        _write_adapter(folder, draft)
    for package, name in FILES[task.name]:
        (draft / name).write_bytes(files(package).joinpath(name).read_bytes())
    wanted = {"merged" if merged else "adapter", task.name}
    lines = [line for line in REQUIREMENTS if ONLY.get(re.split(r"\W", line)[0], task.name) in wanted]
    (draft / "requirements.txt").write_text("\n".join(lines) + "\n", "utf-8")
    if task.name == "classification" and task.options.options == "fixed":
        write_json(draft / "labels.json", list(task.options.labels))
    values = {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        **_base(folder, merged),
        "controls": controls,
        "placeholders": placeholders,
        **row_settings(folder),
        "stop_ids": folder.told.stop_ids,
        "max_text_tokens": folder.told.max_length,
        "may_shorten": not task.in_windows,
        "max_answer_tokens": folder.told.max_answer_tokens,
        "context_length": context_length(folder.base.folder),
        "temperature": folder.told.temperature,
    }
    if task.name == "ner":
        values |= _entities(folder, draft)
    write_json(draft / "settings.json", values)


def _entities(folder: AdapterFolder, draft: Path) -> dict[str, Any]:
    """Settings of entities, and `grammar.lark` with a placeholder for the list of the text's pieces."""
    task: Any = folder.task
    types, nothing = task.options.types, NOTHING[task.options.language or "zh"]
    lark = task.format.lark(["{text}"], [folder.base.tokenizer.normalize(kind) for kind in types], nothing)
    (draft / "grammar.lark").write_bytes(f"{lark}\n".encode())
    return {"types": types, "format": task.options.output_format, "nothing": nothing}


def _base(folder: AdapterFolder, merged: bool) -> dict[str, Any]:
    if merged:
        return {"base_model": folder.told.base.name, "base_revision": None, "tokenizer": "model/tokenizer.json"}
    name, revision = public_name(folder)
    base = name or str(folder.base.folder.resolve())
    return {"base_model": base, "base_revision": revision, "tokenizer": "tokenizer.json"}


def public_name(folder: AdapterFolder) -> tuple[str | None, str | None]:
    """Name on a hub and revision of the base model; None for a folder or file of this machine."""
    name = folder.told.base.name
    if Path(name).expanduser().exists() or name.startswith("pypi:") or name.lower().endswith(".gguf"):
        return None, None
    found = model_name(name)
    return found.id, found.revision


def _write_adapter(folder: AdapterFolder, draft: Path) -> None:
    to = draft / "adapter"
    to.mkdir()
    shutil.copyfile(folder.path / "adapter_model.safetensors", to / "adapter_model.safetensors")
    config = json.loads((folder.path / "adapter_config.json").read_text("utf-8"))
    name, revision = public_name(folder)
    # Not the folder in this machine's cache.
    write_json(to / "adapter_config.json", config | {"base_model_name_or_path": name, "revision": revision})
    (draft / "tokenizer.json").write_text(folder.base.tokenizer.spec(), "utf-8")
