"""GLM-4-9B's true shape with random weights: what loading the old checkpoint takes, and a short run of everything.

    python bench/glm4.py make  FOLDER --tokenizer DIR [--layers 40] [--shards 10]
    python bench/glm4.py load  FOLDER --device cpu|cuda      peak host memory against shard and model
    python bench/glm4.py train FOLDER --data rows.jsonl      training, evaluation and prediction, with rates and memory

`make` writes a checkpoint in the layout of GLM-4's first release (18.8 GB at 40 layers) on this disk; DIR holds the
release's own `tokenizer.model` and `tokenizer_config.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

GIB = 2**30
HIDDEN, INNER, VOCABULARY, QKV = 4096, 13_696, 151_552, 4608
CONFIG = {
    "model_type": "chatglm",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "ffn_hidden_size": INNER,
    "hidden_size": HIDDEN,
    "kv_channels": 128,
    "layernorm_epsilon": 1.5625e-07,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "original_rope": True,
    "padded_vocab_size": VOCABULARY,
    "post_layer_norm": True,
    "rmsnorm": True,
    "rope_ratio": 500,
    "seq_length": 131_072,
    "eos_token_id": [151329, 151336, 151338],
    "pad_token_id": 151329,
}


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Tensors of the old layout."""
    found: dict[str, tuple[int, ...]] = {"transformer.embedding.word_embeddings.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        here = f"transformer.encoder.layers.{layer}."
        found |= {
            here + "input_layernorm.weight": (HIDDEN,),
            here + "self_attention.query_key_value.weight": (QKV, HIDDEN),
            here + "self_attention.query_key_value.bias": (QKV,),
            here + "self_attention.dense.weight": (HIDDEN, HIDDEN),
            here + "post_attention_layernorm.weight": (HIDDEN,),
            here + "mlp.dense_h_to_4h.weight": (2 * INNER, HIDDEN),
            here + "mlp.dense_4h_to_h.weight": (HIDDEN, INNER),
        }
    return found | {
        "transformer.encoder.final_layernorm.weight": (HIDDEN,),
        "transformer.output_layer.weight": (VOCABULARY, HIDDEN),
        "transformer.rotary_pos_emb.inv_freq": (32,),
    }


def make(folder: Path, tokenizer: Path, layers: int, shards: int) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_layers": layers}))
    wanted = shapes(layers)
    whole = sum(torch.Size(shape).numel() for shape in wanted.values())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = torch.Generator(device).manual_seed(0)
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    number, done = 1, 0

    def write() -> None:
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        save_file(shard, folder / name)
        places.update(dict.fromkeys(shard, name))
        print(f"{name}: {sum(t.nbytes for t in shard.values()) / 1e9:.2f} GB", flush=True)
        shard.clear()

    for name, shape in wanted.items():
        if "layernorm" in name:
            tensor = torch.ones(shape, dtype=torch.bfloat16)
        else:
            tensor = torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02, generator=draw).cpu()
        shard[name] = tensor
        done += tensor.numel()
        if done * shards >= whole * number and number < shards:
            write()
            number += 1
    write()
    index = {"metadata": {"total_size": 2 * whole}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


class HostMemory:
    """Most memory of this process that is no file's page, sampled; and most with the pages of mapped files."""

    def __init__(self) -> None:
        self.own = self.with_files = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> HostMemory:
        self.before = _status("RssAnon")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.own = max(self.own, _status("RssAnon"))
            self.with_files = max(self.with_files, _status("VmRSS"))


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def load(folder: Path, device: str) -> None:
    from weitiao.model.load import choose_device, load_model

    where = choose_device(device)
    if where.type == "cuda":
        torch.zeros(1, device=where)  # CUDA's own memory on the host is no part of loading
    start = time.monotonic()
    with HostMemory() as memory:
        model = load_model(folder, where, torch.bfloat16)
    seconds = time.monotonic() - start
    weights = sum(parameter.nbytes for parameter in model.parameters())
    shard = max(path.stat().st_size for path in folder.glob("*.safetensors"))
    bound = 1.15 * shard + (weights if where.type == "cpu" else 0)
    peak = memory.own - memory.before
    print(
        f"loaded {weights / GIB:.2f} GiB onto {where} in {seconds:.1f} s; host memory peaked at {peak / GIB:.2f} GiB "
        f"({memory.with_files / GIB:.2f} with mapped files and what was there before); "
        f"1.15 × largest shard{' + model' if where.type == 'cpu' else ''} = {bound / GIB:.2f} GiB: "
        f"{'within' if peak <= bound else 'ABOVE'}"
    )


def train(folder: Path, data: Path, overrides: list[str]) -> None:
    import weitiao

    config: dict[str, Any] = {
        "run": {"name": "glm4", "output_dir": str(folder.parent / "output")},
        "task": {"name": "classification"},
        "model": {"name": str(folder)},
        "data": {"train": str(data), "validation": 0.1, "test": 0.1},
        "training": {"max_steps": 12, "logging_steps": 2, "samples_per_step": 16},
        "evaluation": {"baselines": False, "untuned": False, "bootstrap": 100},
    }
    settings = weitiao.load_config(config, overrides)
    start = time.monotonic()
    weitiao.train(settings, overwrite=True)
    print(f"whole run: {time.monotonic() - start:.1f} s")
    for line in (settings.folder / "log.jsonl").read_text().splitlines():
        found = json.loads(line)
        print({key: value for key, value in found.items() if key not in ("started", "data", "time")})
    predictor = weitiao.load(settings.folder)
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()[:128]]
    texts = [{"text": row["text"]} for row in rows]
    predictor.predict(texts)
    start = time.monotonic()
    answers = predictor.predict(texts)
    torch.cuda.synchronize()
    seconds = time.monotonic() - start
    print(
        f"predicted {len(answers)} rows in {seconds:.2f} s ({len(answers) / seconds:.1f} rows/s); first {answers[0]}; "
        f"peak {torch.cuda.max_memory_allocated() / GIB:.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("make", "load", "train"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        if name == "make":
            command.add_argument("--tokenizer", type=Path, required=True)
            command.add_argument("--layers", type=int, default=40)
            command.add_argument("--shards", type=int, default=10)
        elif name == "load":
            command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        else:
            command.add_argument("--data", type=Path, required=True)
    told, overrides = parser.parse_known_args()
    if told.command == "make":
        make(told.folder, told.tokenizer, told.layers, told.shards)
    elif told.command == "load":
        load(told.folder, told.device)
    else:
        train(told.folder, told.data, overrides)


if __name__ == "__main__":
    sys.exit(main())
