"""A base model on this disk, as far as it is known without its weights in memory. No torch: what is wrong with its
files is told within a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from weitiao.config import DataSection, ModelSection
from weitiao.data.encode import Encoder
from weitiao.families.base import Family, context_length, family_of
from weitiao.families.chat_format import ChatFormat
from weitiao.families.tokenizer import TextTokenizer
from weitiao.families.vision import Vision
from weitiao.model.files import fingerprint, model_folder
from weitiao.run_folder import ImageLimits
from weitiao.tasks.base import Task


@dataclass(frozen=True)
class Base:
    folder: Path
    family_name: str
    family: Family
    tokenizer: TextTokenizer
    chat: ChatFormat

    @cached_property
    def fingerprint(self) -> str:
        """Names the weights; ModelError when their files are damaged."""
        return fingerprint(self.folder)

    @cached_property
    def vision(self) -> Vision | None:
        """How it sees images; None when it reads text alone."""
        return self.family.vision(self.folder) if self.family.vision else None

    def image_limits(self, data: DataSection) -> ImageLimits | None:
        """How images are resized, by a config."""
        return self.vision.limits(data) if self.vision else None

    def encoder(self, task: Task, max_length: int, images: ImageLimits | None) -> Encoder:
        return Encoder(task, self.chat, max_length, context_length(self.folder), self.vision, images)


def open_base(section: ModelSection) -> Base:
    """The model that a config names. Raises ModelError or ConfigError when it is missing or not supported."""
    folder = model_folder(section)
    name, family = family_of(folder, section.family)
    tokenizer = TextTokenizer(folder, section.cache_dir)
    return Base(folder, name, family, tokenizer, family.chat_format(tokenizer))
