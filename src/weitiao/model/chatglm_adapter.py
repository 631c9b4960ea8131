"""Adapters by the names of GLM-4's own code, such as the tutorial's, ↔ the same adapters by transformers' names.

    base_model.model.transformer.encoder.layers.N.self_attention.query_key_value.lora_A.weight      old
    base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight · k_proj · v_proj                native

An update is B·A·α/r. The old q, k and v are the rows of one layer, and so have one A:

    old → native   each part takes A and its rows of B
    native → old   the three As are stacked and the Bs stand on a diagonal of blocks: rank 3r, α 3α, the same update.
                   Where the three As are one, it stays one and the Bs are stacked: rank r

Both ways are exact, and what was stacked comes apart again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from weitiao.errors import CheckpointError, first_line
from weitiao.run_folder import write_json

OLD, NATIVE = "base_model.model.transformer.encoder.layers.", "base_model.model.model.layers."
NAMES = {
    "self_attention.dense": "self_attn.o_proj",
    "mlp.dense_h_to_4h": "mlp.gate_up_proj",
    "mlp.dense_4h_to_h": "mlp.down_proj",
}
FUSED = "self_attention.query_key_value"
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_KEY = re.compile(r"(?P<layer>.*\.layers\.\d+\.)(?P<module>.*)\.lora_(?P<half>[AB])\.weight")
Pair = tuple[torch.Tensor, torch.Tensor]
"""A [r, in] and B [out, r] of a layer."""


def has_old_names(folder: Path) -> bool:
    """Whether the adapter of a folder names layers as GLM-4's own code does."""
    targets = _config(folder).get("target_modules")
    return isinstance(targets, list) and any(_last(name) in targets for name in (FUSED, *NAMES))


def write_native(folder: Path, dest: Path, rows: Sequence[int]) -> None:
    """The adapter of `folder`, which has old names, as PEFT's two files in `dest` by transformers' names.

    rows: of q, k and v in the fused layer (`part_rows`). Raises CheckpointError for what is no such adapter.
    """
    found: dict[str, Pair] = {}
    for (layer, module), (a, b) in _pairs(folder, OLD).items():
        if module == FUSED:
            for part, pair in zip(PARTS, _apart(a, b, rows), strict=True):
                found[layer + part] = pair
        else:
            found[layer + NAMES[module]] = (a, b)
    _write(dest, NATIVE, found, folder, dict.fromkeys(PARTS, FUSED) | {new: old for old, new in NAMES.items()})


def write_old(folder: Path, dest: Path, rows: Sequence[int]) -> None:
    """The adapter of `folder`, which has transformers' names, as PEFT's two files in `dest` by the old names."""
    names = {native: old for old, native in NAMES.items()}
    found: dict[str, Pair] = {}
    fused: dict[str, dict[str, Pair]] = {}
    for (layer, module), pair in _pairs(folder, NATIVE).items():
        if module in PARTS:
            fused.setdefault(layer, {})[module] = pair
        else:
            found[layer + names[module]] = pair
    for layer, parts in fused.items():
        found[layer + FUSED] = _together(parts, rows)
    first = next((part for parts in fused.values() for part in parts), PARTS[0])
    _write(dest, OLD, found, folder, {FUSED: first} | NAMES)


def part_rows(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Rows of q, k and v in the fused layer. config: the model's, in its old or its native form."""
    heads = config["num_attention_heads"]
    size = config.get("kv_channels") or config.get("head_dim") or config["hidden_size"] // heads
    groups = config.get("multi_query_group_num") or config.get("num_key_value_heads") or heads
    return heads * size, groups * size, groups * size


def _apart(a: torch.Tensor, b: torch.Tensor, rows: Sequence[int]) -> list[Pair]:
    """(A, B) of q, k and v."""
    if b.shape[0] != sum(rows):
        raise CheckpointError(f"the adapter's fused layer has {b.shape[0]} rows; this model's has {sum(rows)}")
    blocks = b.split(list(rows))
    rank, left = divmod(a.shape[0], 3)
    if left == 0:
        thirds = [block.split(rank, dim=1) for block in blocks]
        diagonal = all(i == j or not thirds[i][j].any() for i in range(3) for j in range(3))
        if diagonal and b.any():
            return [(a[i * rank : (i + 1) * rank], thirds[i][i]) for i in range(3)]
    return [(a, block) for block in blocks]


def _together(parts: Mapping[str, Pair], rows: Sequence[int]) -> Pair:
    """(A, B) of the fused layer; a part without an adapter gets rows of zeros."""
    first = next(iter(parts.values()))[0]
    if len(parts) == len(PARTS) and all(torch.equal(a, first) for a, _ in parts.values()):
        return first, torch.cat([parts[part][1] for part in PARTS])
    empty = first.new_zeros(first.shape)
    pairs = [
        parts.get(part, (empty, first.new_zeros(size, len(first)))) for part, size in zip(PARTS, rows, strict=True)
    ]
    return torch.cat([a for a, _ in pairs]), torch.block_diag(*(b for _, b in pairs))


def _pairs(folder: Path, root: str) -> dict[tuple[str, str], Pair]:
    """(layer below `root`, module) → its A and B."""
    halves: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    known = (FUSED, *NAMES) if root == OLD else (*PARTS, *NAMES.values())
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: unreadable ({first_line(error)})") from None
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if not key.startswith(root) or match is None or match["module"] not in known:
            raise CheckpointError(f"{folder / WEIGHTS}: {key!r} is no adapter of a layer that GLM-4 has by these names")
        halves.setdefault((match["layer"].removeprefix(root), match["module"]), {})[match["half"]] = tensor
    incomplete = [layer + module for (layer, module), half in halves.items() if len(half) < 2]
    if incomplete:
        raise CheckpointError(f"{folder / WEIGHTS}: {incomplete[0]} has only one of A and B; restore the folder")
    return {place: (half["A"], half["B"]) for place, half in halves.items()}


def _write(dest: Path, root: str, found: Mapping[str, Pair], folder: Path, sources: Mapping[str, str]) -> None:
    """PEFT's two files. sources: module → the one of `folder` whose scale it keeps."""
    config = _config(folder)
    for key in ("use_rslora", "use_dora", "modules_to_save", "lora_bias"):
        if config.get(key):
            raise CheckpointError(f"{folder / CONFIG}: {key} = {config[key]!r} cannot be said by the other names")
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    targets: dict[str, None] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, (a, b) in found.items():
        module = name.partition(".")[2]
        source, target = _last(sources[module]), _last(module)
        alpha = config["alpha_pattern"].get(source, config["lora_alpha"])
        alpha *= len(a) / config["rank_pattern"].get(source, config["r"])
        targets[target] = None
        if len(a) != config["r"]:
            ranks[target] = len(a)
        if alpha != config["lora_alpha"]:
            alphas[target] = int(alpha) if alpha == int(alpha) else alpha
        # A copy each: safetensors refuses tensors that share memory.
        tensors |= {f"{root}{name}.lora_A.weight": a.clone(), f"{root}{name}.lora_B.weight": b.clone()}
    save_file(tensors, dest / WEIGHTS, {"format": "pt"})
    changed = {"target_modules": list(targets), "rank_pattern": ranks, "alpha_pattern": alphas}
    write_json(dest / CONFIG, config | changed)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        return {"rank_pattern": {}, "alpha_pattern": {}, **{k: v for k, v in config.items() if v is not None}}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: unreadable ({first_line(error)})") from None


def _last(module: str) -> str:
    return module.rpartition(".")[2]
