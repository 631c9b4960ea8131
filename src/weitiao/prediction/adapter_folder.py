"""An adapter folder, checked against the base model that it names. No torch: whatever does not fit is told within a
second, and so is a row that cannot be answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from weitiao.config import ModelSection
from weitiao.data.encode import Encoder
from weitiao.engine.outline import Outline, outline
from weitiao.errors import CheckpointError, ModelError
from weitiao.model.base import Base, open_base
from weitiao.run_folder import MANIFEST, TASK_FILE, TaskFile, damage, find_adapter, read_task_file
from weitiao.tasks.base import Task, task_class, task_options


@dataclass(frozen=True)
class AdapterFolder:
    path: Path
    told: TaskFile
    base: Base
    task: Task
    encoder: Encoder

    @cached_property
    def outline(self) -> Outline | None:
        """What its model is made of, where it can be opened without transformers and PEFT."""
        return None if self.told.base.quantization else outline(self.base.folder, self.path)


def open_folder(run: str | Path) -> AdapterFolder:
    """The adapter of a run, adapter or checkpoint folder.

    Raises CheckpointError when it is damaged, or belongs to another base model than the one that it names.
    """
    path = find_adapter(run)
    told = read_task_file(path)
    problem = damage(path, editable=[TASK_FILE]) if (path / MANIFEST).is_file() else None
    if problem:
        raise CheckpointError(f"{path}: damaged adapter ({problem}); restore the folder, or train again")
    options = task_options(told.task, f"{path / TASK_FILE}: task")
    task = task_class(options.name)(options)
    base = _base(path, told)
    return AdapterFolder(path, told, base, task, base.encoder(task, told.max_length, told.images))


def _base(path: Path, told: TaskFile) -> Base:
    section = ModelSection(name=told.base.name, family=told.family, cache_dir=told.base.cache_dir)  # type: ignore[call-arg]
    try:
        base = open_base(section)
    except ModelError as error:
        raise ModelError(f"the base model of {path} (`base.name` in its task.json): {error}") from None
    parts = {
        "weights": (told.base.fingerprint, base.fingerprint),
        "tokenizer": (told.tokenizer_hash, base.tokenizer.hash),
        "chat format": (told.template_hash, base.chat.hash),
    }
    for what, (wanted, found) in parts.items():
        if found != wanted:
            raise CheckpointError(
                f"{path}: the adapter was trained on another base than {told.base.name!r} is now "
                f"({what} {wanted[:12]} wanted, {found[:12]} found); restore that model, or train again"
            )
    return base
