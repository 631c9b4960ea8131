"""What the documents say of the code: what is generated is up to date, every file that they name is there, samples of
data are read by the real readers, and quoted errors are in the code."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from PIL import Image

from weitiao.config import load_config
from weitiao.data.splits import load
from weitiao.tasks.base import task_options

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "weitiao"
READMES = ("README.md", "README.zh.md")
DOCUMENTS = [*READMES, "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
INDENT = 2
"""Spaces a level of the tree."""


def test_config_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "config.md").read_text("utf-8")
    assert written == generator("make_config_reference").reference(), "call `make docs-config`"


def test_tables_of_keys_are_up_to_date() -> None:
    made = generator("make_key_tables")
    for path in made.PAGES:
        assert path.read_text("utf-8") == made.page(path), "call `make docs-config`"


def test_every_page_has_its_place_in_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(re.findall(r"([\w./-]+\.md)$", nav, flags=re.MULTILINE)) == sorted(pages)


SAMPLE_PAGES = ("docs/tasks.md", "docs/zh/tasks.md")
SAMPLES = [
    (page, config, file)
    for page in SAMPLE_PAGES
    for config, files in {
        "reviews.yaml": ("reviews.jsonl", "reviews.csv"),
        "topics.yaml": ("topics.jsonl", "topics.csv"),
        "news.yaml": ("news.jsonl",),
        "people.yaml": ("people.jsonl", "people.csv"),
        "instructions.yaml": ("instructions.jsonl", "questions.csv"),
        "photos.yaml": ("photos.jsonl", "captions.csv"),
    }.items()
    for file in files
]
OTHER_COLUMNS = {("docs/zh/tasks.md", "reviews.csv"): ["data.columns={text: 内容, label: 类别}"]}
"""As the page tells."""


@pytest.mark.parametrize("page", SAMPLE_PAGES)
def test_all_samples_of_a_page_are_tried(page: str) -> None:
    tried = {name for where, *names in SAMPLES if where == page for name in names}
    assert set(titled(page)) == tried


@pytest.mark.parametrize(("page", "config", "file"), SAMPLES)
def test_a_sample_of_data_is_read(
    page: str, config: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = titled(page)
    (tmp_path / file).write_text(blocks[file], "utf-8")
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (56, 56), (9, 99, int(name[0]))).save(tmp_path / name)
    told = yaml.safe_load(blocks[config])
    assert told["data"]["train"] == f"{config.removesuffix('.yaml')}.jsonl"
    overrides = [f"data.train={file}", "data.validation=null", "data.test=null"]
    settings = load_config(told, [*overrides, *OTHER_COLUMNS.get((page, file), [])])
    task, splits = load(settings.data, task_options(settings.task, config), settings.run.seed)
    lines = blocks[file].splitlines()
    assert len(splits.train) == len(lines) - file.endswith(".csv")
    for example in splits.train:
        assert task.prompt(example)
        assert task.parse(task.target(example.answer), example) is not None


def test_quoted_errors_are_in_the_code() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    quoted = re.findall(r"^- (?:``(.+)``|`(.+)`)$", text, flags=re.MULTILINE)
    assert len(quoted) >= 25
    missing = []
    for message in map("".join, quoted):
        pieces = [piece.strip(" :;`(),.") for piece in message.split("…")]
        missing += [f"{piece!r} of {message!r}" for piece in pieces if len(piece) > 3 and not said(piece)]
    assert not missing


@pytest.mark.parametrize("readme", READMES)
def test_the_tree_names_only_what_exists(readme: str) -> None:
    missing = [str(path) for path in tree(readme) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("readme", READMES)
def test_the_tree_leaves_out_no_module_and_no_package(readme: str) -> None:
    modules = {path.relative_to(ROOT) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    packages = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*/__init__.py")}
    scripts = {path.relative_to(ROOT) for path in (ROOT / "bench").glob("*.py")}
    assert not sorted(map(str, (modules | packages | scripts) - set(tree(readme))))


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


def titled(page: str) -> dict[str, str]:
    """Title → content of the code blocks that have one."""
    text = (ROOT / page).read_text("utf-8")
    return dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', text, flags=re.DOTALL | re.MULTILINE))


def said(piece: str) -> bool:
    """Whether the code has a text with these words; a text may be parted where it chooses between two endings."""
    return any(piece in text for text in texts()) or all(
        any(part.strip() in text for text in texts()) for part in piece.split(";")
    )


@cache
def texts() -> tuple[str, ...]:
    """All texts of the package, with … for what is filled in."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                values = (value.value if isinstance(value, ast.Constant) else "…" for value in node.values)
                found.append("".join(map(str, values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def generator(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
