"""What the documents say of the code: the config reference is up to date, and every file that they name is there."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "weitiao"
READMES = ("README.md", "README.zh.md")
DOCUMENTS = [*READMES, "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
INDENT = 2
"""Spaces a level of the tree."""


def test_config_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "config.md").read_text("utf-8")
    assert written == generator().reference(), "call `make docs-config`"


@pytest.mark.parametrize("readme", READMES)
def test_the_tree_names_only_what_exists(readme: str) -> None:
    missing = [str(path) for path in tree(readme) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("readme", READMES)
def test_the_tree_leaves_out_no_module_and_no_package(readme: str) -> None:
    modules = {path.relative_to(ROOT) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    packages = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*/__init__.py")}
    assert not sorted(map(str, (modules | packages) - set(tree(readme))))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_only_files_that_exist(document: str) -> None:
    """Every link to a file, and every `path/name.py` or `path/name.md` in code quotes, here or in the package."""
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    quoted = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|yaml|yml))`", text)
    here = (ROOT / document).parent
    missing = [link for link in links if link and not (here / link).exists()]
    missing += [name for name in quoted if not any((folder / name).exists() for folder in (ROOT, PACKAGE, here))]
    assert not missing


def tree(readme: str) -> list[Path]:
    """Paths of the README's file tree: the code block with a line `src/weitiao/`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / readme).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if re.search(r"^src/weitiao/$", block, flags=re.MULTILINE)]
    return list(_paths(block.splitlines()))


def _paths(lines: list[str]) -> Iterator[Path]:
    folders: list[str] = []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // INDENT
        names = re.split(r"\s{2,}", line.strip())[0].split(" · ")
        del folders[depth:]
        for name in names:
            yield Path(*folders, name)
        if names[0].endswith("/"):
            folders.append(names[0])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_config_reference", ROOT / "docs" / "make_config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
