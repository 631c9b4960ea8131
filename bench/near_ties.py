"""What it costs that float32 decides what 16 bits leave open, and what it gains: answers other than those of the same
weights in float32, and rows a second, by the bound in nats.

    python bench/near_ties.py RUN DATA [--rows 2000] [--near 0 0.15] [--passes 3] [--tokens 21]       a run and its rows
    python bench/near_ties.py --random [--rows 2048]          random labels, Qwen2-1.5B's shape, as `bench predict` has
    python bench/near_ties.py --random --shape tiny --device cpu --rows 32                        tries the script

The reference is transformers' own layers in float32. Prints a line of JSON for each bound: `off`, rows whose text
differs; `gap`, the largest difference between log-probabilities of labels, or of answers that are equal, in nats;
`tokens`, the mean of an answer's with its stop; and the median of the passes' rows a second, of all rows in one call.
--tokens: without the rows of the shortest answers, so many that the mean is at least this.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from weitiao.bench.agreement import gap
from weitiao.prediction.predictor import NEAR, Predictor
from weitiao.types import Prediction

THEIRS: dict[str, Any] = {"batch_tokens": 2048, "attention": "dense", "fast_layer": False, "triton": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--near", type=float, nargs="+", default=(0.0, NEAR))
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--tokens", type=float, default=0)
    parser.add_argument("--shape", default="qwen2-1.5b")
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    if asked.random:
        ours, exact, examples = of_random(asked.shape, torch.device(asked.device), asked.rows)
    else:
        ours, exact, examples = of_run(asked.run, asked.data, asked.device, asked.rows)
    begin = time.perf_counter()
    reference = exact.answer(examples)
    print(json.dumps({"float32": len(examples) / (time.perf_counter() - begin)}), flush=True)
    del exact
    sizes = [len(ours.encoder.chat.answer_ids(answer.text)) + 1 for answer in reference]
    kept = longest(sizes, asked.tokens)
    examples, reference, sizes = ([of[at] for at in kept] for of in (examples, reference, sizes))
    for near in asked.near:
        found = told(ours, near, examples, reference, asked.passes)
        print(json.dumps(found | {"tokens": statistics.mean(sizes)}), flush=True)


def longest(sizes: Sequence[int], mean: float) -> list[int]:
    """Rows, in order, without those of the shortest answers, of which a hundredth is left out at a time."""
    if max(sizes) < mean:
        raise SystemExit(f"no answer has {mean} tokens; the longest has {max(sizes)}")
    kept = sorted(range(len(sizes)), key=lambda at: sizes[at])
    while statistics.mean(sizes[at] for at in kept) < mean:
        del kept[: max(1, len(kept) // 100)]
    return sorted(kept)


def of_run(run: Path, data: str, device: str, rows: int) -> tuple[Predictor, Predictor, list[Any]]:
    """In bfloat16, in float32, and the first rows."""
    from weitiao.config import DataSection
    from weitiao.data.source import iter_rows
    from weitiao.model.adapter import open_adapter
    from weitiao.model.load import load_model
    from weitiao.prediction.adapter_folder import open_folder

    where, folder = torch.device(device), open_folder(run)
    section = DataSection(train=data, columns=folder.told.columns, encoding=folder.told.encoding)  # type: ignore[call-arg]
    examples = [folder.task.example(row, labelled=False) for row in islice(iter_rows(data, section), rows)]
    model = open_adapter(load_model(folder.base.folder, where, torch.bfloat16, "one"), folder.path).eval().float()
    exact = Predictor(folder.task, folder.encoder, model, budget=folder.told.max_answer_tokens, **THEIRS)
    return Predictor.open(folder, device, dtype="bfloat16"), exact, examples


def of_random(shape: str, device: torch.device, rows: int) -> tuple[Predictor, Predictor, list[Any]]:
    from weitiao.bench.answerer import adapted
    from weitiao.bench.answerers.weitiao import predictor
    from weitiao.bench.questions import questions
    from weitiao.bench.shapes import SHAPES, model_maker
    from weitiao.bench.vocabulary import write_tokenizer

    folder = Path(tempfile.mkdtemp())
    family, vocabulary = SHAPES[shape].family, SHAPES[shape].config["vocab_size"]
    write_tokenizer(folder, family, vocabulary)
    asked = questions("classification", folder, family, vocabulary, rows, seed=1)
    model = adapted(model_maker(shape, device, torch.bfloat16))
    exact = predictor(copy.deepcopy(model).float(), asked, **THEIRS)
    return predictor(model, asked), exact, asked.examples()


def told(
    ours: Predictor, near: float, examples: Sequence[Any], reference: Sequence[Prediction], passes: int
) -> dict[str, Any]:
    ours.near = near
    answers = ours.answer(examples)
    seconds = []
    for _ in range(passes):
        begin = time.perf_counter()
        answers = ours.answer(examples)
        seconds.append(time.perf_counter() - begin)
    off = [(a.text, b.text) for a, b in zip(reference, answers, strict=True) if a.text != b.text]
    return {
        "near": near,
        "rows": len(examples),
        "off": len(off),
        "gap": gap(reference, answers),
        "rows_per_second": len(examples) / statistics.median(seconds),
        "each": [round(len(examples) / one, 1) for one in seconds],
        "others": off[:3],
    }


if __name__ == "__main__":
    main()
