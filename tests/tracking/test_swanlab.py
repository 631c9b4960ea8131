"""SwanLab: offline files by its own reader, `swanlab sync`, online, the local dashboard, and interruptions."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runs import run_config, trained
from tracking.reading import SwanLabRun, break_at, captured, read_swanlab, wanted_curves, wanted_texts
from tracking.swanlab_server import SwanLabServer
from weitiao.config import RunConfig, dump_yaml
from weitiao.errors import ConfigError
from weitiao.tracking import trackers
from weitiao.tracking.record import resend
from weitiao.training.train import train

pytestmark = pytest.mark.slow

SWANLAB = ("tracking.trackers=[swanlab]", "data.validation=0.25", "data.test=0.2", "evaluation.steps=3")
CLI = [sys.executable, "-c", "from swanlab.cli import cli; cli()"]


def shown(config: RunConfig, **options: Any) -> list[str]:
    """Train; the lines on the screen that name SwanLab or warn."""
    screen, told = captured()
    train(config, screen=screen, **options)
    return [line for line in told() if line.lower().startswith(("swanlab", "warning", "waiting"))]


def holds(found: SwanLabRun, run: Path, count: int | None = None) -> None:
    assert found.curves == wanted_curves(run)
    assert found.texts == wanted_texts(run, count)


def test_offline_without_a_key(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB, "tracking.project=my-project")
    told = shown(config)
    (folder,) = (config.folder / "tracking" / "swanlab").glob("run-*")
    assert told == [f"SwanLab: offline; upload with: swanlab sync {folder}"]
    found = read_swanlab(folder)
    assert found.config == config.model_dump(mode="json")
    assert (found.name, found.project, found.state) == ("run", "my-project", "finished")
    assert [step for step, _ in found.curves["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in found.curves["eval/accuracy"]] == [3, 6]
    assert found.curves.keys() >= {"train/learning_rate", "train/grad_norm", "test/accuracy", "test/macro_f1"}
    assert len(found.texts) == 10
    holds(found, config.folder)


def test_fewer_predictions_and_another_folder(
    qwen2_folder: Path, ner_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWANLAB_LOG_DIR", str(tmp_path / "elsewhere"))
    config = run_config(tmp_path, qwen2_folder, ner_file, *SWANLAB, "tracking.predictions=3")
    run = trained(config)
    assert [path.name for path in (run / "tracking").iterdir()] == ["swanlab.log"], "what SwanLab printed"
    found = read_swanlab(tmp_path / "elsewhere")
    assert [row for row, _ in found.texts] == [row for row, _ in wanted_texts(run, 3)]


def test_the_printed_command_uploads_all(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB)
    (line,) = shown(config)
    command = shlex.split(line.partition("upload with: ")[2])
    assert command[0] == "swanlab"
    with SwanLabServer() as server:
        environment = {**os.environ, **server.environment}
        done = subprocess.run([*CLI, *command[1:]], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    uploaded(server, config)


def test_online_with_a_key(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB)
    with SwanLabServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        told = shown(config)
    (folder,) = (config.folder / "tracking" / "swanlab").glob("run-*")
    assert told == [f"SwanLab: online at {server.address}/@tester/weitiao/runs/r1, kept in {folder}"]
    uploaded(server, config)
    holds(read_swanlab(folder), config.folder)


def uploaded(server: SwanLabServer, config: RunConfig) -> None:
    own = {name: points for name, points in server.points.items() if not name.startswith("__swanlab__")}
    assert own == wanted_curves(config.folder)
    assert [(json.loads(text), caption) for text, caption in server.texts] == wanted_texts(config.folder)
    assert server.config == config.model_dump(mode="json")
    assert server.states == ["FINISHED"]


def test_a_server_that_takes_nothing_stops_nobody(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB, "tracking.timeout=6")
    with SwanLabServer(answers_metrics=False) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        told = shown(config)
    assert sum(line.startswith("warning") for line in told) == 1
    assert "swanlab: did not finish within 6 s" in told[-1]
    assert config.folder.joinpath("metrics.json").is_file()
    holds(read_swanlab(config.folder / "tracking" / "swanlab"), config.folder)


def test_a_run_that_fails_is_marked(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB)
    break_at(4, monkeypatch)
    with pytest.raises(RuntimeError, match="no power"):
        trained(config)
    found = read_swanlab(config.folder / "tracking" / "swanlab")
    assert (found.state, found.error) == ("crashed", "RuntimeError: no power")
    assert [step for step, _ in found.curves["train/loss"]] == [1, 2, 3, 4]


def test_a_run_that_goes_on_holds_all_points(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints lie at steps 2 and 4 (and 3, where it is evaluated); step 5 is logged, lost, and computed again."""
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB)
    with monkeypatch.context() as patch:
        break_at(5, patch)
        with pytest.raises(RuntimeError, match="no power"):
            trained(config)
    first = set((config.folder / "tracking" / "swanlab").glob("run-*"))
    trained(config)
    (second,) = set((config.folder / "tracking" / "swanlab").glob("run-*")) - first
    found = read_swanlab(second)
    assert (found.name, found.state) == ("run", "finished")
    assert [step for step, _ in found.curves["train/loss"]] == [1, 2, 3, 4, 5, 6]
    holds(found, config.folder)


@pytest.mark.parametrize(("sent", "state"), [(signal.SIGINT, "aborted"), (signal.SIGKILL, "crashed")])
def test_an_interrupted_process_leaves_a_readable_run(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, sent: signal.Signals, state: str
) -> None:
    """As Ctrl-C does, the signal reaches the whole group of the process."""
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB, "training.max_steps=100000")
    (tmp_path / "config.yaml").write_text(dump_yaml(config), "utf-8")
    command = [sys.executable, "-m", "weitiao.cli", "train", str(tmp_path / "config.yaml")]
    # Programs that a shell starts in the background ignore Ctrl-C, and so do theirs.
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, preexec_fn=heeded, **options) as process:
        until(lambda: any((config.folder / "tracking" / "swanlab").glob("run-*/files/config.yaml")))
        until(lambda: len(wanted_curves(config.folder)["train/loss"]) > 5)
        os.killpg(process.pid, sent)
        told = process.communicate(timeout=60)[1]
    assert "warning" not in told
    folder = config.folder / "tracking" / "swanlab"
    until(lambda: is_finished(folder))
    found = read_swanlab(folder)
    assert found.state == state
    points, wanted = found.curves["train/loss"], wanted_curves(config.folder)["train/loss"]
    # A process that was killed may have taken the last lines with it.
    assert points == wanted if sent is signal.SIGINT else points == wanted[: len(points)] and points


def is_finished(folder: Path) -> bool:
    try:
        return read_swanlab(folder).state is not None
    except AssertionError:  # SwanLab's reader on a file whose beginning has not reached the disk
        return False


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_the_local_dashboard(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("swanboard")
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB, "tracking.mode=local")
    told = shown(config)
    folder = config.folder / "tracking" / "swanlab"
    assert told == [f"SwanLab: local; look with: swanlab watch {folder}"]
    holds(read_swanlab(folder), config.folder)
    dashboard_shows(config.folder)


def test_an_offline_run_comes_to_the_local_dashboard(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("swanboard")
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB)
    run = trained(config)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    screen, told = captured()
    resend(run, ["tracking.mode=local"], screen)
    assert told() == [f"SwanLab: local; look with: swanlab watch {run / 'tracking' / 'swanlab'}"]
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    dashboard_shows(run)


def dashboard_shows(run: Path) -> None:
    """`swanlab watch` answers, lists the run, and gives its loss and predictions."""
    folder = run / "tracking" / "swanlab"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    watch = [*CLI, "watch", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(watch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port))
            assert b"<html" in get(port, "/")
            (experiment,) = json.loads(get(port, "/api/v1/project"))["data"]["experiments"]
            assert (experiment["name"], experiment["status"]) == ("run", 1)
            points = json.loads(get(port, f"/api/v1/experiment/{experiment['id']}/tag/train%2Floss"))["data"]["list"]
            assert [(p["index"], p["data"]) for p in points] == wanted_curves(run)["train/loss"]
            texts = json.loads(get(port, f"/api/v1/experiment/{experiment['id']}/tag/Prediction"))["data"]["list"]
            assert [json.loads(text) for text in texts[0]["data"]] == [row for row, _ in wanted_texts(run)]
        finally:
            process.kill()


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        return bytes(response.read())


def answers(port: int) -> bool:
    try:
        return bool(get(port, "/"))
    except OSError:
        return False


def test_a_dashboard_that_is_not_installed_is_told_before_training(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_installed", lambda library: library != "swanboard")
    config = run_config(tmp_path, qwen2_folder, classification_file, *SWANLAB, "tracking.mode=local")
    with pytest.raises(ConfigError, match=r"pip install 'swanlab\[dashboard\]'"):
        trained(config)
    assert not config.folder.exists()
