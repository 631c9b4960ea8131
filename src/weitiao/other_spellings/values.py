"""Values of other programs' keys as ours; a ValueError says why one cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from weitiao.other_spellings.kinds import Several

OFF: tuple[Any, ...] = (None, False, 0, "", "none", "None", "null", [], {})
"""Values that leave something out."""
DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xlsx")


def share(value: Any) -> Any:
    if value in (0, None):
        return None
    if isinstance(value, int | float) and value >= 1:
        raise ValueError("is a number of rows; name a share such as 0.1, or a file of validation rows")
    return value


def modules(value: Any) -> Any:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        return value
    names = [str(name).strip() for name in names]
    return None if {"all", "all-linear"} & {name.lower() for name in names} else names


def _file(value: Any) -> Any:
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(one, list) or (isinstance(one, str) and "," in one):
        raise ValueError("names several data sets; put their rows into one file, and name it in data.train")
    if not isinstance(one, str):
        return one
    name, _, rows = one.partition("#")
    if not name.lower().endswith(DATA_FILES):
        raise ValueError("is a name that their register knows; name its file in data.train, such as data/rows.jsonl")
    return (name, int(rows)) if rows.isdigit() else name


def train_file(value: Any) -> Any:
    file = _file(value)
    return Several({"data.train": file[0], "data.train_rows": file[1]}) if isinstance(file, tuple) else file


def validation_file(value: Any) -> Any:
    file = _file(value)
    return Several({"data.validation": file[0], "data.validation_rows": file[1]}) if isinstance(file, tuple) else file


def trackers(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    names = [name.strip() if isinstance(name, str) else name for name in names]
    if "all" in names:
        raise ValueError("name the trackers: swanlab, tensorboard, wandb, mlflow or trackio")
    return [name for name in names if name not in OFF]


def bits(value: Any) -> str:
    if value != 4:
        raise ValueError("weights are stored in 16 bits or, as nf4, in 4")
    return "nf4"


def dtype(value: Any) -> Any:
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(value, value)


def columns(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("wanted a mapping of the file's names to theirs")
    named = {"query": "question", "prompt": "question", "response": "answer", "images": "image", "input": "text"}
    named |= {"messages": "conversation", "conversations": "conversation"}
    return {named.get(theirs, theirs): column for column, theirs in value.items()}


def text(value: Any) -> Any:
    if isinstance(value, str) and value.endswith(".txt"):
        raise ValueError("names a file; write its text")
    return value


def one_of(choices: Mapping[Any, Any], why: str) -> Callable[[Any], Any]:
    def turn(value: Any) -> Any:
        if not isinstance(value, str | bool | int) or value not in choices:
            raise ValueError(why)
        return choices[value]

    return turn


def metric(value: Any) -> Any:
    name = str(value).removeprefix("eval_")
    if "loss" in name:
        raise ValueError("the best adapter is chosen by the task's own metric, not by the loss")
    return name.replace("-", "_")


def share_of_steps(value: Any) -> Any:
    if isinstance(value, int | float) and value >= 1:
        raise ValueError("wanted a share of the steps, below 1")
    return value


def positive(value: Any) -> Any:
    return None if isinstance(value, int | float) and value < 0 else value


def is_off(value: Any) -> bool:
    return any(value == off and isinstance(value, bool) == isinstance(off, bool) for off in OFF)
