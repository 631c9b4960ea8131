"""A Hugging Face folder of a base model with an adapter folded in, made from the base's folder tensor by tensor.

The base's files are mapped, not read: what is in memory is the tensors of the shard that is being written. A weight in
float32 is written in bfloat16, one in 16 bits keeps its type; each is rounded once, behind the sum. Names and config
stay the base's own; only GLM-4's first checkpoints, whose code no other program should have to run, become
transformers' `GlmForCausalLM` (see `chatglm.py`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from weitiao.errors import ConfigError, ModelError, first_line
from weitiao.families.base import model_config
from weitiao.families.tiktoken import converted
from weitiao.model.merge import Update, added
from weitiao.run_folder import write_json

SHARD_BYTES = 5 * 10**9
"""Most bytes of a file, unless one tensor has more."""
COPIED = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json"),
    *("merges.txt", "vocab.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("chat_template.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
)
"""Files beside the weights and `config.json`, where the base has them. No code."""
GIB = 2**30


@dataclass(frozen=True)
class _Piece:
    """A tensor of the merged model."""

    source: torch.Tensor
    """Of the base's, mapped from its file."""
    rows: slice | None = None
    """Those of the source; None: all."""
    update: Update | None = None

    @property
    def dtype(self) -> torch.dtype:
        wide = self.source.dtype in (torch.float32, torch.float64)
        return torch.bfloat16 if wide else self.source.dtype

    @property
    def bytes(self) -> int:
        count = self.source.numel() if self.rows is None else self.source[self.rows].numel()
        return count * self.dtype.itemsize

    def made(self) -> torch.Tensor:
        value = self.source if self.rows is None else self.source[self.rows].clone()
        return (value if self.update is None else added(value, self.update)).to(self.dtype)


def write_merged(
    base: Path,
    updates: Mapping[str, Update],
    dest: Path,
    cache_dir: str | None = None,
    advance: Callable[[int], None] = lambda tensors: None,
) -> None:
    """Weights, config, tokenizer and processor of `base` with `updates` (layer as transformers names it → its update)
    into the empty folder `dest`. advance: is told of tensors written.

    Raises ConfigError when the disk is too small, ModelError when a layer is not among the weights.
    """
    old_glm = model_config(base).get("model_type") == "chatglm"
    with ExitStack() as files:
        mapped = _mapped(base, files)
        pieces = _with_updates(_old_glm_pieces(base, mapped) if old_glm else mapped, updates)
        needed, free = sum(piece.bytes for piece in pieces.values()), shutil.disk_usage(dest).free
        if needed > free:
            raise ConfigError(
                f"{dest.parent}: the merged model takes {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free; "
                "name a folder on another disk"
            )
        _write_shards(pieces, dest, advance)
        dtype = next(piece.dtype for piece in pieces.values() if piece.dtype.is_floating_point)
    for name in COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, dest / name)
    if old_glm:
        _write_glm(base, dest, dtype, cache_dir)
    else:
        write_json(dest / "config.json", _in_bfloat16(model_config(base)))


def _mapped(base: Path, files: ExitStack) -> dict[str, _Piece]:
    """Every tensor of the base by its name in the file, as long as `files` are open."""
    found = {}
    for path in sorted(base.glob("*.safetensors")):
        try:
            file = files.enter_context(safe_open(path, "pt"))
            found.update({name: _Piece(file.get_tensor(name)) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: damaged weights ({first_line(error)}); fetch the model again") from None
    return found


def _old_glm_pieces(base: Path, mapped: Mapping[str, _Piece]) -> dict[str, _Piece]:
    """By transformers' names, q, k and v apart."""
    from weitiao.model.chatglm import COMPUTED, FUSED, PARTS, RENAMED
    from weitiao.model.chatglm_adapter import part_rows

    ends = torch.tensor(part_rows(model_config(base))).cumsum(0).tolist()
    found = {}
    for name, piece in mapped.items():
        if name == COMPUTED:
            continue
        for old, new in RENAMED.items():
            name = re.sub(old, new, name)
        if FUSED not in name:
            found[name] = piece
            continue
        for part, start, end in zip(PARTS, [0, *ends], ends, strict=False):
            found[name.replace(FUSED, part)] = _Piece(piece.source, slice(start, end))
    return found


def _with_updates(pieces: dict[str, _Piece], updates: Mapping[str, Update]) -> dict[str, _Piece]:
    """Files say `model.layers.0…` or `language_model.model.layers.0…` where the model in memory has
    `model.language_model.layers.0…`; behind that the names are the same."""
    places = {_behind_model(name): name for name in pieces}
    for layer, update in updates.items():
        name = places.get(_behind_model(f"{layer}.weight"))
        if name is None:
            raise ModelError(f"the weights of {layer} are not in the base model's files; nothing can be added to them")
        piece = pieces[name]
        shape = piece.source.shape if piece.rows is None else piece.source[piece.rows].shape
        if shape != (len(update.b), update.a.shape[1]):
            raise ModelError(f"{name} is {list(shape)}, and the adapter's is {[len(update.b), update.a.shape[1]]}")
        pieces[name] = _Piece(piece.source, piece.rows, update)
    return pieces


def _behind_model(name: str) -> str:
    return re.sub(r"^((model|language_model)\.)+", "", name)


def _write_shards(pieces: Mapping[str, _Piece], dest: Path, advance: Callable[[int], None]) -> None:
    shards = list(_shards(pieces))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        save_file({name: pieces[name].made().contiguous() for name in names}, dest / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
        advance(len(names))
    if len(shards) > 1:
        total = sum(piece.bytes for piece in pieces.values())
        write_json(dest / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _shards(pieces: Mapping[str, _Piece]) -> Iterator[list[str]]:
    """Names of the tensors of each file."""
    names: list[str] = []
    taken = 0
    for name, piece in pieces.items():
        if names and taken + piece.bytes > SHARD_BYTES:
            yield names
            names, taken = [], 0
        names.append(name)
        taken += piece.bytes
    yield names


def _in_bfloat16(config: Any) -> Any:
    """The config, and those of its parts, with the type that the weights now have."""
    if not isinstance(config, dict):
        return config
    typed = {"dtype", "torch_dtype"}
    return {
        key: "bfloat16" if key in typed and value == "float32" else _in_bfloat16(value) for key, value in config.items()
    }


def _write_glm(base: Path, dest: Path, dtype: torch.dtype, cache_dir: str | None) -> None:
    """Config and tokenizer that need none of GLM-4's own code."""
    from weitiao.model.chatglm import native_config

    config = native_config(base)
    config.architectures, config.dtype = ["GlmForCausalLM"], dtype
    config.save_pretrained(dest)
    if not (dest / "tokenizer.json").is_file():
        shutil.copyfile(converted(base, cache_dir), dest / "tokenizer.json")
    (dest / "tokenizer.model").unlink(missing_ok=True)
    settings = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    settings.pop("auto_map", None)
    write_json(dest / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
