"""The card at hand, by NVIDIA's own tool: torch takes seconds to import, and may not be there yet."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
PATIENCE = 10.0
"""Seconds; a driver that is stuck answers later or never."""


@dataclass(frozen=True)
class Card:
    name: str
    gib: float

    def told(self) -> str:
        return f"{self.name}, {self.gib:.0f} GiB"


def card() -> Card | None:
    """The card with the most memory, or None: no tool, no card, or CUDA_VISIBLE_DEVICES hides all of them."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return max(filter(None, map(_card, done.stdout.splitlines())), key=lambda card: card.gib, default=None)


def _card(line: str) -> Card | None:
    name, _, mib = line.rpartition(",")
    try:
        return Card(name.strip(), float(mib) / 1024)
    except ValueError:  # `[N/A]`: a card whose memory is the host's
        return None
