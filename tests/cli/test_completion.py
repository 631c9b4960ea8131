"""Completion in a shell: what is offered, how it is installed, and that no library is waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a program called weitiao, here a shell script")
HEAVY = {"torch", "transformers", "yaml", "numpy", "httpx"}
MAIN = """
import atexit, sys
sys.argv[0] = "weitiao"
atexit.register(lambda: print(*sys.modules, file=open("modules", "w")))
from weitiao.cli import main
main()
"""


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """Environment of a user with a program `weitiao`."""
    (tmp_path / "main.py").write_text(MAIN, "utf-8")
    program = tmp_path / "bin" / "weitiao"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "main.py"}" "$@"\n', "utf-8")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "HOME": str(tmp_path), "PYTHONUTF8": "1"}


def offered(user: dict[str, str], folder: Path, words: str) -> list[str]:
    """What bash is told for the last of these words."""
    asked = {"_WEITIAO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(["weitiao"], cwd=folder, env=user | asked, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options(user: dict[str, str], tmp_path: Path) -> None:
    assert offered(user, tmp_path, "weitiao do") == ["doctor"]
    assert offered(user, tmp_path, "weitiao doctor --off") == ["--offline"]
    assert {"train", "runs", "demo"} <= set(offered(user, tmp_path, "weitiao "))
    assert HEAVY & set((tmp_path / "modules").read_text("utf-8").split()) == set()


def test_configs(user: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "qwen-mine.yaml").write_text("", "utf-8")
    found = offered(user, tmp_path, "weitiao train qwen")
    assert found[:1] == ["qwen-mine.yaml"]
    assert "qwen2-1.5b-fudan-news" in found
    assert all(name.startswith("qwen") for name in found)
    assert "demo" in offered(user, tmp_path, "weitiao preview ")
    assert HEAVY & set((tmp_path / "modules").read_text("utf-8").split()) == set()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_it_is_installed_and_works_in_bash(user: dict[str, str], tmp_path: Path) -> None:
    known = user | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    install = ["weitiao", "--install-completion", "bash"]
    done = subprocess.run(install, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    script = tmp_path / ".bash_completions" / "weitiao.sh"
    assert str(script) in (tmp_path / ".bashrc").read_text("utf-8")
    ask = f'source "{script}"; COMP_WORDS=(weitiao tra) COMP_CWORD=1; _weitiao_completion weitiao; echo $COMPREPLY'
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, env=user, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["train"], done.stderr
