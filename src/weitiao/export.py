"""`weitiao export`: an adapter, or a model with it folded in, in a form that other programs read.

To add a form, write a function (adapter folder, draft folder, screen) that says what a comparison found, or None, and
name it in `FORMATS`.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao.config import ModelSection, suggestion
from weitiao.errors import ConfigError, ModelError
from weitiao.families.base import model_config
from weitiao.model.base import open_base
from weitiao.model.files import tensor_shapes
from weitiao.prediction.adapter_folder import AdapterFolder, open_folder
from weitiao.prediction.agreement import LEAST_EQUAL_TEXTS, MOST_NATS, compared, held_out, refuse_quantized
from weitiao.report.card import card
from weitiao.run_folder import TASK_FILE, whole_folder, write_text
from weitiao.shell import typed
from weitiao.standalone.trial import tried
from weitiao.standalone.write import public_name, refuse_standalone, write_standalone
from weitiao.tracking.screen import Screen

if TYPE_CHECKING:
    from weitiao.model.merge import Update
    from weitiao.prediction.predictor import Predictor

ROWS = 64
"""Held-out rows on which a merged model is compared with the run."""
LEAST_EQUAL = 0.97
"""Share of them that have to be answered alike."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `--max-lora-rank`."""


def export(run: str | Path, dest: str | Path, format: str, screen: Screen | None = None, merged: bool = False) -> Path:
    """Write what a run, adapter or checkpoint folder holds to the new folder `dest`, whole or not at all, with a model
    card; tell `screen` how it is served. merged: a standalone folder holds the whole model, and needs no base.

    Raises ConfigError for an unknown format, a taken `dest`, or a model that the format is not for, and ModelError for
    what does not answer as the run does.
    """
    dest, screen = Path(dest), screen or Screen(silent=True)
    if format not in FORMATS:
        raise ConfigError(f"no export format {format!r}; {suggestion(format, FORMATS)}")
    if dest.exists():
        raise ConfigError(f"{dest}: is there already; name a new folder")
    if merged and format != "standalone":
        raise ConfigError("--merged: goes with --format standalone; for a merged model alone take --format merged")
    folder = open_folder(run)
    commands = _commands(folder, dest, format)
    write = _standalone_merged if merged else FORMATS[format]
    with whole_folder(dest) as draft:
        checked = write(folder, draft, screen)
        alone = format == "standalone"
        told = _commands(folder, Path(), format) if alone else commands
        text = card(folder, merged or format == "merged", told, checked, alone)
    # Not among the files whose hashes are kept: a card is there to be edited.
    write_text(dest / "README.md", text)
    for command in commands:
        screen.note(command)
    return dest


def _commands(folder: AdapterFolder, dest: Path, format: str) -> list[str]:
    """What serves or uses the folder."""
    if format == "standalone":
        told = typed(dest)
        return [f"pip install -r {told}/requirements.txt", f"python {told}/predict.py rows.jsonl > answers.jsonl"]
    if format == "merged":
        return [typed("vllm", "serve", str(dest))]
    answer = typed("weitiao", "predict", str(dest), "rows.jsonl")
    rank, problem = lora_rank(folder.path), None
    if format == "chatglm-adapter" or model_config(folder.base.folder)["model_type"] == "chatglm":
        problem = "GLM-4's first checkpoints need code of their own there"
    elif rank is None:
        problem = f"its rank is above {RANKS[-1]}"
    elif any(".visual." in name for name in tensor_shapes(folder.path)):
        problem = "part of it is in the vision tower"
    if problem:
        return [f"# for vLLM, export with --format merged: {problem}", answer]
    base = ["vllm", "serve", str(folder.base.folder), "--enable-lora", "--max-lora-rank", str(rank)]
    return [typed(*base, "--lora-modules", f"{dest.resolve().name}={dest}"), answer]


def lora_rank(folder: Path) -> int | None:
    """vLLM's `--max-lora-rank` for an adapter: its largest rank, rounded up; None where it is too large."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    largest = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    return next((rank for rank in RANKS if rank >= largest), None)


def _adapter(folder: AdapterFolder, draft: Path, screen: Screen) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", TASK_FILE):
        shutil.copyfile(folder.path / name, draft / name)


def _chatglm_adapter(folder: AdapterFolder, draft: Path, screen: Screen) -> None:
    """By the names of GLM-4's own code: `query_key_value`, `dense`, `dense_h_to_4h`, `dense_4h_to_h`."""
    from weitiao.model.chatglm_adapter import part_rows, write_old

    config = model_config(folder.base.folder)
    if config["model_type"] not in ("chatglm", "glm"):
        raise ConfigError(f"{folder.path}: is an adapter of {config['model_type']!r}; chatglm-adapter is GLM-4's form")
    write_old(folder.path, draft, part_rows(config))
    shutil.copyfile(folder.path / TASK_FILE, draft / TASK_FILE)


def _merged(folder: AdapterFolder, draft: Path, screen: Screen) -> str | None:
    """A whole model, read back and compared with the run. One model at a time is in memory."""
    refuse_quantized(folder)
    from weitiao.model.merge import updates
    from weitiao.model.merged_folder import write_merged
    from weitiao.prediction.predictor import Predictor

    rows = held_out(folder, ROWS, screen)
    apart = Predictor.open(folder, merging=True)
    wanted = apart.answer(rows)
    found = {name: update.cpu() for name, update in updates(apart.model).items()}
    del apart
    gc.collect()
    with screen.bar("writing", len(tensor_shapes(folder.base.folder)), "tensors") as advance:
        write_merged(folder.base.folder, found, draft, folder.told.base.cache_dir, advance)
    again = _read_back(folder, draft, found)
    if not rows:
        screen.note("the merged model opens; no rows to compare its answers with the run's on")
        return "not compared, as no held-out rows were at hand"
    agreed = compared(wanted, again.answer(rows))
    screen.note(f"merged model beside the run: {agreed}")
    least, most = LEAST_EQUAL if folder.task.has_labels else LEAST_EQUAL_TEXTS, MOST_NATS["bfloat16"]
    if not agreed.holds(least, most):
        raise ModelError(
            f"the merged model does not answer as the run does ({agreed}; wanted {least:.0%} and {most:g} nats), "
            "so it is not kept; use --format adapter"
        )
    return f"on held-out rows of the run, {agreed}"


def _standalone(folder: AdapterFolder, draft: Path, screen: Screen, merged: bool = False) -> str | None:
    """The adapter, or the model with it folded in, with a program that needs no Weitiao, tried beside the run."""
    refuse_standalone(folder, merged)
    if merged:
        (draft / "model").mkdir()
        _merged(folder, draft / "model", screen)
    elif public_name(folder)[0] is None:
        screen.note("the base model is in no hub: elsewhere, name its folder with predict.py's --base, or add --merged")
    write_standalone(folder, draft, merged)
    return tried(folder, draft, merged, screen)


def _standalone_merged(folder: AdapterFolder, draft: Path, screen: Screen) -> str | None:
    return _standalone(folder, draft, screen, merged=True)


def _read_back(folder: AdapterFolder, draft: Path, found: Mapping[str, Update]) -> Predictor:
    """What was written, as any other model is opened."""
    from weitiao.model.load import choose_device, choose_dtype, load_model
    from weitiao.model.merge import Merged
    from weitiao.model.placement import place
    from weitiao.prediction.predictor import Predictor

    name = str(draft.resolve())
    base = open_base(ModelSection(name=name, family=folder.told.family))  # type: ignore[call-arg]
    if base.chat.hash != folder.base.chat.hash or base.tokenizer.hash != folder.base.tokenizer.hash:
        raise ModelError(f"{draft}: the tokenizer that was written is not the base model's")
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    model = load_model(draft, device, dtype, place("auto", draft, device, dtype).kind)
    return Predictor.around(folder, Merged(model, frozenset(found)), image_cache_gib=0)


FORMATS: Mapping[str, Callable[[AdapterFolder, Path, Screen], Any]] = {
    "adapter": _adapter,
    "merged": _merged,
    "chatglm-adapter": _chatglm_adapter,
    "standalone": _standalone,
}
