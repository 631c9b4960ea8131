"""The facts of this machine."""

from __future__ import annotations

import getpass
import importlib.metadata
import platform
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from weitiao import __version__
from weitiao.doctor.cards import driver_and_cards, joined, torch_and_cards
from weitiao.doctor.facts import Disk, Facts
from weitiao.doctor.network import sites
from weitiao.hub.cache import cache_root
from weitiao.hub.names import shown
from weitiao.tracking.machine import GIB, cores, memory, processor, version

TRACKERS = ("swanlab", "wandb", "mlflow", "trackio", "tensorboard")
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "triton", "tokenizers", "llguidance", "safetensors")


def gather(offline: bool = False) -> Facts:
    """offline: no server is asked."""
    with ThreadPoolExecutor() as pool:
        by_torch, by_driver = pool.submit(torch_and_cards), pool.submit(driver_and_cards)
        asked = sites("--offline" if offline else None)
    (torch, seen), (driver, cards) = by_torch.result(), by_driver.result()
    return Facts(
        system=platform.system(),
        platform=platform.platform(terse=True),
        python=platform.python_version(),
        processor=processor(),
        cores=cores(),
        memory_gib=memory(),
        driver=replace(driver, error=_pasteable(driver.error)) if driver else None,
        cards=joined(cards, seen),
        torch=replace(torch, error=_pasteable(torch.error)),
        disks=tuple(_disks()),
        sites=asked,
        trackers={name: version(name) for name in TRACKERS},
        versions={"weitiao": __version__, **{name: version(name) for name in LIBRARIES}},
        needed=needed(),
    )


def needed() -> dict[str, str]:
    """Library → the oldest version that this package asks for; empty where it was not installed."""
    try:
        lines = importlib.metadata.requires("weitiao") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = (re.fullmatch(r"([\w-]+)>=([\d.]+)", line.replace(" ", "")) for line in lines)
    return {match[1].lower(): match[2] for match in found if match}


def _disks() -> Iterator[Disk]:
    for holds, path in (("cache", cache_root()), ("working folder", Path.cwd())):
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        usage = shutil.disk_usage(there)
        yield Disk(holds, _pasteable(shown(path)) or "", round(usage.free / GIB, 1), round(usage.total / GIB, 1))


def _pasteable(text: str | None) -> str | None:
    """Without the home folder, and without the user's name where it stands in another path."""
    if not text:
        return text
    text = text.replace(str(Path.home()), "~") if len(Path.home().parts) > 1 else text
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|$)", "USER", text)
