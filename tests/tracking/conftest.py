"""No settings or keys of the person who runs the tests reach a tracker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

LIBRARIES = ("SWANLAB_", "WANDB_", "MLFLOW_", "TRACKIO_")


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(LIBRARIES):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SWANLAB_CONFIG_DIR", str(home))
    monkeypatch.chdir(home)
