"""Captions of photographs with Qwen2-VL-2B's true shape and random weights: Weitiao beside the tutorial's recipe.

    python bench/image_captions.py make FOLDER --tokenizer DIR      weights, and 500 photographs with captions
    python bench/image_captions.py weitiao FOLDER [--dropout 0.05]  a process from start to end
    python bench/image_captions.py tutorial FOLDER [--dropout 0.05] the same work by HF Trainer and PEFT, batch 4 × 4
    python bench/image_captions.py equal FOLDER                     losses of the first steps, same samples and adapters
    python bench/image_captions.py tower FOLDER                     features of images of many sizes, and their speed

DIR holds a `tokenizer.json` of Qwen2's vocabulary with the tokens of Qwen2-VL, and its `tokenizer_config.json`. The
photographs are coloured noise of 640 × 480 pixels as JPEG, the captions are put together from a few words: what is
measured depends on sizes, not on what is seen. Each command prints JSON; memory is torch's peak on the card.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

GIB = 2**30
ROWS = 500
SIZE = 280
QUESTION = "COCO Yes:"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WORDS = {
    "who": ("A man", "Two children", "A brown dog", "A woman in a red coat", "Several people", "A small white cat"),
    "does": ("is standing", "are sitting", "is running", "waits", "is sleeping", "looks up"),
    "where": ("on a wooden bench", "next to a parked bus", "in a field of tall grass", "near the kitchen table"),
    "when": ("at night.", "on a sunny day.", "while it rains.", "in front of a large window."),
}


def make(folder: Path, tokenizer: Path) -> None:
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from weitiao.families.tokenizer import TextTokenizer

    model = folder / "model"
    model.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, model / name)
    control = TextTokenizer(model).control
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = AutoConfig.for_model(
        "qwen2_vl",
        text_config={
            "vocab_size": 151_936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32_768,
            "rope_parameters": rope,
            "bos_token_id": None,
            "eos_token_id": control("<|im_end|>"),
        },
        vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
        tie_word_embeddings=True,
        image_token_id=control("<|image_pad|>"),
        video_token_id=control("<|video_pad|>"),
        vision_start_token_id=control("<|vision_start|>"),
        vision_end_token_id=control("<|vision_end|>"),
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).save_pretrained(model)
    Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=12_845_056).save_pretrained(model)

    draw, noise = random.Random(0), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for at in range(ROWS):
        coarse = Image.fromarray(noise.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / "images" / f"{at}.jpg", quality=92)
        rows.append({"image": f"images/{at}.jpg", "caption": " ".join(draw.choice(words) for words in WORDS.values())})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def run_config(folder: Path, dropout: float, name: str) -> Any:
    from weitiao.config import load_config

    shutil.rmtree(folder / name, ignore_errors=True)
    return load_config(
        {
            "run": {"output_dir": str(folder), "name": name},
            "task": {"name": "generation", "question": QUESTION, "metrics": ["rouge_l"]},
            "model": {"name": str(folder / "model"), "cache_dir": str(folder / "cache")},
            "data": {
                "train": str(folder / "rows.jsonl"),
                "validation": None,
                "max_length": 8192,
                "image_size": [SIZE, SIZE],
            },
            "lora": {"r": 64, "lora_alpha": 16, "lora_dropout": dropout},
            "training": {"samples_per_step": 16, "num_train_epochs": 2, "learning_rate": 1e-4, "save_steps": 100},
        }
    )


def weitiao(folder: Path, dropout: float) -> dict[str, Any]:
    """The whole of `weitiao train`: nothing is known of the images before."""
    start = time.monotonic()
    from weitiao.tracking.screen import Screen
    from weitiao.training.train import train

    class Clock(Screen):
        def note(self, text: str) -> None:
            super().note(f"{time.monotonic() - start:6.1f} s  {text}")

    shutil.rmtree(folder / "cache", ignore_errors=True)
    config = run_config(folder, dropout, "run")
    train(config, screen=Clock())
    import torch

    log = [json.loads(line) for line in (config.folder / "log.jsonl").read_text("utf-8").splitlines()]
    features = list((folder / "cache" / "image-features").rglob("*.safetensors"))
    return {
        "system": "weitiao",
        "seconds": time.monotonic() - start,
        "training_seconds": next(line["training_seconds"] for line in log if "training_seconds" in line),
        "losses": [round(line["loss"], 3) for line in log if "loss" in line],
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
        "features_mib": sum(file.stat().st_size for file in features) / 2**20,
    }


def tutorial(folder: Path, dropout: float, steps: int) -> dict[str, Any]:
    """HF Trainer as the tutorial sets it: rows mapped one by one to lists, checkpointing, the tower in every step."""
    start = time.monotonic()
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer, processor, model = _loaded(folder)
    loaded = time.monotonic()
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        inputs = _inputs(folder, tokenizer, processor, row)
        answer = tokenizer(row["caption"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        prompt = inputs["input_ids"][0].tolist()
        return {
            "input_ids": prompt + answer,
            "attention_mask": [1] * (len(prompt) + len(answer)),
            "labels": [-100] * len(prompt) + answer,
            "mm_token_type_ids": inputs["mm_token_type_ids"][0].tolist() + [0] * len(answer),
            "pixel_values": inputs["pixel_values"].tolist(),
            "image_grid_thw": inputs["image_grid_thw"][0].tolist(),
        }

    data = Dataset.from_list(rows).map(encode, remove_columns=["image", "caption"])
    mapped = time.monotonic()
    model.enable_input_require_grads()
    lora = LoraConfig(
        r=64, lora_alpha=16, lora_dropout=dropout, target_modules=TARGETS, task_type="CAUSAL_LM", bias="none"
    )
    model = get_peft_model(model, lora)
    pad = DataCollatorForSeq2Seq(tokenizer, padding=True)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = [dict(row) for row in rows]
        kinds = [torch.tensor(row.pop("mm_token_type_ids")) for row in batch]
        pixels = torch.cat([torch.tensor(row.pop("pixel_values")) for row in batch])
        grids = torch.tensor([row.pop("image_grid_thw") for row in batch])
        padded = dict(pad(batch))
        width = padded["input_ids"].shape[1]
        right = tokenizer.padding_side == "right"
        padded["mm_token_type_ids"] = torch.stack(
            [torch.nn.functional.pad(k, (0, width - len(k)) if right else (width - len(k), 0)) for k in kinds]
        )
        return padded | {"pixel_values": pixels, "image_grid_thw": grids}

    settings = TrainingArguments(
        output_dir=str(folder / "tutorial"),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        num_train_epochs=2,
        max_steps=steps,
        learning_rate=1e-4,
        logging_steps=10,
        save_steps=100,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=settings, train_dataset=data, data_collator=collate)
    trainer.train()
    return {
        "system": "tutorial",
        "seconds": time.monotonic() - start,
        "load_seconds": loaded - start,
        "map_seconds": mapped - loaded,
        "training_seconds": time.monotonic() - mapped,
        "losses": [round(line["loss"], 3) for line in trainer.state.log_history if "loss" in line],
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
    }


def equal(folder: Path, steps: int = 30) -> dict[str, Any]:
    """Losses of our steps beside those of transformers' own forward on the same samples, one by one, from the same
    adapters, with AdamW and the same schedule: in bfloat16 under autocast, and in float32, which is the truth."""
    import torch

    from weitiao.config import load_config
    from weitiao.training.train import train

    config = load_config(
        run_config(folder, 0.0, "equal").model_dump(mode="json"),
        [f"training.max_steps={steps}", "training.logging_steps=1"],
    )
    train(config)
    log = [json.loads(line) for line in (config.folder / "log.jsonl").read_text("utf-8").splitlines()]
    ours = [line["loss"] for line in log if "loss" in line]
    told: dict[str, Any] = {"system": "equal", "ours": [round(loss, 5) for loss in ours]}
    exact = _losses_of_transformers(folder, config, steps, torch.float32)
    told["float32"] = [round(loss, 5) for loss in exact]
    told["ours_from_float32"] = max(abs(a - b) for a, b in zip(ours, exact, strict=True))
    if torch.cuda.is_available():
        theirs = _losses_of_transformers(folder, config, steps, torch.bfloat16)
        told["bfloat16"] = [round(loss, 5) for loss in theirs]
        told["bfloat16_from_float32"] = max(abs(a - b) for a, b in zip(theirs, exact, strict=True))
    return told


def _losses_of_transformers(folder: Path, config: Any, steps: int, dtype: Any) -> list[float]:
    import torch
    from transformers import get_scheduler

    from weitiao.data.pack import samples_of_step
    from weitiao.data.splits import load
    from weitiao.model.adapter import add_lora
    from weitiao.model.base import open_base
    from weitiao.model.load import load_model
    from weitiao.tasks.base import task_options

    tokenizer, processor, _ = _loaded(folder, model=False)
    _, splits = load(config.data, task_options(config.task), config.run.seed)
    base = open_base(config.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = add_lora(load_model(base.folder, device, dtype), config.lora, base.family, config.run.seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    schedule = get_scheduler("linear", optimizer, 0, steps)
    losses = []
    for step in range(steps):
        rows = [splits.train[i].row.fields for i in samples_of_step(len(splits.train), 16, config.run.seed, step)]
        answers = [
            tokenizer(r["caption"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for r in rows
        ]
        total, count = 0.0, sum(map(len, answers))
        for row, answer in zip(rows, answers, strict=True):
            inputs = {
                name: value.to(device) for name, value in _inputs(folder, tokenizer, processor, dict(row)).items()
            }
            told = torch.tensor([answer], device=device)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], told], dim=1)
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(answer)))
            del inputs["attention_mask"]
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = model(**inputs).logits[0, -len(answer) - 1 : -1].float()
            loss = torch.nn.functional.cross_entropy(logits, told[0], reduction="sum") / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def tower(folder: Path, count: int = 64) -> dict[str, Any]:
    """Features of `count` images of many sizes: ours, all at once, beside the tower's own attention, image by image."""
    import torch

    from weitiao.engine.image_features import image_features
    from weitiao.images import image_facts
    from weitiao.types import PlacedImage

    _, _, model = _loaded(folder)
    features = image_features(model, folder / "model", limit_gib=0)
    assert features is not None
    draw = random.Random(1)
    images = []
    for at in range(count):
        path = str(folder / "images" / f"{at}.jpg")
        rows, columns = draw.randint(2, 20), draw.randint(2, 20)
        digest = image_facts(path).digest
        images.append(PlacedImage(path, digest, 28 * rows, 28 * columns, rows, columns, 0, "bench"))
    pixels = [features.reader.pixels(image) for image in images]
    found: dict[str, Any] = {"system": "tower", "images": count, "tokens": sum(image.tokens for image in images)}
    results = {}
    with torch.inference_mode():
        for name, attention in (("own", model.model.visual.config._attn_implementation), ("sdpa", "sdpa")):
            model.model.visual.config._attn_implementation = attention
            for _ in range(2):
                _synchronize()
                start = time.monotonic()
                if name == "own":
                    results[name] = features._computed(images, pixels)
                else:
                    parts = [features._computed([i], [p]) for i, p in zip(images, pixels, strict=True)]
                    results[name] = torch.cat(parts)
                _synchronize()
                found[f"{name}_seconds"] = time.monotonic() - start
        exact = model.float()
        results["float32"] = torch.cat([features._computed([i], [p]) for i, p in zip(images, pixels, strict=True)])
        assert exact is model
    wanted = results["float32"]
    for name in ("own", "sdpa"):
        found[f"{name}_relative_error"] = float((results[name].float() - wanted).norm() / wanted.norm())
    return found


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _loaded(folder: Path, model: bool = True) -> tuple[Any, Any, Any]:
    """Tokenizer, image processor and, in bfloat16 on the card, model of the folder."""
    import torch
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    path = folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(path)
    processor = Qwen2VLImageProcessorPil.from_pretrained(path)
    if not model:
        return tokenizer, processor, None
    kind: Any = Qwen2VLForConditionalGeneration
    return tokenizer, processor, kind.from_pretrained(path, dtype=torch.bfloat16, device_map="auto")


def _inputs(folder: Path, tokenizer: Any, processor: Any, row: dict[str, Any]) -> dict[str, Any]:
    """The prompt of a row as tensors: the model's chat template with an image of 280 × 280 and the question."""
    import torch
    from PIL import Image

    image = Image.open(folder / row["image"]).convert("RGB").resize((SIZE, SIZE))
    seen = processor(images=[image], return_tensors="pt")
    tokens = int(seen["image_grid_thw"].prod()) // 4
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|>{'<|image_pad|>' * tokens}<|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    kinds = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds, **seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("make", "weitiao", "tutorial", "equal", "tower"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=-1, help="stop the tutorial's run, or the comparison, there")
    told = parser.parse_args()
    if told.command == "make":
        make(told.folder, told.tokenizer)
        return
    runs = {
        "weitiao": lambda: weitiao(told.folder, told.dropout),
        "tutorial": lambda: tutorial(told.folder, told.dropout, told.steps),
        "equal": lambda: equal(told.folder, told.steps if told.steps > 0 else 30),
        "tower": lambda: tower(told.folder),
    }
    print(json.dumps(runs[told.command]()))


if __name__ == "__main__":
    main()
