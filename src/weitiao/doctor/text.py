"""Facts and findings as text that can be pasted, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from weitiao.doctor.facts import Facts, Site
from weitiao.doctor.findings import Finding, tier


def as_text(facts: Facts, found: Sequence[Finding]) -> str:
    rows = list(_rows(facts))
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{value}".rstrip() for name, value in rows]
    return "\n".join([*lines, "", *map(str, found)])


def as_json(facts: Facts, found: Sequence[Finding]) -> str:
    told = asdict(facts)
    for card, values in zip(facts.cards, told["cards"], strict=True):
        values["tier"] = tier(card)
    return json.dumps(told | {"findings": [asdict(finding) for finding in found]}, ensure_ascii=False, indent=2)


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "platform", facts.platform
    yield "python", facts.python
    memory = "memory unknown" if facts.memory_gib is None else f"{facts.memory_gib:.1f} GiB"
    yield "processor", f"{facts.processor}, {facts.cores} cores, {memory}"
    yield "driver", _driver(facts)
    for at, card in enumerate(facts.cards):
        gib = "memory unknown" if card.memory_gib is None else f"{card.memory_gib:.1f} GiB"
        yield f"card {at}", f"{card.name}, {gib}, compute capability {card.capability or 'unknown'}: {tier(card)}"
    if not facts.cards:
        yield "cards", "Apple's GPU: plain" if facts.torch.mps else "none; the CPU: plain"
    yield "torch", _torch(facts)
    for disk in facts.disks:
        yield f"{disk.holds}", f"{disk.path}: {disk.free_gib:.1f} GiB free of {disk.total_gib:.1f}"
    for site in facts.sites:
        yield site.name, f"{site.host}: {_site(site)}"
    yield "trackers", _versions(facts.trackers)
    yield "versions", _versions(facts.versions)


def _driver(facts: Facts) -> str:
    driver = facts.driver
    if driver is None:
        return "no nvidia-smi"
    return driver.error or f"{driver.version}, supports CUDA {driver.cuda or '(it does not say)'}"


def _torch(facts: Facts) -> str:
    torch = facts.torch
    if torch.version is None:
        return "not installed"
    if torch.error:
        return f"{torch.version}, cannot be imported: {torch.error}"
    build = f"CUDA {torch.cuda}" if torch.cuda else f"ROCm {torch.hip}" if torch.hip else "no card"
    return f"{torch.version}, built for {build}, sees {torch.cards} cards"


def _site(site: Site) -> str:
    if site.reachable is None:
        return f"not asked ({site.told})"
    return "reachable" if site.reachable else site.told


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or '–'}" for name, version in versions.items())
