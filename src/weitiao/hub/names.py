"""Names of repositories on the hubs, and of files in them, as a config writes them.

    ORG/NAME · modelscope:ORG/NAME · hf:ORG/NAME · hf:ORG/NAME@REV        a model
    modelscope:ORG/NAME/path/rows.jsonl · hf:ORG/NAME@REV/rows.parquet    a file of a data set; the hub must be named

REV is a branch, a tag or a commit. A bare model name is looked for in the caches of both hubs and downloaded from
ModelScope.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weitiao.errors import DataError, ModelError

HUBS = {"modelscope": "ModelScope", "hf": "Hugging Face"}
"""Prefix → what people call it; the first is the one that a bare name is downloaded from."""
_REPOSITORY = r"([\w-][\w.-]*)/([\w-][\w.-]*)"
_REVISION = r"[\w-][\w.-]*"
_MODEL = re.compile(rf"(?:({'|'.join(HUBS)}):)?{_REPOSITORY}(?:@({_REVISION}(?:/{_REVISION})*))?")
_DATA = re.compile(rf"({'|'.join(HUBS)}):{_REPOSITORY}(?:@({_REVISION}))?/([^\\]+)")


@dataclass(frozen=True, slots=True)
class Repository:
    hub: str | None
    """None where both may have it."""
    org: str
    name: str
    revision: str | None = None
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        return self.id + (f"@{self.revision}" if self.revision else "")

    @property
    def id(self) -> str:
        return f"{self.org}/{self.name}"

    @property
    def hubs(self) -> tuple[str, ...]:
        return (self.hub,) if self.hub else tuple(HUBS)


def model_name(text: str) -> Repository:
    """The repository that `model.name` names; ModelError where it looks like a path, or like nothing."""
    if text.startswith((".", "/", "~")) or "\\" in text or text.lower().endswith(".gguf"):
        raise ModelError(
            f"model path {text!r} does not exist; check it, or name a model of a hub such as Qwen/Qwen2-1.5B"
        )
    match = _MODEL.fullmatch(text)
    if not match:
        raise ModelError(
            f"no model {text!r}: not a folder or .gguf file here, nor a hub name such as Qwen/Qwen2-1.5B-Instruct"
        )
    hub, org, name, revision = match.groups()
    return Repository(hub, org, name, revision)


def names_hub(text: str) -> bool:
    """Whether it starts with a hub's name."""
    return text.partition(":")[0] in HUBS


def data_name(text: str) -> tuple[Repository, str]:
    """(repository, path in it) of a data file on a hub; DataError where it names no file."""
    match = _DATA.fullmatch(text)
    if not match or {"", ".", ".."} & set(match[5].split("/")):
        raise DataError(f"{text}: names no file of a data set; wanted hf:ORG/NAME/path/to/rows.jsonl or modelscope:…")
    hub, org, name, revision, path = match.groups()
    return Repository(hub, org, name, revision, kind="dataset"), path


def command(hub: str, repository: Repository, path: str | None = None) -> str:
    """What a user types to fetch a repository, or one file of it, with the hub's own client."""
    data = repository.kind == "dataset"
    if hub == "modelscope":
        words = ["modelscope download", f"--{repository.kind} {repository.id}", path or ""]
    else:
        words = [f"hf download {repository.id}", path or "", "--repo-type dataset" if data else ""]
    words += [f"--revision {repository.revision}" if repository.revision else ""]
    return " ".join(filter(None, words))


def shown(path: Path) -> str:
    """A path as a message shows it: below the home folder it starts with `~`."""
    return f"~/{path.relative_to(Path.home()).as_posix()}" if path.is_relative_to(Path.home()) else str(path)
