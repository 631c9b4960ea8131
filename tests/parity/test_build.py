"""What is built ahead is what a step calls: the same kernels, for the same types and compiled-in numbers."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from parity.by_kernels import with_kernels
from parity.oracle import halved_model, lora_model
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow, Prompt
from weitiao.engine import build, kernels
from weitiao.engine.build import Building, Dimensions, build_ahead
from weitiao.engine.forward import Forward
from weitiao.engine.slot_prompts import PIECE, PromptReader
from weitiao.engine.slot_steps import WIDE, Steps
from weitiao.engine.slots import SlotCache

pytestmark = pytest.mark.slow

VARYING = {"rows", "prefix", "total", "place", "place_of_mask", "limit", "new", "scrap"}
"""Numbers that kernels are not built anew for (`do_not_specialize`)."""
INNER = ("_tile", "_scores", "weighed", "_of_scores", "_of_keys", "_keys", "_word", "stays", "_mixed", "_log_sum")
"""Those that other kernels call."""
Call = tuple[object, ...]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> set[Call]:
    """Of every kernel: its name, and of each argument what Triton would build for. None is run: no call depends on what
    another one computed."""
    seen: set[Call] = set()

    class Recorder:
        def __init__(self, kernel) -> None:
            self.kernel, self.parameters = kernel, list(inspect.signature(kernel.fn).parameters.values())

        def __getitem__(self, grid):
            def call(*args, **options):
                told = [kind(p, arg) for p, arg in zip(self.parameters, args, strict=True)]
                seen.add((self.kernel.fn.__name__, *told, *sorted(options.items())))

            return call

    def kind(parameter: inspect.Parameter, argument: object) -> object:
        if isinstance(argument, torch.Tensor):
            return argument.dtype
        if parameter.annotation == "tl.constexpr" or argument is None:
            return argument
        if parameter.name in VARYING:
            return "any"
        return (argument == 1, argument % 16 == 0) if isinstance(argument, int) else "float"

    for module in filter(inspect.ismodule, list(vars(kernels).values())):
        for name, value in vars(module).items():
            if hasattr(value, "fn") and name not in INNER:
                monkeypatch.setattr(module, name, Recorder(value))
    return seen


@pytest.mark.parametrize(
    ("family", "dropout"),
    [("qwen2", False), ("qwen2", True), ("glm4_0414", False), ("glm4", True), ("qwen2_vl", False)],
)
def test_a_step_calls_nothing_else(
    family: str, dropout: bool, calls: set[Call], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    model = lora_model(folder)
    if dropout:
        for module in model.modules():
            if hasattr(module, "lora_dropout"):
                module.lora_dropout["default"] = torch.nn.Dropout(0.5)
        model.train()
    forward = with_kernels(model, kernels)
    rows = tuple(PackRow(tuple(range(5 + at, 21 + at)), (9, 15), (1, 2)) for at in range(4))
    forward.loss(packed_batch(Pack(tuple(range(6)), rows))).backward()
    wanted = set(calls)
    assert len(wanted) >= 12
    calls.clear()
    dimensions = Dimensions.of(json.loads((folder / "config.json").read_text("utf-8")), 4, dropout, "float32")
    assert dimensions is not None
    build.build(dimensions, "cpu")
    missing = sorted(map(str, wanted - calls))
    assert not missing


@pytest.mark.parametrize("family", ["qwen2", "glm4"])
def test_answers_call_nothing_else(family: str, calls: set[Call], request: pytest.FixtureRequest) -> None:
    """But what a step has called."""
    folder = request.getfixturevalue(f"{family}_folder")
    answer(with_kernels(lora_model(folder), kernels))
    wanted = set(calls)
    assert {"_keep", "_attend", "_chosen", "_forward", "_log_sums"} <= {str(name) for name, *_ in wanted}
    calls.clear()
    dimensions = Dimensions.of(json.loads((folder / "config.json").read_text("utf-8")), 4, False, "float32")
    assert dimensions is not None
    build.build(dimensions, "cpu")
    build.build_answers(dimensions, "cpu")
    missing = sorted(map(str, wanted - calls))
    assert not missing


@pytest.mark.parametrize("family", ["qwen2", "glm4"])
def test_answers_in_float32_call_nothing_else(family: str, calls: set[Call], request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    forward = with_kernels(halved_model(folder), kernels)
    with forward.steady(), forward.exactly():
        calls.clear()
        answer(forward)
    wanted = set(calls)
    assert {"_halves", "_forward", "_log_sums", "_chosen"} <= {str(name) for name, *_ in wanted}
    calls.clear()
    dimensions = Dimensions.of(json.loads((folder / "config.json").read_text("utf-8")), 4, False)
    assert dimensions is not None
    build.build_exact_answers(dimensions, "cpu")
    missing = sorted(map(str, wanted - calls))
    assert not missing


def answer(forward: Forward) -> None:
    """Trees of labels; an answer read in a pack; prompts and answers in slots, one token and four, and pieces."""
    tree = PackRow((9, 8, 7, 6), (0, 3), (), parents=(-1, 0, 0, 1))
    cache = SlotCache(4, 120)
    steps = Steps(forward, cache, recorded=False)
    reader = PromptReader(steps, 64)
    with torch.inference_mode():
        read = torch.tensor([0, 1])
        forward.log_probabilities(forward.hidden(packed_batch(Pack(tuple(range(6)), (tree,)))), read, read)
        forward.hidden(packed_batch(Pack(tuple(range(6)), (PackRow(tuple(range(9)), (7, 8)),))))
        reader.read_prefix(range(6))
        hidden, _ = reader.read([Prompt(tuple(range(at, at + 40))) for at in range(2)], [2, 0])
        logits = forward.logits(hidden)
        kernels.chosen(logits, torch.full((2, -(-logits.shape[1] // 32)), -1, dtype=torch.int32))
        for width in (1, WIDE, PIECE):
            told = torch.arange(46, 46 + width).expand(3, 2, -1)
            steps.logits(told, torch.tensor([2, 0]), 46 + width)


def test_where_there_is_no_card(qwen2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CARD", tmp_path / "none")
    assert build_ahead(qwen2_folder, 4, False, str(tmp_path)).process is None
    assert build_ahead(tmp_path, 4, False, str(tmp_path)).process is None
    assert Dimensions.of({"model_type": "chatglm", "hidden_size": 8}, 4, False) is None


def test_once_for_a_model(qwen2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is started as a run starts it; here it has no card, so it fails, and is tried again."""
    monkeypatch.setattr(build, "CARD", tmp_path)
    started = []
    popen = subprocess.Popen

    def start(command, **options):
        started.append(command)
        return popen([sys.executable, "-c", "pass"], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    building = build_ahead(qwen2_folder, 4, False, str(tmp_path))
    building.finish()
    assert building.process is None
    mark = Path(started[0][-1])
    assert mark.parent == tmp_path / "kernels"
    build_ahead(qwen2_folder, 4, False, str(tmp_path)).finish()
    assert len(started) == 2
    mark.parent.mkdir()
    mark.touch()
    assert build_ahead(qwen2_folder, 4, False, str(tmp_path)).process is None
    assert build_ahead(qwen2_folder, 8, False, str(tmp_path)).process is not None
    assert build_ahead(qwen2_folder, 4, False, str(tmp_path), "float32").process is not None
    assert len(started) == 4
    assert [json.loads(command[3])["dtype"] for command in started] == ["bfloat16"] * 3 + ["float32"]


def test_a_process_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PATIENCE", 0.1)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    building = Building(process)
    building.finish()
    assert building.process is None
    assert process.wait(10) < 0


def test_a_process_that_goes_on_with_answers_is_not_waited_for(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(2)"
    process = subprocess.Popen([sys.executable, "-c", script, str(mark)])
    Building(process, mark).finish()
    assert mark.exists()
    assert process.poll() is None, "it was waited for"
    assert process.wait(30) == 0, "it was killed"


@pytest.mark.parametrize(
    ("capability", "dtype", "shared"),
    [(89, "bfloat16", 99), (90, "bfloat16", 227), (89, "float32", 99)],
)
def test_kernels_compile_for_cards(capability: int, dtype: str, shared: int, tmp_path: Path) -> None:
    """Down to their machine code, without a card; shared: KiB of memory that a program may have there."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compiled.py")
    done = subprocess.run(
        [sys.executable, str(script), str(capability), dtype],
        env=variables | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) >= 12
    assert max(memory for memory, _ in found.values()) <= shared * 1024
    # With 16,000 multiplications written out, the compiler took 10 to 25 seconds a kernel.
    assert max(products for _, products in found.values()) <= 4000
