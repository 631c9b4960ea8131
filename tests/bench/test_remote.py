"""A system in a process of its own: what it measures is what it would here, and its end is a note. One process for all
tests, for its start takes seconds."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from weitiao.bench import measure, remote
from weitiao.bench.equality import TOLERANCE, gradients, largest_error
from weitiao.bench.measure import Lane
from weitiao.bench.profiles import PROFILES, samples
from weitiao.bench.remote import RemoteLane, WorkerFailed, Workers
from weitiao.bench.request import asked
from weitiao.bench.shapes import SHAPES, ModelMaker, model_maker, saved_maker
from weitiao.bench.system import Settings, system_class
from weitiao.bench.systems.hf_batched import HfBatched
from weitiao.bench.train import bench_train, guarded, measured
from weitiao.tracking.screen import Screen

CPU = torch.device("cpu")
SETTINGS = Settings(4, 8)
MEMBERS = samples(PROFILES["ner"], 8, SHAPES["tiny"].config["vocab_size"], seed=3)
FICKLE = """
    import os
    import torch
    from weitiao.bench.systems.hf_batched import HfBatched

    assert os.environ["FICKLE"] == "yes"
    print("as Unsloth greets")

    class Fickle(HfBatched):
        "Does what the seed of its settings says."

        def step(self, number):
            if self.settings.seed == 1:
                raise torch.cuda.OutOfMemoryError("no room")
            if self.settings.seed == 2:
                raise TypeError("a bug\\nof two lines")
            return super().step(number)

    SYSTEM = Fickle
"""


@pytest.fixture(scope="module")
def make() -> ModelMaker:
    return model_maker("tiny", CPU, torch.float32)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """For the tiny shape; a module `fickle` is there for this process and for theirs."""
    folder = tmp_path_factory.mktemp("system")
    (folder / "fickle.py").write_text(textwrap.dedent(FICKLE))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch, Workers("tiny", CPU) as workers:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("FICKLE", "yes")
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield workers


def lane_of(workers: Workers, seed: int = 0) -> RemoteLane:
    import fickle

    settings = Settings(4, 8, seed=seed)
    kind = fickle.SYSTEM
    return RemoteLane("fickle", kind(), MEMBERS, 104, settings, CPU, worker=workers.of(kind))


@pytest.mark.slow
def test_it_measures_what_it_would_here(workers: Workers, make: ModelMaker) -> None:
    there, here = lane_of(workers), Lane("here", HfBatched(), MEMBERS, 104, SETTINGS, CPU)
    for lane in (there, here):
        lane.warm_up(make)
        lane.block(0)
    known = min(len(there.losses), len(here.losses))
    assert known >= 3, "as many as warm-up has steps"
    assert [float(loss) for loss in there.losses[:known]] == pytest.approx(
        [float(loss) for loss in here.losses[:known]], rel=1e-5
    )
    assert there.warm_up_samples == 4 * there.steps >= 12
    assert there.warm_up_seconds > 0
    (block,) = there.blocks
    assert block.samples == 4
    assert block.tokens > block.distinct > 0
    assert block.seconds > 0


def test_its_gradients_are_those_of_here(workers: Workers, make: ModelMaker) -> None:
    import fickle

    found = workers.of(fickle.SYSTEM).gradients(make, MEMBERS)
    assert largest_error(found, make, MEMBERS) <= TOLERANCE["cpu"]
    assert gradients(HfBatched(), make, MEMBERS).keys() == found.keys()
    name = next(iter(found))
    assert largest_error({**found, name: 1.01 * found[name]}, make, MEMBERS) == pytest.approx(0.01, rel=0.01)


def test_too_little_memory_is_a_note_and_others_go_on(workers: Workers, make: ModelMaker) -> None:
    lane = lane_of(workers, seed=1)
    assert not guarded(lane, lambda lane: lane.warm_up(make))
    assert lane.note == "out of memory"
    process = lane.worker.process
    again = lane_of(workers)
    assert guarded(again, lambda lane: lane.warm_up(make))
    assert again.worker.process is process is not None, "its process lives on"


def test_a_bug_is_a_note(workers: Workers, make: ModelMaker) -> None:
    lane = lane_of(workers, seed=2)
    assert not guarded(lane, lambda lane: lane.warm_up(make))
    assert lane.note == "TypeError: a bug of two lines"
    assert lane.worker.process is None, "what a bug leaves behind is not measured with"


def test_a_killed_process_is_a_note(workers: Workers) -> None:
    lane = lane_of(workers)
    process = lane.worker.process or lane.worker.start()
    os.kill(process.pid, signal.SIGKILL)
    assert not guarded(lane, lambda lane: lane.block(0))
    assert lane.note == "its process was killed by signal 9"
    assert lane.blocks == []


def test_a_process_that_does_not_start_says_why(workers: Workers) -> None:
    class NotThere(HfBatched):
        first_import = "nothing_of_this_name"

    worker = remote.Worker(NotThere, workers)
    with pytest.raises(WorkerFailed, match="code 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"):
        worker.ask("drop")


def test_a_process_that_hangs_is_given_up(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.01)
    worker = remote.Worker(HfBatched, workers)
    with pytest.raises(WorkerFailed, match="no answer in 0 s"):
        worker.ask("drop")
    assert worker.process is None


def test_saved_weights_are_the_same(workers: Workers, make: ModelMaker) -> None:
    folder = workers.weights(make)
    assert workers.weights(make) == folder
    there, here = saved_maker("tiny", folder, CPU).master.state_dict(), make.master.state_dict()
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], weight) for name, weight in here.items())


class Asked:
    """Stands for a worker: fails, or answers with what this process computes."""

    process = None

    def __init__(self, fails: bool) -> None:
        self.fails, self.asked = fails, 0

    def gradients(self, make: ModelMaker, members: Any) -> Any:
        self.asked += 1
        if self.fails:
            raise WorkerFailed("no card for it")
        return gradients(HfBatched(), make, members)


@pytest.mark.parametrize("fails", [False, True])
def test_the_bench_asks_a_worker(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every system with a process of its own; a failed comparison is an unequal row."""
    worker = Asked(fails)
    monkeypatch.setitem(measure.GEMM, "cpu", (64, torch.float32, 1))
    monkeypatch.setattr(HfBatched, "own_process", True)
    monkeypatch.setattr(Workers, "of", lambda self, kind: worker)
    monkeypatch.setattr(RemoteLane, "warm_up", Lane.warm_up)
    monkeypatch.setattr(RemoteLane, "block", Lane.block)
    request = asked("cpu", "tiny", ["ner"], [4], ["hf_batched"], repeats=1, seconds=0)
    (row,) = bench_train(request, Screen(silent=True))["rows"]
    assert worker.asked == 1
    assert row["samples_per_second"] > 0
    assert row["equal"] is not fails


def test_only_systems_that_patch_get_a_process(make: ModelMaker) -> None:
    with Workers("tiny", CPU) as workers:
        request = asked("cpu", "tiny", systems=["hf_batched", "tutorial"], repeats=1, seconds=0)
        lanes = measured(request, make, MEMBERS, 4, workers, Screen(silent=True))
    assert {type(lane) for lane in lanes} == {Lane}
    assert [name for name in ("weitiao", "tutorial", "hf_batched") if system_class(name).own_process] == []
    assert system_class("unsloth").own_process
    assert system_class("hf_liger").own_process


def test_the_workers_folder_goes_with_them(make: ModelMaker) -> None:
    with Workers("tiny", CPU) as workers:
        folder: Path = workers.weights(make)
        assert (folder / "model.safetensors").exists()
    assert not folder.exists()
