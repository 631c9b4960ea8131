"""Rows, written and checked with the tokenizer of a tiny model; no weights are needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny import tiny_tokenizer, write_rows
from weitiao.check.walk import check
from weitiao.config import RunConfig, load_config


def tokenizer_folder(folder: Path, family: str = "qwen2", limit: int = 2048) -> Path:
    """What is read of a model without its weights."""
    tiny_tokenizer(folder, family)
    (folder / "config.json").write_text(json.dumps({"model_type": family, "max_position_embeddings": limit}), "utf-8")
    return folder


def config_of(folder: Path, rows: Sequence[Any], **sections: Any) -> RunConfig:
    """rows: of training, written to `folder`; sections: of the config, each with what differs from the usual."""
    model = folder / "model"
    if not model.exists():
        tokenizer_folder(model)
    write_rows(folder / "train.jsonl", rows)
    data = {"train": str(folder / "train.jsonl"), "validation": None, **sections.pop("data", {})}
    named = {"name": str(model), "cache_dir": str(folder / "cache"), **sections.pop("model", {})}
    task = {"name": "classification", **sections.pop("task", {})}
    return load_config({"task": task, "model": named, "data": data, **sections})


def checked(folder: Path, rows: Sequence[Any], test: Sequence[Any] | None = None, **sections: Any) -> dict[str, Any]:
    if test is not None:
        sections["data"] = {"test": str(write_rows(folder / "test.jsonl", test)), **sections.get("data", {})}
    return check(config_of(folder, rows, **sections))


def named(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The finding of that name; there is one."""
    (found,) = [finding for finding in result["findings"] if finding["name"] == name]
    return dict(found)


def names(result: dict[str, Any]) -> set[str]:
    return {finding["name"] for finding in result["findings"]}
