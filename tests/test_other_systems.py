"""macOS and Windows, as far as another machine can tell: names of files, encodings, calls that are not there."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
import torch

import weitiao
from check.looked import checked
from runs import run_config, trained
from tiny import small_classification
from weitiao import run_folder
from weitiao.errors import ConfigError
from weitiao.model.load import choose_device, choose_dtype
from weitiao.prediction.draft import can_write_all

SOURCES = sorted(Path(weitiao.__file__).parent.rglob("*.py"))
ILLEGAL = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)', re.IGNORECASE)
"""Of a file's name, on Windows (Microsoft, "Naming Files, Paths, and Namespaces")."""
ONLY_UNIX = {
    *("fork", "killpg", "setsid", "getuid", "geteuid", "symlink", "mkfifo", "sched_getaffinity", "sysconf", "statvfs"),
    *("SIGKILL", "SIGALRM", "SIGHUP", "alarm"),
}
"""Attributes that Windows' Python lacks, or that need rights there."""
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty"}
GUARDED = {
    "tracking/process.py": {"killpg", "SIGKILL"},
    "tracking/machine.py": {"resource", "sched_getaffinity", "sysconf"},
    "cost/machine.py": {"sysconf"},
}
"""File → what it uses behind a question for the system, or in a `try`."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_text_files_have_an_encoding_and_no_call_is_of_one_system(path: Path) -> None:
    allowed = GUARDED.get("/".join(path.parts[-2:]), set())
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ONLY_UNIX - allowed, f"line {node.lineno}: {node.attr}"
        elif isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & (MODULES - allowed), f"line {node.lineno}"
        elif isinstance(node, ast.Call):
            assert not _guesses(node), f"line {node.lineno}: name an encoding; Windows' own is another"


def _guesses(call: ast.Call) -> bool:
    """Whether a call opens a file as text in the system's encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(word.arg == "encoding" for word in call.keywords):
        return False
    if name == "read_text":
        return not call.args
    if name == "write_text" and isinstance(call.func, ast.Attribute):
        return len(call.args) < 2
    if name != "open" or (isinstance(call.func, ast.Attribute) and not isinstance(call.func.value, ast.Name)):
        return False
    at = 0 if isinstance(call.func, ast.Attribute) else 1
    mode = call.args[at].value if len(call.args) > at and isinstance(call.args[at], ast.Constant) else None
    mode = next((w.value.value for w in call.keywords if w.arg == "mode" and isinstance(w.value, ast.Constant)), mode)
    # `Image.open`, `os.open`, `tarfile.open` and the like have no mode of this kind.
    return isinstance(mode, str) and re.fullmatch(r"[rwax]\+?t?", mode) is not None


@pytest.fixture(scope="module")
def left(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training and a check leave: run folder and cache."""
    folder = tmp_path_factory.mktemp("left")
    rows = small_classification(folder / "rows.jsonl")
    trained(run_config(folder, qwen2_folder, rows, "training.max_steps=2", f"model.cache_dir={folder / 'cache'}"))
    checked(folder, [{"text": "很好", "label": "好评"}, {"text": "很差", "label": "差评"}])
    return folder


def test_names_are_legal_on_windows(left: Path) -> None:
    names = [path.relative_to(left) for path in left.rglob("*")]
    assert {"run", "cache"} <= {path.parts[0] for path in names}
    assert [str(path) for path in names if any(map(ILLEGAL.search, path.parts))] == []
    assert all(len(str(path)) < 160 for path in names), "Windows takes 260 with the folder before it"


@pytest.mark.parametrize(
    "model", ["hf:Qwen/Qwen2-1.5B-Instruct@main", r"D:\models\Qwen2", "pypi:smollm2-135m-instruct"]
)
def test_a_run_s_own_name_is_legal(model: str) -> None:
    config = weitiao.load_config({"task": {"name": "ner"}, "model": {"name": model}, "data": {"train": "x.jsonl"}})
    assert not ILLEGAL.search(config.run_name)


def test_a_folder_that_cannot_be_opened_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows opens no folder, so that nothing of it can be brought to the disk."""
    opened = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path).is_dir() and not named:  # `rmtree` here works by opened folders
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    for content in ("one", "two"):
        with run_folder.whole_folder(tmp_path / "saved") as draft:
            (draft / "file.txt").write_text(content, "utf-8")
        assert (tmp_path / "saved" / "file.txt").read_text("utf-8") == content


def test_the_folder_of_files_is_left_out_with_either_separator(monkeypatch: pytest.MonkeyPatch) -> None:
    from weitiao.check import screen

    for paths, kind in (
        (("/data/a.csv", "/data/b.csv"), PurePosixPath),
        ((r"D:\x\a.csv", r"D:\x\b.csv"), PureWindowsPath),
    ):
        if kind is PureWindowsPath:
            import ntpath

            monkeypatch.setattr(screen.os, "path", ntpath)
        folder = screen.common_folder({"files": dict.fromkeys(paths, "")})
        assert [path.replace(folder, "") for path in paths] == [kind(path).name for path in paths]


@pytest.mark.parametrize(
    ("encoding", "all_"), [("utf-8", True), ("UTF8", True), (None, True), ("cp936", False), ("cp1252", False)]
)
def test_what_a_stream_can_write(encoding: str | None, all_: bool) -> None:
    assert can_write_all(encoding) is all_


def test_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r'`model\.device` = "mps": this machine has none'):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = choose_device("mps")
    assert (device.type, choose_dtype("auto", device)) == ("mps", torch.float32)
    from weitiao.engine.attention_plan import choose_way
    from weitiao.engine.forward import _kernels
    from weitiao.engine.memory import wants_recompute

    assert choose_way("auto", device, torch.float32) == "rows"
    assert _kernels(True, device).__name__ == "weitiao.engine.plain"
    assert not wants_recompute("auto", None, None, device)
    with pytest.raises(ConfigError, match="needs CUDA"):
        choose_way("split", device, torch.float32)


def test_no_tensor_is_float64() -> None:
    """Metal has none. numpy's are not meant, nor the standalone program, which runs on CUDA or a CPU."""
    for path in SOURCES:
        if "standalone" in path.parts:
            continue
        text = path.read_text("utf-8")
        assert not re.search(r"torch\.(?:double|DoubleTensor)|\.double\(\)|dtype=torch\.float64", text), path
