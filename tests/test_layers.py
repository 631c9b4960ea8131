"""Imports point one way, and what starts fast stays without torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import weitiao

ROOT = Path(weitiao.__file__).parent
CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")
ORDER = " ".join(re.findall(r"`(errors ←[^`]*)`", CONTRIBUTING)[0].split()).split(" ← ")
"""As it is told there."""
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms.split(" · ")}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__")


def imported(path: Path) -> set[str]:
    """Rooms of this package that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: import from 'weitiao…', not from '.'"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("weitiao.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_itself_and_rooms_to_its_left(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in RANK or room == "configs", f"{room}: a new room needs a place in the order"
    for other in imported(path) & RANK.keys() - {room}:
        assert RANK[other] < RANK[room], f"{room} imports {other}, which lies to its right"


LIGHT = [
    "weitiao.cli",
    "weitiao.curve.walk",
    "weitiao.init.walk",
    "weitiao.prediction.files",
    "weitiao.data.splits",
    "weitiao.data.encode",
    "weitiao.data.pack",
]
LIGHT += [
    "weitiao.check.command",
    *(f"weitiao.check.checks.{path.stem}" for path in (ROOT / "check/checks").glob("[!_]*.py")),
]
LIGHT += [
    f"weitiao.{room}.{path.stem}" for room in ("tasks", "families") for path in sorted((ROOT / room).glob("[!_]*.py"))
]


def test_what_starts_fast_imports_no_torch():
    script = f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
    heavy = [m for m in ("torch", "transformers", "peft", "datasets", "modelscope", "swanlab") if m in sys.modules]
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def test_the_package_itself_imports_nothing():
    script = "import sys; import weitiao; print([m for m in sys.modules if m.startswith('weitiao.')])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
