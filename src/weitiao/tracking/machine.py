"""Where a run is computed, and by which versions: facts for the log, and so for the report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

LIBRARIES = (
    "weitiao",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "llguidance",
    "numpy",
)
GIB = 2**30


def machine(device: Any) -> dict[str, Any]:
    """Processor, memory in GiB, accelerator, system and versions. device: the torch device that computes."""
    import torch

    facts: dict[str, Any] = {
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": memory(),
        "system": platform.platform(terse=True),
        "device": str(device),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts |= {"gpu": card.name, "gpu_memory_gib": round(card.total_memory / GIB, 1), "cuda": torch.version.cuda}
    return facts


def peak_memory(device: Any) -> dict[str, float]:
    """Most memory that this process has held so far, in GiB: `peak_gib` of the host, `peak_gpu_gib` of the device."""
    import torch

    found = {}
    if sys.platform != "win32":
        import resource

        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB, 2)
    if device.type == "cuda":
        found["peak_gpu_gib"] = round(torch.cuda.max_memory_allocated(device) / GIB, 2)
    return found


def cores() -> int | None:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text("utf-8", "replace").splitlines() if line.startswith("model name")]
        if names:
            return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory() -> float | None:
    """In GiB."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
