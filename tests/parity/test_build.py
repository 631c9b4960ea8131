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

from parity.oracle import lora_model
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import build, kernels, row_attention
from weitiao.engine.build import Building, Dimensions, build_ahead
from weitiao.engine.fast_layer import FastDecoder
from weitiao.engine.forward import Forward

VARYING = {"rows", "prefix", "total", "place", "place_of_mask", "limit"}
"""Numbers that kernels are not built anew for (`do_not_specialize`)."""
INNER = ("_tile", "_scores", "weighed", "_of_scores", "_of_keys", "_kept", "_mixed")
"""Those that other kernels call."""
Call = tuple[object, ...]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> set[Call]:
    """Of every kernel: its name, and of each argument what Triton would build for."""
    seen: set[Call] = set()

    class Recorder:
        def __init__(self, kernel) -> None:
            self.kernel, self.parameters = kernel, list(inspect.signature(kernel.fn).parameters.values())

        def __getitem__(self, grid):
            def call(*args, **options):
                told = [kind(p, arg) for p, arg in zip(self.parameters, args, strict=True)]
                seen.add((self.kernel.fn.__name__, *told, *sorted(options.items())))
                self.kernel[grid](*args, **options)

            return call

    def kind(parameter: inspect.Parameter, argument: object) -> object:
        if isinstance(argument, torch.Tensor):
            return argument.dtype
        if parameter.annotation == "tl.constexpr" or argument is None:
            return argument
        if parameter.name in VARYING:
            return "any"
        return (argument == 1, argument % 16 == 0) if isinstance(argument, int) else "float"

    for module in (kernels, row_attention):
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
    forward = Forward(model.get_base_model(), "split")
    forward.kernels, forward.fast = kernels, FastDecoder(forward.body, kernels)
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
    building = Building(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
    building.finish()
    assert building.process is None


@pytest.mark.parametrize(
    ("capability", "dtype", "shared"),
    [(89, "bfloat16", 99), (90, "bfloat16", 227), (89, "float32", 99), (90, "float32", 227)],
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
