"""Whatever a tracker does, training ends with the same bits, and one warning says what happened.

The fakes are small programs that take the place of `python -m weitiao.tracking.child NAME`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from runs import adapter, run_config, same_bits, trained
from tracking.reading import captured
from weitiao.config import RunConfig
from weitiao.tracking import trackers
from weitiao.training.train import train

FAKE = """
import os, sys, time
from weitiao.tracking.child import serve
class Fake:
    notes = ()
    def __init__(self, start): pass
    def log(self, step, figures, at): pass
    def rows(self, step, name, rows): pass
    def finish(self, state, error): pass
"""
SERVE = "\nsys.exit(serve(lambda: Fake))\n"
FIGURES = ("data.validation=0.25", "data.test=0.2", "tracking.trackers=[swanlab]", "tracking.timeout=2")


def method(body: str, name: str = "log(self, step, figures, at)") -> str:
    return f"{FAKE}    def {name}: {body}{SERVE}"


BAD = {
    "raises in log": (method("raise OSError('no space left\\nmore')"), "swanlab: no space left; the run"),
    "raises at the end": (method("raise OSError('late')", "finish(self, state, error)"), "swanlab: late;"),
    "cannot be opened": (method("raise OSError('no network')", "__init__(self, start)"), "swanlab: no network;"),
    "exits in log": (method("sys.exit(3)"), "swanlab: SystemExit 3;"),
    "exits at once": ("import sys\nsys.exit(4)", "its process ended with exit code 4;"),
    "exits with success": ("import sys", "its process ended with exit code 0;"),
    "does not compile": ("import no_such_library", "No module named 'no_such_library'"),
    "is killed": (method("os.kill(os.getpid(), 9)"), "its process was stopped by signal 9 (Killed);"),
    "hangs at once": ("import time\ntime.sleep(1000)", "did not finish within 2 s (tracking.timeout)"),
    "hangs in log": (method("time.sleep(1000)"), "did not finish within 2 s (tracking.timeout)"),
    "writes garbage": (
        "print('<html>', flush=True)\nimport time\ntime.sleep(1000)",
        "wrote '<html>', which is no message",
    ),
    "writes garbage of JSON": ("print('[1]', flush=True)", "wrote '[1]', which is no message"),
}


def fake(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "fake.py"
    script.write_text(program, "utf-8")
    monkeypatch.setattr(trackers, "command", lambda name: [sys.executable, str(script)])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, qwen2_folder: Path) -> Callable[[Path], Path]:
    """The run without trackers of a file, trained once."""
    runs: dict[str, Path] = {}

    def plain_run(rows: Path) -> Path:
        if rows.name not in runs:
            folder = tmp_path_factory.mktemp("plain")
            runs[rows.name] = trained(run_config(folder, qwen2_folder, rows, *FIGURES, "tracking.trackers=[]"))
        return runs[rows.name]

    return plain_run


def end(config: RunConfig) -> list[str]:
    """Train; the warnings. No process is left behind."""
    screen, told = captured()
    train(config, screen=screen)
    assert not psutil.Process().children(recursive=True)
    return [line for line in told() if line.startswith("warning: ")]


@pytest.mark.parametrize("kind", BAD)
def test_one_warning_and_the_same_bits(
    kind: str,
    plain: Callable[[Path], Path],
    qwen2_folder: Path,
    classification_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, reason = BAD[kind]
    fake(program, tmp_path, monkeypatch)
    config = run_config(tmp_path, qwen2_folder, classification_file, *FIGURES)
    warnings = end(config)
    assert len(warnings) == 1, warnings
    assert reason in warnings[0]
    assert warnings[0].endswith("the run goes on without it, log.jsonl has all figures")
    same_result(config.folder, plain(classification_file))


def same_result(run: Path, other: Path) -> None:
    assert same_bits(adapter(run), adapter(other))
    for name in ("metrics.json", "predictions.jsonl"):
        assert (run / name).read_bytes() == (other / name).read_bytes()


def test_a_program_that_is_not_there(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "command", lambda name: [str(tmp_path / "nothing")])
    (warning,) = end(run_config(tmp_path, qwen2_folder, classification_file, *FIGURES))
    assert "No such file or directory" in warning


def test_a_library_that_prints_prompts_and_leaves_hooks_is_not_seen(
    plain: Callable[[Path], Path],
    qwen2_folder: Path,
    classification_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its prints go nowhere, its prompt reads an end of file, and a hook that hangs at the end is not waited for."""
    nosy = (
        "import atexit; atexit.register(time.sleep, 1000); sys.excepthook = None; "
        "os.write(1, b'printed '); print('printed', file=sys.stderr); assert sys.stdin.read() == ''"
    )
    fake(method(nosy), tmp_path, monkeypatch)
    config = run_config(tmp_path, qwen2_folder, classification_file, *FIGURES)
    assert end(config) == []
    assert "printed" not in "".join(capfd.readouterr())
    same_result(config.folder, plain(classification_file))


def test_one_bad_tracker_of_two(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = method("open(os.environ['SEEN'], 'a').write(f'{step} ')")
    (tmp_path / "good.py").write_text(good, "utf-8")
    (tmp_path / "bad.py").write_text("import time\ntime.sleep(1000)", "utf-8")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    scripts = {"swanlab": "bad.py", "tensorboard": "good.py"}
    monkeypatch.setattr(trackers, "command", lambda name: [sys.executable, str(tmp_path / scripts[name])])
    monkeypatch.setattr(trackers, "_installed", lambda library: True)
    overrides = (*FIGURES, "data.validation=null", "tracking.trackers=[swanlab, tensorboard]")
    (warning,) = end(run_config(tmp_path, qwen2_folder, classification_file, *overrides))
    assert warning.startswith("warning: swanlab: did not finish")
    assert (tmp_path / "seen").read_text().split() == ["1", "2", "3", "4", "5", "6", "6", "6"]
