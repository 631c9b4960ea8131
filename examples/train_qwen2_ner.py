"""Fine-tune Qwen2-1.5B-Instruct to find the entities of CCF BDCI, measure it, and show ten answers.

    python train_qwen2_ner.py [model.name=./folder] [training.max_steps=5] …

Reads ccfbdci.jsonl in the working directory, writes ./output/Qwen2-NER/checkpoint-N.
"""

import json
import sys
from itertools import islice
from pathlib import Path

import weitiao

CONFIG = {
    "run": {"name": "Qwen2-NER"},
    # An entity that goes by none of the four names is left out.
    "task": {"name": "ner", "types": ["地点", "人名", "地理实体", "组织"], "other_types": "ignore"},
    "model": {"name": "Qwen/Qwen2-1.5B-Instruct"},  # by default from ModelScope
    # A tenth of the rows chooses the best adapter, and another one is measured at the end.
    "data": {"train": "ccfbdci.jsonl", "validation": 0.1, "test": 0.1, "max_length": 384},
    # The tutorial has a dropout of 0.1. Without it, rows that share a prefix are computed exactly as if alone.
    "lora": {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0},
    "training": {"samples_per_step": 4 * 4, "num_train_epochs": 2, "learning_rate": 1e-4, "save_steps": 100},
    "tracking": {"trackers": ["swanlab"], "project": "Qwen2-NER-finetune"},
}


def main() -> None:
    config = weitiao.load_config(CONFIG, sys.argv[1:])
    if not Path(config.data.train).is_file():
        sys.exit(f"{config.data.train} is not here; fetch it with: weitiao data fetch ccfbdci --dest .")
    metrics = weitiao.train(config)
    with open(config.folder / "predictions.jsonl", encoding="utf-8") as file:
        for row in map(json.loads, islice(file, 10)):
            print(f"{row['text']!r}: {named(row['prediction'])}; wanted {named(row['reference'])}")
    for system, values in metrics["systems"].items():
        print(f"{system}: F1 {values['f1']:.3f} on {metrics['rows']} test rows")


def named(entities: list[dict[str, object]] | None) -> str:
    return ", ".join(f"{entity['text']} ({entity['type']})" for entity in entities or ()) or "none"


if __name__ == "__main__":
    try:
        main()
    except weitiao.WeitiaoError as error:  # one line that says what to do
        sys.exit(str(error))
