"""What a machine's facts mean for Weitiao. Pure: it is told of machines that nobody here has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from weitiao.doctor.builds import install, oldest_torch
from weitiao.doctor.facts import Card, Facts, numbers

Mark = Literal["ok", "note", "mend"]
ENGINE = (8, 0)
"""Compute capability from which on the engine's kernels run (`engine/attention_plan.py`)."""
FULL_GIB, TIGHT_GIB = 2.0, 20.0
"""Free disk: too little for a small model and a run; too little for a model of 7 billion parameters in 16 bits."""
LITTLE_MEMORY_GIB = 7.5
"""Of a machine that is sold with 8 GiB."""
REQUIRED = ("transformers", "peft", "accelerate", "tokenizers", "llguidance", "safetensors")


@dataclass(frozen=True)
class Finding:
    mark: Mark
    text: str

    def __str__(self) -> str:
        return f"{self.mark:<5}{self.text}"


def findings(facts: Facts) -> list[Finding]:
    """The judgement, in the order of what stands on what."""
    judges = (_cards, _torch, _libraries, _disks, _memory, _sites)
    return [finding for judge in judges for finding in judge(facts)]


def tier(card: Card) -> str:
    """How models are computed on a card."""
    if card.capability is None:
        return "unknown"
    return "engine" if numbers(card.capability) >= ENGINE else "plain, float16"


def _cards(facts: Facts) -> Iterator[Finding]:
    driver = facts.driver
    if driver and driver.error:
        yield Finding("mend", f"nvidia-smi fails ({driver.error}): load or install NVIDIA's driver anew")
    elif not facts.cards and facts.torch.mps:
        yield Finding("ok", "Apple's GPU: the plain path, with model.device=mps")
    elif not facts.cards:
        yield Finding(
            "note",
            "no card: models run on the CPU; one of more than a billion parameters is not trained unless asked for",
        )
    for (name, how), count in Counter((card.name, tier(card)) for card in facts.cards).items():
        several = f"{count} × " if count > 1 else ""
        if how == "engine":
            yield Finding("ok", f"{several}{name}: the engine")
        elif how == "unknown":
            yield Finding("note", f"{several}{name}: its compute capability is told by a newer driver, or by torch")
        else:
            yield Finding(
                "note", f"{several}{name}: the plain path, in float16; the engine needs compute capability 8.0 or newer"
            )
    if len(facts.cards) > 1:
        yield Finding("note", f"{len(facts.cards)} cards: a run uses one; a model that does not fit is spread over all")


def _torch(facts: Facts) -> Iterator[Finding]:
    torch, oldest = facts.torch, oldest_torch(facts)
    if torch.version is None:
        yield Finding("mend", f"torch is not installed: {install(facts)}")
    elif torch.error:
        yield Finding("mend", f"torch {torch.version} cannot be imported ({torch.error}): {install(facts)}")
    elif numbers(torch.version) < numbers(oldest):
        yield Finding("mend", f"torch {torch.version} is older than {oldest}: {install(facts)}")
    elif problem := _unfit(facts):
        yield Finding("mend", f"{problem}: {install(facts)}")
    elif facts.cards and torch.cards < len(facts.cards):
        what = "none" if not torch.cards else str(torch.cards)
        yield Finding(
            "note" if torch.cards else "mend",
            f"torch sees {what} of {len(facts.cards)} cards: unset CUDA_VISIBLE_DEVICES, or see whether they are free",
        )
    else:
        yield Finding("ok", f"torch {torch.version}" + (f", built for CUDA {torch.cuda}" if torch.cuda else ""))


def _unfit(facts: Facts) -> str | None:
    """What is wrong between torch's build and the cards."""
    torch, driver = facts.torch, facts.driver
    if not facts.cards or torch.hip:
        return None
    if torch.cuda is None:
        return f"torch {torch.version} is a CPU build, and there is a card"
    built, supported = numbers(torch.cuda), numbers(driver.cuda) if driver and driver.cuda else None
    told = f"torch {torch.version} is built for CUDA {torch.cuda}"
    # Within a major version a card that torch can use shows that it works.
    if supported and built > supported and (built[0] > supported[0] or not torch.cards):
        assert driver
        return f"{told}, and driver {driver.version} supports CUDA {driver.cuda}"
    for card in facts.cards:
        if torch.architectures and card.capability and not _has_kernels(torch.architectures, card.capability):
            return f"{told}, without kernels for {card.name} (compute capability {card.capability})"
    return None


def _has_kernels(architectures: tuple[str, ...], capability: str) -> bool:
    """Kernels of `sm_80` run on every 8.x from there on; `compute_90` is compiled for what is newer."""
    major, minor = numbers(capability)[:2]
    for name in architectures:
        kind, _, digits = name.partition("_")
        digits = "".join(filter(str.isdigit, digits))
        at = (int(digits[:-1] or 0), int(digits[-1:] or 0))
        if (at[0] == major and at[1] <= minor) or (kind == "compute" and at <= (major, minor)):
            return True
    return False


def _libraries(facts: Facts) -> Iterator[Finding]:
    wanted = []
    for name in REQUIRED:
        there, oldest = facts.versions.get(name), facts.needed.get(name)
        if there is None or (oldest and numbers(there) < numbers(oldest)):
            wanted.append(f'"{name}>={oldest}"' if oldest else name)
    if wanted:
        yield Finding("mend", f"libraries are missing or too old: pip install {' '.join(wanted)}")
    engine = facts.torch.cuda and any(tier(card) == "engine" for card in facts.cards)
    if engine and facts.versions.get("triton") is None:
        yield Finding("mend", "triton is missing, so the engine goes without its kernels: pip install triton")


def _disks(facts: Facts) -> Iterator[Finding]:
    for disk in facts.disks:
        free = f"{disk.free_gib:.1f} GiB are free in the {disk.holds} ({disk.path})"
        elsewhere = "set WEITIAO_CACHE elsewhere" if disk.holds == "cache" else "set run.output_dir elsewhere"
        if disk.free_gib < FULL_GIB:
            yield Finding("mend", f"only {free}: make room, or {elsewhere}")
        elif disk.holds == "cache" and disk.free_gib < TIGHT_GIB:
            yield Finding("note", f"{free}: a model of 7 billion parameters takes 15 GiB")


def _memory(facts: Facts) -> Iterator[Finding]:
    if facts.memory_gib and facts.memory_gib < LITTLE_MEMORY_GIB:
        yield Finding("note", f"{facts.memory_gib:.1f} GiB of memory: the demo takes 3 GiB; larger models may not fit")


def _sites(facts: Facts) -> Iterator[Finding]:
    asked = [site for site in facts.sites if site.reachable is not None]
    for reason in dict.fromkeys(site.told for site in facts.sites if site.reachable is None):
        names = ", ".join(site.name for site in facts.sites if site.reachable is None and site.told == reason)
        yield Finding("note", f"offline ({reason}), not asked: {names}")
    silent = {site.name for site in asked if not site.reachable}
    if asked and len(silent) == len(asked):
        yield Finding("mend", "no server answers: set HTTPS_PROXY, or fetch models where there is a network")
    elif {"Hugging Face", "its mirror"} & silent == {"Hugging Face"}:
        yield Finding("note", "Hugging Face does not answer, its mirror does: export HF_ENDPOINT=https://hf-mirror.com")
        silent.discard("Hugging Face")
    if silent and len(silent) < len(asked):
        yield Finding("note", f"no answer from {', '.join(sorted(silent))}: what lies there cannot be downloaded")
    if asked and all(site.reachable for site in asked):
        yield Finding("ok", "all servers answer")
