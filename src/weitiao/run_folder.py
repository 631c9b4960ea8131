"""The names inside a run folder, and saves that are whole or absent.

    output/<name>/config.yaml          the resolved config
                  data.json            hashes of the data files, and the splits' sizes
                  log.jsonl            one line per log interval and evaluation: the source of truth
                  checkpoint-N/        adapter + optimizer state; the last ones and the best
                  adapter/             the best adapter
                  metrics.json         present when the run is finished
                  predictions.jsonl    the test rows with their predictions
                  report.html          all of it on one page
                  tracking/            what trackers write on this disk

An adapter folder is PEFT's two files and `task.json`; a checkpoint is one too, with the state to go on from.
A folder is written beside its place under a hidden name, with the SHA-256 of each file in `files.json`, then renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from weitiao.config import SCHEMA_VERSION, RunConfig, Section, dump_yaml, load_config, validated
from weitiao.errors import CheckpointError, ConfigError, shown

NO_RESULT: dict[str, Any] = {"tracking": True, "training": {"keep_checkpoints", "on_cpu"}}
"""Of a config, what changes no result."""
MANIFEST = "files.json"
TASK_FILE = "task.json"


class BaseName(Section):
    name: str
    """As the config had it."""
    fingerprint: str
    """Of the weights."""
    cache_dir: str | None = None
    quantization: Literal["nf4"] | None = None
    """How its linear layers were stored while the adapter was trained."""


class ImageLimits(Section):
    """How images are resized: the same in training and in prediction."""

    size: tuple[int, int] | None = None
    """Height and width in pixels, for every image."""
    min_pixels: int
    max_pixels: int
    """Of an image that keeps its shape."""
    backend: Literal["pil"] = "pil"
    """What resizes them: others give other pixels."""


class Thresholds(Section):
    """From which probability on a label is given, where a row may have several (`prediction/thresholds.py`)."""

    shared: float = Field(0.5, gt=0, lt=1)
    """Of labels that have none of their own."""
    labels: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}

    def of(self, label: str) -> float:
        return self.labels.get(label, self.shared)


class TaskFile(Section):
    """`task.json`: what an adapter must be used with."""

    schema_version: int = SCHEMA_VERSION
    task: dict[str, Any]
    """Complete options of the task."""
    family: str
    template_hash: str
    tokenizer_hash: str
    stop_ids: list[int]
    base: BaseName
    max_length: int
    max_answer_tokens: int
    """Longest answer that prediction writes: twice the longest one in training."""
    images: ImageLimits | None = None
    """None: the model reads no images."""
    temperature: float = Field(1.0, gt=0)
    """Of the probabilities, fitted on the validation rows (`prediction/calibration.py`)."""
    thresholds: Thresholds = Thresholds()
    """Of several labels, fitted on the validation rows, too."""
    columns: dict[str, str]
    encoding: str


class RunFolder:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.data = self.path / "data.json"
        self.log = self.path / "log.jsonl"
        self.adapter = self.path / "adapter"
        self.metrics = self.path / "metrics.json"
        self.predictions = self.path / "predictions.jsonl"
        self.report = self.path / "report.html"
        self.tracking = self.path / "tracking"

    @property
    def exists(self) -> bool:
        return self.config.is_file()

    @property
    def finished(self) -> bool:
        return self.metrics.is_file()

    def start(self, config: RunConfig, data: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.data, data)
        write_text(self.config, dump_yaml(config))

    def clear(self) -> None:
        """Remove what a run wrote here, and nothing else."""
        for path in (self.config, self.data, self.log, self.metrics, self.predictions, self.report):
            path.unlink(missing_ok=True)
        for folder in [self.adapter, self.tracking, *self._checkpoints()]:
            shutil.rmtree(folder, ignore_errors=True)

    def refuse_blocked(self) -> None:
        """ConfigError when something that is no folder, or may not be written into, stands where the run would be."""
        place = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            what = "may not be written into" if place.is_dir() else "is no folder"
            raise ConfigError(f"{place}: {what}, so no run can be in {self.path}; set run.output_dir or run.name")

    def read_config(self) -> RunConfig:
        if not self.exists:
            raise CheckpointError(
                f"{self.path}: no run here (no config.yaml); wanted a folder that `weitiao train` wrote"
            )
        return load_config(self.config)

    def read_metrics(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.metrics.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{self.metrics}: unreadable ({error}); remove it, and train goes on") from None

    def read_data(self) -> dict[str, Any]:
        try:
            facts = json.loads(self.data.read_text("utf-8"))
            if not isinstance(facts["files"], dict):
                raise ValueError("`files` is no mapping")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.data}: unreadable ({error}); train again with --overwrite") from None
        return dict(facts)

    def refuse_other(self, config: RunConfig, data: dict[str, Any]) -> None:
        """ConfigError with the difference when the folder belongs to another config or to other data.

        What changes no result makes no other run: `tracking`, how many checkpoints are kept, leave to use a CPU.
        """
        before, after = (c.model_dump(mode="json", exclude=NO_RESULT) for c in (self.read_config(), config))
        changes = [*_differences(before, after), *_differences(self.read_data(), data)]
        if changes:
            shown = "; ".join(changes[:4]) + ("; …" if len(changes) > 4 else "")
            raise ConfigError(
                f"{self.path} holds a run with another config or data ({shown}); "
                "choose another folder with run.name=…, or replace the run with --overwrite"
            )

    def checkpoint(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"

    @property
    def bytes_of_adapters(self) -> int:
        """What the adapter and the checkpoints that are here take on the disk."""
        folders = [self.adapter, *self._checkpoints()]
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())

    def _checkpoints(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        found = [p for p in self.path.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
        return sorted(found, key=lambda p: int(p.name.removeprefix("checkpoint-")))

    @property
    def steps_of_checkpoints(self) -> list[int]:
        return [int(path.name.removeprefix("checkpoint-")) for path in self._checkpoints()]

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint whose files are all there and whole."""
        return next((path for path in reversed(self._checkpoints()) if damage(path) is None), None)

    def keep_checkpoints(self, best_step: int | None, last: int) -> None:
        """Remove all but the last ones and the best."""
        best = self.checkpoint(best_step) if best_step is not None else None
        for path in self._checkpoints()[:-last]:
            if path != best:
                shutil.rmtree(path, ignore_errors=True)


def find_adapter(path: str | Path) -> Path:
    """The adapter folder that a user means: a run folder's `adapter/`, or an adapter or checkpoint folder itself."""
    path = Path(path)
    for folder in (path / "adapter", path):
        if (folder / TASK_FILE).is_file():
            return folder
    if not path.exists():
        raise CheckpointError(f"no run folder {str(path)!r}; train one with `weitiao train`, or check the path")
    if RunFolder(path).exists:
        raise CheckpointError(f"{path}: the run has no adapter yet; run the same `weitiao train` command to finish it")
    raise CheckpointError(f"{path}: not a run, adapter or checkpoint folder (no task.json)")


def read_task_file(folder: Path) -> TaskFile:
    try:
        values = json.loads((folder / TASK_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / TASK_FILE}: unreadable ({error})") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder / TASK_FILE}: schema_version {version!r}, but this Weitiao reads {SCHEMA_VERSION}; "
            "use the version that wrote it"
        )
    return validated(TaskFile, values, str(folder / TASK_FILE))


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes `target` at the end of the block, or vanishes when the block fails."""
    draft = target.with_name(f".{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        with ThreadPoolExecutor() as pool:
            written = [pool.submit(_to_disk, path) for path in files]
            hashes = dict(zip([str(path.relative_to(draft)) for path in files], pool.map(_sha256, files), strict=True))
            for done in written:
                done.result()
        write_json(draft / MANIFEST, hashes)
        _to_disk(draft / MANIFEST)
        for path in files:  # safetensors' are for their owner alone
            path.chmod((draft / MANIFEST).stat().st_mode)
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            draft.rename(target)
            shutil.rmtree(old)
        else:
            draft.rename(target)
        _to_disk(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def damage(folder: Path, editable: Collection[str] = ()) -> str | None:
    """What is wrong with a folder that `whole_folder` wrote, or None. editable: files that may be others by now."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text("utf-8"))
        for name, wanted in hashes.items():
            if name not in editable and _sha256(folder / name) != wanted:
                return f"{name} is not what was saved"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def _differences(before: Any, after: Any, key: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(n for n in after if n not in before)]:
            yield from _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield f"{key}: {shown(before, 40)} → {shown(after, 40)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some systems cannot sync a folder
        pass
    finally:
        os.close(handle)
