"""Driver and cards by `nvidia-smi`, and torch by a process that imports it: whatever either does, this one goes on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from weitiao.doctor.facts import Card, Driver, Torch
from weitiao.errors import first_line

SECONDS = 10
"""For `nvidia-smi`, which takes a few where the driver has to be woken."""
SECONDS_OF_TORCH = 120
"""Its first import on a slow disk takes a minute."""
FIELDS = ("name", "memory.total", "driver_version", "compute_cap")
MIB_PER_GIB = 1024
PROBE = """
import json, sys
import torch
cuda = torch.cuda.is_available()
cards = []
for index in range(torch.cuda.device_count() if cuda else 0):
    card = torch.cuda.get_device_properties(index)
    cards.append([card.name, card.total_memory / 2**30, f"{card.major}.{card.minor}"])
print("\\n" + json.dumps({
    "version": str(torch.__version__), "cuda": torch.version.cuda, "hip": torch.version.hip, "cards": cards,
    "architectures": torch.cuda.get_arch_list() if cuda else [], "mps": torch.backends.mps.is_available(),
}))
"""


def driver_and_cards() -> tuple[Driver | None, tuple[Card, ...]]:
    """(None, ()) where there is no `nvidia-smi`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, ()
    try:
        listing = _listing(program)
        cuda = re.search(r"CUDA (?:\w+ )?Version\s*:\s*(\d+\.\d+)", _output([program]))
    except subprocess.TimeoutExpired:
        return Driver(error=f"no answer in {SECONDS} s"), ()
    except (OSError, subprocess.CalledProcessError) as error:
        return Driver(error=_said(error)), ()
    rows = [dict(zip(FIELDS, line, strict=False)) for line in listing]
    told = next((row["driver_version"] for row in rows if "driver_version" in row), None)
    return Driver(told, cuda[1] if cuda else None), tuple(map(_card, rows))


def torch_and_cards() -> tuple[Torch, tuple[Card, ...]]:
    """torch, and the cards that it can use."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return Torch(), ()
    try:
        told = json.loads(_output([sys.executable, "-c", PROBE], SECONDS_OF_TORCH).splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Torch(installed, error=f"its import took more than {SECONDS_OF_TORCH} s"), ()
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        return Torch(installed, error=_said(error)), ()
    cards = tuple(Card(name, round(memory, 1), capability) for name, memory, capability in told.pop("cards"))
    return Torch(**{**told, "cards": len(cards), "architectures": tuple(told["architectures"])}), cards


def joined(by_driver: Sequence[Card], by_torch: Sequence[Card]) -> tuple[Card, ...]:
    """The driver's cards, with what an old driver does not say; torch's where there is no `nvidia-smi`."""
    known = {card.name: card.capability for card in by_torch}
    told = [replace(card, capability=card.capability or known.get(card.name)) for card in by_driver]
    return tuple(told or by_torch)


def _listing(program: str) -> list[list[str]]:
    """Fields of each card. Drivers before 510 do not know the last one, and refuse the whole question."""
    for fields in (FIELDS, FIELDS[:-1]):
        try:
            answer = _output([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])
        except subprocess.CalledProcessError:
            if fields != FIELDS:
                raise
        else:
            return [[part.strip() for part in line.split(",")] for line in answer.splitlines() if line.strip()]
    return []


def _card(row: Mapping[str, str]) -> Card:
    """`[N/A]` and the like stand where a card does not say something."""
    memory, capability = row.get("memory.total", ""), row.get("compute_cap", "")
    gib = round(float(memory) / MIB_PER_GIB, 1) if memory.isdigit() else None
    return Card(row["name"], gib, capability if re.fullmatch(r"\d+\.\d+", capability) else None)


def _output(command: list[str], seconds: float | None = None) -> str:
    limit = seconds or SECONDS
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit, check=True)
    return done.stdout


def _said(error: Any) -> str:
    """The last line of a process is the one of its exception; `nvidia-smi` says its errors on standard output."""
    if not isinstance(error, subprocess.CalledProcessError):
        return first_line(error)
    lines = [line.strip() for text in (error.stdout, error.stderr) for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended with code {error.returncode}"
