"""Fine-tune glm-4-9b-chat to classify Fudan news, measure it, and show ten answers.

    python train_glm4.py [model.name=./folder] [training.max_steps=5] …

Reads train.jsonl and test.jsonl in the working directory, writes ./output/glm-4-9b-chat/checkpoint-N.
"""

import json
import sys
from itertools import islice
from pathlib import Path

import weitiao

CONFIG = {
    "run": {"name": "glm-4-9b-chat"},
    "task": {"name": "classification", "options": "row"},  # each row brings its own candidates
    "model": {"name": "ZhipuAI/glm-4-9b-chat"},  # by default from ModelScope; the code beside it is not run
    # max_length is of the text alone; a tenth of the training rows chooses the best adapter.
    "data": {"train": "train.jsonl", "validation": 0.1, "test": "test.jsonl", "max_length": 384},
    # All linear layers, by transformers' names. GLM-4's own (query_key_value, dense, …) are understood too; the
    # tutorial's activation_func is no linear layer and is refused.
    # The tutorial has a dropout of 0.1. Without it, rows that share a prefix are computed exactly as if alone.
    "lora": {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0},
    "training": {"samples_per_step": 4 * 4, "num_train_epochs": 2, "learning_rate": 1e-4, "save_steps": 100},
    "tracking": {"trackers": ["swanlab"], "project": "GLM4-finetune"},
}


def main() -> None:
    config = weitiao.load_config(CONFIG, sys.argv[1:])
    if not Path(config.data.train).is_file():
        sys.exit(f"{config.data.train} is not here; fetch it with: weitiao data fetch fudan-news --dest .")
    metrics = weitiao.train(config)
    with open(config.folder / "predictions.jsonl", encoding="utf-8") as file:
        for row in map(json.loads, islice(file, 10)):
            print(f"{row['prediction']} ({row['probability']:.2f}), wanted {row['reference']}: {row['text'][:40]!r}")
    for system, values in metrics["systems"].items():
        print(f"{system}: accuracy {values['accuracy']:.3f} on {metrics['rows']} test rows")


if __name__ == "__main__":
    try:
        main()
    except weitiao.WeitiaoError as error:  # one line that says what to do
        sys.exit(str(error))
