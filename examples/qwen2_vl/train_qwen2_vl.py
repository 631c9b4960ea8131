"""Fine-tune Qwen2-VL-2B-Instruct to caption COCO's images, measure it, and show four captions.

    python train_qwen2_vl.py [model.name=./folder] [training.max_steps=5] …

Reads data_vl.json and the images that it names in the working directory, writes ./output/Qwen2-VL-2B/checkpoint-N.
"""

import json
import sys
from itertools import islice
from pathlib import Path

import weitiao

CONFIG = {
    "run": {"name": "Qwen2-VL-2B"},
    "task": {
        "name": "generation",
        "question": "COCO Yes:",  # about an image that comes without one; the rows of data_vl.json ask it themselves
        "metrics": ["cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"],
    },
    "model": {"name": "Qwen/Qwen2-VL-2B-Instruct"},  # by default from ModelScope
    # The adapter keeps the size of the images, and predicts at it. Of the rows, a twentieth chooses the best adapter,
    # and a tenth is measured at the end: four, as in the tutorial, are too few to tell anything.
    "data": {
        "train": "data_vl.json",
        "validation": 0.05,
        "test": 0.1,
        "max_length": 8192,
        "image_size": [280, 280],
    },
    "lora": {"r": 64, "lora_alpha": 16, "lora_dropout": 0.05},
    "training": {"samples_per_step": 4 * 4, "num_train_epochs": 2, "learning_rate": 1e-4, "save_steps": 100},
    "tracking": {"trackers": ["swanlab"], "project": "Qwen2-VL-finetune"},
}


def main() -> None:
    config = weitiao.load_config(CONFIG, sys.argv[1:])
    if not Path(config.data.train).is_file():
        sys.exit(f"{config.data.train} is not here; fetch it with: weitiao data fetch coco-caption --dest .")
    metrics = weitiao.train(config)
    with open(config.folder / "predictions.jsonl", encoding="utf-8") as file:
        for row in map(json.loads, islice(file, 4)):
            print(f"{row['id']}: {row['prediction']!r}, wanted {row['reference']!r}")
    for system, values in metrics["systems"].items():
        print(f"{system}: CIDEr {values['cider']:.3f}, BLEU-4 {values['bleu_4']:.3f} on {metrics['rows']} test rows")


if __name__ == "__main__":
    try:
        main()
    except weitiao.WeitiaoError as error:  # one line that says what to do
        sys.exit(str(error))
