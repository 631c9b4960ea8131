"""What a run will take on the disk, told and refused before its folder changes: hours later would be too late."""

from __future__ import annotations

import shutil
from pathlib import Path

from weitiao.config import RunConfig
from weitiao.errors import ConfigError
from weitiao.hub.download import size
from weitiao.run_folder import RunFolder

MOMENTS = 2
"""Numbers that AdamW keeps of each parameter."""
ROOM = 16 * 2**20
"""Bytes for all that does not grow with the adapter: log, predictions, report, JSON."""


def checkpoints_at_most(config: RunConfig, total: int, per_epoch: int) -> int:
    """Most checkpoints that are there at once: a new one is written before the oldest goes, and the best stays.

    total: steps of the run.
    """
    section = config.training
    saves = total // section.save_steps + total // (config.evaluation.steps or per_epoch) + 1
    return min(saves, section.keep_checkpoints + 2)


def most_bytes(adapter: int, checkpoints: int) -> int:
    """What a run takes, two of its adapter among it: one takes the place of the other."""
    return 2 * adapter + checkpoints * (1 + MOMENTS) * adapter + ROOM


def counted(checkpoints: int) -> str:
    return "1 checkpoint" if checkpoints == 1 else f"{checkpoints} checkpoints"


def free_near(path: Path) -> int:
    """Free bytes of the disk on which a folder is, or would be."""
    return shutil.disk_usage(next(folder for folder in (path, *path.absolute().parents) if folder.exists())).free


def told_disk(run: RunFolder, adapter: int, checkpoints: int) -> str:
    """A line on what the run takes at most. ConfigError when the disk has less.

    adapter: bytes of its weights.
    """
    needed = most_bytes(adapter, checkpoints)
    here = run.bytes_of_adapters  # is overwritten, or counts among those that are kept
    free = free_near(run.path)
    what = f"{counted(checkpoints)} of {size((1 + MOMENTS) * adapter)}"
    if needed - here > free:
        raise ConfigError(
            f"{run.path}: the run takes up to {size(needed)} of disk ({what}), and {size(free)} are free; make room, "
            "set run.output_dir elsewhere, or lower training.keep_checkpoints"
        )
    return f"the run takes at most {size(needed)} of disk, with up to {what}; {size(free)} are free"
