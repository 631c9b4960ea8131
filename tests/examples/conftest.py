"""The example scripts as their users start them: in a folder of their own, by the interpreter, without network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runs import lively_model
from tiny import old_glm, tiny_model

EXAMPLES = Path(__file__).parents[2] / "examples"
Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Script:
    """script(folder, "train_qwen2.py", *arguments) runs it there, for a user who has no key and no caches."""
    ours = ("HF_", "WEITIAO_", "MODELSCOPE_", "SWANLAB_", "XDG_", "CUDA_VISIBLE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"HOME": str(tmp_path_factory.mktemp("home")), "WEITIAO_OFFLINE": "1", "PYTHONUTF8": "1"}
    # Port 9 discards: what asks for the network fails at once.
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")

    def run(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(EXAMPLES / name), *arguments],
            cwd=folder,
            env=environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 whose weights are large enough to learn."""
    folder = tmp_path_factory.mktemp("models")
    return lively_model(folder / "lively", tiny_model(folder / "tiny"))


@pytest.fixture(scope="session")
def qwen2_vl(tmp_path_factory: pytest.TempPathFactory, qwen2_vl_folder: Path) -> Path:
    """A tiny Qwen2-VL whose weights are large enough to learn."""
    return lively_model(tmp_path_factory.mktemp("models") / "lively", qwen2_vl_folder)


@pytest.fixture(scope="session")
def glm4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GLM-4 in the layout of its first checkpoints."""
    folder = tmp_path_factory.mktemp("models")
    return old_glm(folder / "old", lively_model(folder / "lively", tiny_model(folder / "tiny", "glm4")))
