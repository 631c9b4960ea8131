"""Equality and speed of the ways to compute a pack, on one device.

    python bench/attention_ways.py --device cuda --layers 28        the shape of Qwen2-1.5B, random weights
    python bench/attention_ways.py --device cpu --layers 2 --hidden 256

Prints the gradient error ‖Δ‖/‖g‖ of every LoRA tensor (its worst) against Hugging Face's padded forward in float32,
then samples per second and peak memory of training steps.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from weitiao.config import LoraSection
from weitiao.data.collate import packed_batch, padded_batch
from weitiao.data.pack import PackRow, bins, pack, training_row
from weitiao.engine.forward import Forward
from weitiao.families.base import LINEAR_LAYERS
from weitiao.model.adapter import adapter_parameters, add_lora

PROFILES = {"ner": (104, 33, 21), "classification": (35, 61, 3)}
"""Tokens: shared prefix, mean of the text, mean of the answer."""


def main() -> None:
    args = arguments()
    print(f"torch {torch.__version__}, {device_name(args.device)}")
    for profile in PROFILES:
        equality(args, profile)
        speed(args, profile)


def equality(args: argparse.Namespace, profile: str) -> None:
    """Worst tensor's error against the padded path in float32."""
    prefix, rows = samples(profile, 16, seed=1)
    model = make_model(args, torch.float32)
    reference = gradients(model, "padded", prefix, rows)
    ways = ["rows", "dense"]
    for way in ways:
        print(f"{profile:15} {way:8} float32  {worst(gradients(model, way, prefix, rows), reference):.1e}")
    if args.device == "cuda":
        del model
        model = make_model(args, torch.bfloat16)
        for way in ("padded", "rows", "varlen"):
            print(f"{profile:15} {way:8} bfloat16 {worst(gradients(model, way, prefix, rows), reference):.1e}")


def speed(args: argparse.Namespace, profile: str) -> None:
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    model = make_model(args, dtype)
    optimizer = torch.optim.AdamW([p for _, p in adapter_parameters(model)], lr=1e-5, fused=True)
    ways = ("padded", "rows", "varlen") if args.device == "cuda" else ("padded", "rows", "dense")
    for samples_per_step in args.samples_per_step:
        for way in ways:
            rates, peak = [], 0.0
            for repeat in range(args.repeats + 1):
                prefix, rows = samples(profile, samples_per_step, seed=repeat)
                reset_peak(args.device)
                start = time.perf_counter()
                try:
                    gradients(model, way, prefix, rows, args.tokens_per_pack)
                except torch.cuda.OutOfMemoryError:
                    break
                optimizer.step()
                synchronize(args.device)
                if repeat:  # the first one warms up
                    rates.append(samples_per_step / (time.perf_counter() - start))
                    peak = max(peak, peak_gib(args.device))
            told = f"{statistics.median(rates):8.1f} samples/s {peak:6.1f} GiB" if rates else "out of memory"
            print(f"{profile:15} {way:8} {samples_per_step:5} samples a step  {told}", flush=True)


def samples(profile: str, count: int, seed: int) -> tuple[tuple[int, ...], list[PackRow]]:
    shared, text, answer = PROFILES[profile]
    draw = random.Random(seed)
    prefix = tuple(draw.choices(range(1000), k=shared))
    rows = []
    for _ in range(count):
        prompt = max(2, round(draw.gauss(text, text / 2)))
        told = max(2, round(draw.gauss(answer, answer / 2)))
        ids = prefix + tuple(draw.choices(range(1000), k=prompt + told))
        rows.append(training_row(ids, shared + prompt, shared))
    return prefix, rows


def make_model(args: argparse.Namespace, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    heads = args.hidden // 128
    config = Qwen2Config(
        vocab_size=args.vocabulary,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 35 // 6,
        num_hidden_layers=args.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 6),
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(args.device):
        base = Qwen2ForCausalLM(config).to(dtype).requires_grad_(False)
    model = add_lora(base, LoraSection(), LINEAR_LAYERS, seed=0)  # type: ignore[call-arg]
    with torch.no_grad():
        for name, parameter in adapter_parameters(model):
            if "lora_B" in name:  # zero at first, when the gradients of A vanish
                parameter.normal_(0, 0.02)
    return model.train()


def gradients(model, way: str, prefix, rows, tokens_per_pack: int = 16_384) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    forward = Forward(model.get_base_model(), "rows" if way == "padded" else way)  # type: ignore[arg-type]
    if way == "padded":
        widest = len(prefix) + max(len(row.ids) for row in rows)
        groups = bins([widest] * len(rows), tokens_per_pack)
        batches = [padded_batch(prefix, [rows[i] for i in members]) for members in groups]
    else:
        batches = [packed_batch(packed) for packed, _ in pack(prefix, rows, tokens_per_pack)]
    wanted = sum(len(row.labels) for row in rows)
    model.zero_grad(set_to_none=True)
    device = forward.device.type
    for batch in batches:
        with torch.autocast(
            device, torch.bfloat16, enabled=device == "cuda" and forward.head.weight.dtype != torch.float32
        ):
            loss = forward.loss(batch) / wanted
        loss.backward()
    return {name: parameter.grad.float() for name, parameter in adapter_parameters(model)}


def worst(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    return max(float((found[name] - g).norm() / g.norm()) for name, g in wanted.items())


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples-per-step", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--tokens-per-pack", type=int, default=16_384)
    return parser.parse_args()


if __name__ == "__main__":
    main()
