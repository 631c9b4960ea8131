"""The loop: the same bits whether it was interrupted or not, a loss that packing does not change, the best adapter."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runs import SILENT, adapter, checkpoints, lines, lively_model, run_config, same_bits, trained
from tiny import small_classification, write_rows
from weitiao.data.prefix import prefix_groups
from weitiao.prediction.predictor import load
from weitiao.training.loop import Loop
from weitiao.training.stopping import Stopping


class Killed(Exception):
    pass


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets the loop die in a step (counted from 0), once."""
    step = Loop.step

    def kill(at: int) -> None:
        def dying(self: Loop, number: int) -> Any:
            if number == at:
                monkeypatch.setattr(Loop, "step", step)
                raise Killed
            return step(self, number)

        monkeypatch.setattr(Loop, "step", dying)

    return kill


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes the validation measure the given values, one after another."""

    def give(values: Sequence[float]) -> None:
        left = iter(values)

        def evaluate() -> tuple[float, dict[str, float]]:
            value = next(left)
            return value, {"accuracy": value}

        monkeypatch.setattr("weitiao.training.parts.evaluation", lambda *_: evaluate)

    return give


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("lora.lora_dropout=0.3",),
        ("training.lr_scheduler_type=cosine", "training.warmup_steps=3", "training.weight_decay=0.1"),
        ("engine.packing=false", "lora.lora_dropout=0.3"),
    ],
    ids=["plain", "dropout", "schedule", "padded"],
)
def test_an_interrupted_run_ends_with_the_same_bits(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, kill_at: Any, overrides: tuple[str, ...]
) -> None:
    straight = trained(run_config(tmp_path / "a", qwen2_folder, classification_file, *overrides))
    config = run_config(tmp_path / "b", qwen2_folder, classification_file, *overrides)
    for step in (1, 3, 5):  # before the first checkpoint, and behind others
        kill_at(step)
        with pytest.raises(Killed):
            trained(config)
    resumed = trained(config)
    assert same_bits(adapter(resumed), adapter(straight))
    for name in ("adapter_model", "optimizer"):
        first, second = (load_file(run / "checkpoint-6" / f"{name}.safetensors") for run in (resumed, straight))
        assert same_bits(first, second)
    told = ("step", "loss", "grad_norm", "learning_rate")
    logs = [
        [[line.get(key) for key in told] for line in lines(run / "log.jsonl") if "started" not in line]
        for run in (resumed, straight)
    ]
    assert logs[0] == logs[1]


@pytest.fixture
def usual_handler() -> Iterator[None]:
    """Tests that were started in the background ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_leaves_a_checkpoint_of_the_step(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, monkeypatch: Any, usual_handler: None
) -> None:
    straight = trained(run_config(tmp_path / "a", qwen2_folder, classification_file, "training.save_steps=100"))
    config = run_config(tmp_path / "b", qwen2_folder, classification_file, "training.save_steps=100")
    step = Loop.step

    def pressed(self: Loop, number: int) -> Any:
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, number)

    monkeypatch.setattr(Loop, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        trained(config)
    monkeypatch.setattr(Loop, "step", step)
    assert checkpoints(config.folder) == ["checkpoint-2"]
    assert same_bits(adapter(trained(config)), adapter(straight))


def test_a_second_ctrl_c_stops_at_once(usual_handler: None) -> None:
    stopping = Stopping(SILENT, alone=True)
    with stopping.at_the_end():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stopping.asked
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_seed_decides(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    def run(name: str, *overrides: str) -> dict[str, torch.Tensor]:
        return adapter(trained(run_config(tmp_path / name, qwen2_folder, classification_file, *overrides)))

    first = run("a", "lora.lora_dropout=0.1")
    torch.manual_seed(999)  # nothing outside the run decides
    assert same_bits(first, run("b", "lora.lora_dropout=0.1"))
    other = run("c", "lora.lora_dropout=0.1", "run.seed=43")
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert not same_bits(first, run("d", "lora.lora_dropout=0.2"))


def test_packing_does_not_change_the_loss(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    """The mean is over all answer tokens of a step, however many packs it takes."""
    figures = {}
    for name, overrides in {
        "one pack": (),
        "many packs": ("engine.tokens_per_pack=256",),
        "a pack a row": ("engine.tokens_per_pack=256", "task.instruction=" + "判断文本的类别。" * 60),
        "a pack of all": ("task.instruction=" + "判断文本的类别。" * 60,),
        "dense": ("engine.attention=dense",),
        "padded": ("engine.packing=false",),
        "padded, many": ("engine.packing=false", "engine.tokens_per_pack=256"),
        "recomputed": ("training.gradient_checkpointing=on",),
    }.items():
        size = ("training.samples_per_step=16", "training.max_steps=2", "training.learning_rate=1e-4")
        run = trained(run_config(tmp_path / name, qwen2_folder, classification_file, *size, *overrides))
        told = [line for line in lines(run / "log.jsonl") if "loss" in line]
        figures[name] = [line[key] for line in told for key in ("loss", "grad_norm")]
    long = {"a pack a row", "a pack of all"}
    assert figures["a pack a row"] == pytest.approx(figures["a pack of all"], rel=1e-5)
    for name in figures.keys() - long:
        assert figures[name] == pytest.approx(figures["one pack"], rel=1e-5), name
    assert figures["a pack of all"] != pytest.approx(figures["one pack"], rel=1e-3)


def test_several_prefixes_do_not_change_the_loss(
    qwen2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with one of three long lists of options: as padded rows, in fewer tokens."""
    rows = lines(small_classification(tmp_path / "rows.jsonl"))
    lists = [["好评", "差评", *(f"{kind}{at}" for at in range(60))] for kind in ("书", "酒店", "手机")]
    data = write_rows(
        tmp_path / "classification.jsonl", [row | {"options": lists[i % 3]} for i, row in enumerate(rows)]
    )
    monkeypatch.setattr("weitiao.training.loop.prefix_groups", partial(prefix_groups, pack_cost=0))
    size = ("training.samples_per_step=16", "training.max_steps=3", "training.learning_rate=1e-4")
    found: dict[str, list[float]] = {}
    tokens: dict[str, int] = {}
    step = Loop.step
    for name, overrides in {
        "groups": (),
        "groups, many packs": ("engine.tokens_per_pack=512",),
        "groups, layers of transformers": ("engine.fast_layer=false",),
        "padded": ("engine.packing=false",),
        "one prefix": (),
    }.items():
        prefixes: set[int] = set()
        tokens[name] = 0

        def counting(self: Loop, number: int) -> Any:
            taken = step(self, number)
            prefixes.add(len(self.prefixes))  # noqa: B023
            tokens[name] += taken.tokens  # noqa: B023
            return taken

        monkeypatch.setattr(Loop, "step", counting)
        if name == "one prefix":
            monkeypatch.setattr("weitiao.training.loop.prefix_groups", partial(prefix_groups, pack_cost=10**6))
        run = trained(run_config(tmp_path / name, qwen2_folder, data, *size, *overrides))
        told = [line for line in lines(run / "log.jsonl") if "loss" in line]
        found[name] = [line[key] for line in told for key in ("loss", "grad_norm")]
        assert prefixes == ({3} if "groups" in name else {1})
    for name, figures in found.items():
        assert figures == pytest.approx(found["padded"], rel=1e-5), name
    assert tokens["groups"] < tokens["one prefix"] / 2


def test_a_task_is_learnt(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    model = lively_model(tmp_path / "model", qwen2_folder)
    overrides = ("training.max_steps=60", "training.samples_per_step=16", "training.save_steps=100")
    run = trained(run_config(tmp_path, model, classification_file, *overrides))
    losses = [line["loss"] for line in lines(run / "log.jsonl") if "loss" in line]
    assert losses[-1] < losses[0] / 10
    rows = lines(classification_file)
    answers = load(run, device="cpu").predict([row["text"] for row in rows])
    right = sum(answer.answer == row["label"] for answer, row in zip(answers, rows, strict=True))
    assert right >= 0.95 * len(rows)
    with (predictor := load(run, device="cpu")).untuned():
        untuned = predictor.predict([row["text"] for row in rows])
    assert sum(answer.answer == row["label"] for answer, row in zip(untuned, rows, strict=True)) < 0.8 * len(rows)


def test_the_best_adapter_is_kept(qwen2_folder: Path, classification_file: Path, tmp_path: Path, measures: Any) -> None:
    measures([0.2, 0.9, 0.9, 0.3, 0.1])
    overrides = ("training.max_steps=10", "evaluation.steps=2")
    run = trained(run_config(tmp_path, qwen2_folder, classification_file, *overrides))
    assert checkpoints(run) == ["checkpoint-10", "checkpoint-4", "checkpoint-8"]
    assert same_bits(adapter(run), adapter(run / "checkpoint-4"))
    assert not same_bits(adapter(run), adapter(run / "checkpoint-10"))
    told = [(line["step"], line["best"]) for line in lines(run / "log.jsonl") if "evaluation" in line]
    assert told == [(2, True), (4, True), (6, False), (8, False), (10, False)]


def test_the_best_adapter_is_measured(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, measures: Any
) -> None:
    """The figures and predictions that a run leaves are those of the adapter that it leaves, not of the last one."""
    measures([0.9, 0.1, 0.1])
    run = trained(run_config(tmp_path, qwen2_folder, classification_file, "data.validation=0.2", "evaluation.steps=2"))
    rows = lines(run / "predictions.jsonl")
    written = [row["probability"] for row in rows]

    def answered(folder: Path) -> list[float | None]:
        return [answer.probability for answer in load(folder, device="cpu").predict([row["text"] for row in rows])]

    assert answered(run) == pytest.approx(written, abs=1e-6)
    assert answered(run / "checkpoint-6") != pytest.approx(written, abs=1e-4)


def test_without_validation_the_last_adapter_is_kept(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path
) -> None:
    run = trained(run_config(tmp_path, qwen2_folder, classification_file))
    assert same_bits(adapter(run), adapter(run / "checkpoint-6"))
    assert checkpoints(run) == ["checkpoint-4", "checkpoint-6"]


def test_early_stopping(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, measures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures([0.2, 0.5, 0.4, 0.6, 0.1, 0.6])
    overrides = ("training.max_steps=30", "evaluation.steps=1", "evaluation.early_stopping_patience=2")
    config = run_config(tmp_path, qwen2_folder, classification_file, *overrides)
    with monkeypatch.context() as patch:
        patch.setattr("weitiao.training.train._measure", _dies)
        with pytest.raises(Killed):
            trained(config)
    run = config.folder
    assert [line["step"] for line in lines(run / "log.jsonl") if "evaluation" in line] == [1, 2, 3, 4, 5, 6]
    assert same_bits(adapter(run), adapter(run / "checkpoint-4"))
    # A run that had stopped early does not train on when it is called again.
    before = adapter(run)
    trained(config)
    assert same_bits(adapter(run), before)
    assert max(line["step"] for line in lines(run / "log.jsonl")) == 6


def _dies(*_: Any) -> None:
    raise Killed


def test_evaluation_leaves_training_alone(qwen2_folder: Path, classification_file: Path, tmp_path: Path) -> None:
    """Whether and how often the validation rows are measured changes no bit of what is learnt."""
    overrides = ("data.validation=0.25", "lora.lora_dropout=0.2")
    often, seldom = (
        trained(run_config(tmp_path / str(n), qwen2_folder, classification_file, *overrides, f"evaluation.steps={n}"))
        for n in (1, 6)
    )
    assert same_bits(adapter(often / "checkpoint-6"), adapter(seldom / "checkpoint-6"))
