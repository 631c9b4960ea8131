"""A training behind a check: what it would refuse is told at once and all together, and what is doubtful has a line.

`weitiao train` and `weitiao.train` are this; `training/train.py` is the training alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.check.screen import SIGNS
from weitiao.check.walk import check
from weitiao.config import RunConfig, load_config
from weitiao.errors import DataError
from weitiao.run_folder import RunFolder
from weitiao.tracking.screen import Screen
from weitiao.training.train import train as train_alone

TOLD_BY_TRAINING = {"conflicts", "duplicates", "leakage", "shortened"}


def train(
    config: RunConfig | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    *,
    overwrite: bool = False,
    screen: Screen | None = None,
) -> dict[str, Any]:
    """Check the rows, unless `training.check_first` is false or the run is finished; then as `training.train.train`."""
    config = config if isinstance(config, RunConfig) else load_config(config, overrides)
    screen = screen or Screen()
    if config.training.check_first and (overwrite or not RunFolder(config.folder).finished):
        refuse(check(config, screen)["findings"], screen)
    return train_alone(config, overwrite=overwrite, screen=screen)


def refuse(findings: Iterable[Mapping[str, Any]], screen: Screen) -> None:
    """DataError of the first error, with how many more there are; a note of each warning otherwise."""
    errors = [finding for finding in findings if finding["level"] == "error"]
    if errors:
        raise DataError(_told(errors))
    for finding in findings:
        if finding["level"] == "warning" and finding["name"] not in TOLD_BY_TRAINING:
            screen.note(f"{SIGNS['warning']} {finding['name']}: {finding['what']}")


def _told(errors: Sequence[Mapping[str, Any]]) -> str:
    first = errors[0]
    place = first["examples"][0] if first["examples"] else {"place": "", "text": ""}
    told = ": ".join(filter(None, (place["place"], place["text"])))
    # A row's own error says all; of what concerns many rows, the sentence and what to do are needed, too.
    if not place["place"] or first["name"] == "round-trip":
        told = ": ".join(filter(None, (first["what"], told))) + f"; {first['do']}"
    more = sum(finding["count"] for finding in errors) - 1
    return told + (f" (and {more:,} more: `weitiao check` lists what training refuses)" if more else "")
