"""The command line in a process of its own, with variables of a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def weitiao() -> Any:
    def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONUTF8": "1", "WEITIAO_OFFLINE": "1", "HF_HUB_OFFLINE": "1"} | variables
        command = [sys.executable, "-m", "weitiao.cli", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)

    return run
