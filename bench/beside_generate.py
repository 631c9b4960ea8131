"""A run's answers to real rows beside `generate` in batches, which is made to write as many tokens.

    python bench/beside_generate.py RUN DATA [--rows 64] [--batches 8 16 32] [--repeats 3] [--device cpu]

`generate` gets the adapter folded in, prompts as ids, rows of similar length together, greedy choice, and as many new
tokens as the batch's longest answer has with its stop; it makes the same answers token by token, without a grammar. Of
its batches the fastest counts. Blocks in turn, in one process; both answer all rows once before. Prints one line of
JSON: rows a second of each block, the ratio of the medians, and of how many rows `generate` writes our answer (with
labels, the likeliest whole one need not be that of greedy choice).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from weitiao.config import DataSection
from weitiao.data.source import iter_rows
from weitiao.model.adapter import open_adapter
from weitiao.model.load import choose_device, choose_dtype, load_model
from weitiao.model.quiet import quiet
from weitiao.prediction.adapter_folder import AdapterFolder, open_folder
from weitiao.prediction.predictor import Predictor

FILLER = 0
"""Id that pads a row; hidden by the mask."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=(8, 16, 32))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    print(json.dumps(told(**vars(parser.parse_args()))))


def told(run: Path, data: str, rows: int, batches: Sequence[int], repeats: int, device: str) -> dict[str, Any]:
    folder = open_folder(run)
    section = DataSection(train=data, columns=folder.told.columns, encoding=folder.told.encoding)  # type: ignore[call-arg]
    examples = [folder.task.example(row, labelled=False) for row in islice(iter_rows(data, section), rows)]
    ours = Predictor.open(folder, device)
    texts = [answer.text for answer in ours.answer(examples)]
    theirs = Generate(folder, device, examples, texts)
    first = {batch: seconds(lambda batch=batch: theirs.answer(batch)) for batch in batches}  # type: ignore[misc]
    batch = min(first, key=lambda one: first[one])
    ways: dict[str, Callable[[], Any]] = {
        "weitiao": lambda: ours.answer(examples),
        "generate": lambda: theirs.answer(batch),
    }
    blocks: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, answer in ways.items():
            blocks[name].append(len(examples) / seconds(answer))
    return {
        "device": str(theirs.device),
        "rows": len(examples),
        "prompt_tokens": sum(map(len, theirs.prompts)) / len(examples),
        "answer_tokens": sum(theirs.sizes) / len(examples),
        "batch": batch,
        "batches": {size: len(examples) / spent for size, spent in first.items()},
        **blocks,
        "ratio": statistics.median(blocks["weitiao"]) / statistics.median(blocks["generate"]),
        "same": sum(a == b for a, b in zip(theirs.answer(batch), texts, strict=True)) / len(examples),
    }


class Generate:
    def __init__(self, folder: AdapterFolder, device: str, examples: Sequence[Any], texts: Sequence[str]) -> None:
        """texts: ours, which say how long an answer is."""
        self.chat = folder.encoder.chat
        self.prompts = [(*folder.encoder.prompt(example).ids, *self.chat.lead) for example in examples]
        self.sizes = [len(self.chat.answer_ids(text)) + 1 for text in texts]
        self.device = choose_device(device)
        base = load_model(folder.base.folder, self.device, choose_dtype("auto", self.device), "one")
        with quiet():
            self.model = open_adapter(base, folder.path).eval().merge_and_unload()

    @torch.inference_mode()
    def answer(self, batch: int) -> list[str]:
        out = [""] * len(self.prompts)
        ordered = sorted(range(len(self.prompts)), key=lambda at: -len(self.prompts[at]))
        for start in range(0, len(ordered), batch):
            members = ordered[start : start + batch]
            width = len(self.prompts[members[0]])
            ids = torch.full((len(members), width), FILLER)
            mask = torch.zeros_like(ids)
            for row, at in enumerate(members):
                ids[row, width - len(self.prompts[at]) :] = torch.tensor(self.prompts[at])
                mask[row, width - len(self.prompts[at]) :] = 1
            with quiet():
                written = self.model.generate(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    do_sample=False,
                    max_new_tokens=max(self.sizes[at] for at in members),
                    eos_token_id=self.chat.stop,
                    pad_token_id=self.chat.stop,
                )
            for at, tokens in zip(members, written[:, width:].tolist(), strict=True):
                end = tokens.index(self.chat.stop) if self.chat.stop in tokens else len(tokens)
                out[at] = self.chat.tokenizer.decode(tokens[:end])
        return out


def seconds(function: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
