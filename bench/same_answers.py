"""Whether a run answers alike with the engine and without, alone and in a batch: its own weights, real rows.

    python bench/same_answers.py RUN DATA [--rows 500] [--alone 64] [--plain 128] [--dtype bfloat16]

`same`: of the first --plain rows, the share whose answer is the plain path's (transformers' own layers, one row at a
time, each label by itself). `flipped`: of --alone rows, the share that is another when a row is answered alone and with
63 others. `gap` and `alone_gap`: the largest difference between log-probabilities of equal answers, in nats, from the
plain path's and from those alone. `rows_per_second`: of the second pass over all rows. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

TOGETHER = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--alone", type=int, default=64)
    parser.add_argument("--plain", type=int, default=128)
    parser.add_argument("--dtype", default="auto")
    print(json.dumps(told(**vars(parser.parse_args()))))


def told(run: Path, data: str, rows: int, alone: int, plain: int, dtype: str) -> dict[str, Any]:
    import torch

    from weitiao.bench.agreement import answered, gap, share_equal
    from weitiao.bench.answerers.weitiao import PLAIN
    from weitiao.config import DataSection
    from weitiao.data.source import iter_rows
    from weitiao.model.adapter import open_adapter
    from weitiao.model.load import choose_device, choose_dtype, load_model
    from weitiao.prediction.adapter_folder import open_folder
    from weitiao.prediction.predictor import Predictor

    folder = open_folder(run)
    section = DataSection(train=data, columns=folder.told.columns, encoding=folder.told.encoding)  # type: ignore[call-arg]
    examples = [folder.task.example(row, labelled=True) for row in islice(iter_rows(data, section), rows)]
    ours = Predictor.open(folder, dtype=dtype)
    whole = ours.answer(examples)
    begin = time.perf_counter()
    whole = ours.answer(examples)
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    single = answered(ours, examples[:alone], 1)
    alone_seconds = time.perf_counter() - begin
    together = answered(ours, examples[:alone], TOGETHER)
    device = choose_device("auto")
    base = load_model(folder.base.folder, device, choose_dtype(dtype, device), "one")
    model = open_adapter(base, folder.path).eval()
    slow = Predictor(folder.task, folder.encoder, model, budget=folder.told.max_answer_tokens, **PLAIN)
    slow.temperature, slow.thresholds = ours.temperature, ours.thresholds
    begin = time.perf_counter()
    expected = answered(slow, examples[:plain], 1)
    plain_seconds = time.perf_counter() - begin
    off = {}
    if base.dtype != torch.float32:
        exact = answered(Predictor.around(folder, copy.deepcopy(model).float()), examples[:plain], TOGETHER)
        off = {"off": 1 - share_equal(exact, whole[:plain]), "plain_off": 1 - share_equal(exact, expected)}
    measured = folder.task.measure(whole, examples, bootstrap=100, seed=0)
    return {
        "device": str(device),
        "dtype": str(base.dtype).removeprefix("torch."),
        "rows": len(examples),
        "rows_per_second": len(examples) / seconds,
        "plain_rows": len(expected),
        "plain_seconds": plain_seconds,
        "same": share_equal(expected, whole[:plain]),
        **off,
        "gap": gap(expected, whole[:plain]),
        "alone_rows": len(single),
        "flipped": 1 - share_equal(single, together),
        "alone_gap": gap(single, together),
        "seconds_each_alone": alone_seconds / max(1, len(single)),
        "others": [[a.text, b.text] for a, b in zip(expected, whole, strict=False) if a.text != b.text],
        "measured": {name: value for name, value in measured.items() if isinstance(value, float)},
    }


if __name__ == "__main__":
    main()
