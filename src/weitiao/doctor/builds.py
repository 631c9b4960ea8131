"""Which build of torch fits a machine, and what to type for it.

Builds and the cards that each has kernels for: pytorch/pytorch, RELEASE.md, "PyTorch CUDA Support Matrix".
"""

from __future__ import annotations

from typing import NamedTuple

from weitiao.doctor.facts import Card, Facts, numbers

OLDEST_TORCH = "2.11"
"""As in pyproject.toml; for where Weitiao runs from its source."""
INDEX = "https://download.pytorch.org/whl/"


class Build(NamedTuple):
    """Of torch, for a CUDA version."""

    name: str
    cuda: tuple[int, int]
    oldest_card: tuple[int, int]
    newest_card: tuple[int, int]
    last_torch: tuple[int, int] | None = None
    """None: it is still made."""


BUILDS = (
    Build("cu130", (13, 0), (7, 5), (99, 0)),
    Build("cu128", (12, 8), (7, 5), (12, 99), (2, 11)),
    Build("cu126", (12, 6), (5, 0), (9, 99)),
    Build("cu118", (11, 8), (3, 7), (9, 99), (2, 7)),
)
"""The newest first."""
DRIVERS = {12: 525, 13: 580}
"""CUDA's major version → the first driver for it on Linux (NVIDIA, "CUDA Compatibility")."""


def build_for(facts: Facts) -> Build | None:
    """The newest build of torch for driver and cards that Weitiao takes; None where there is none.

    A driver runs every build of its own CUDA version and older. It also runs newer ones of the same major version
    (NVIDIA's "minor version compatibility"), of which the oldest is chosen where nothing else is left.
    """
    fitting = _for_cards(facts)
    if not (facts.driver and facts.driver.cuda):
        return fitting[0] if fitting else None
    cuda = numbers(facts.driver.cuda)
    exact = [build for build in fitting if build.cuda <= cuda]
    compatible = [build for build in fitting if build.cuda[0] == cuda[0]]
    return exact[0] if exact else (compatible[-1] if compatible else None)


def install(facts: Facts) -> str:
    """What to do for a torch that fits. pip keeps one of the right version, whatever it was built for, so that has to
    go first."""
    line = "pip install torch"
    if facts.torch.version:
        line = f"pip uninstall -y torch && {line}"
    if not (facts.driver or facts.cards):
        return line if facts.system == "Darwin" else f"{line} --index-url {INDEX}cpu"
    if build := build_for(facts):
        return f"{line} --index-url {INDEX}{build.name}"
    oldest, fitting = oldest_torch(facts), _for_cards(facts)
    if not fitting:
        return f"no build of torch {oldest} or newer runs on these cards; hide the oldest with CUDA_VISIBLE_DEVICES"
    return (
        f"builds of torch {oldest} and newer need driver {DRIVERS[fitting[-1].cuda[0]]} or newer; "
        f"install one, then: {line} --index-url {INDEX}{fitting[-1].name}"
    )


def oldest_torch(facts: Facts) -> str:
    return facts.needed.get("torch", OLDEST_TORCH)


def _for_cards(facts: Facts) -> list[Build]:
    """Builds that Weitiao takes, with kernels for every card."""
    oldest = numbers(oldest_torch(facts))
    recent = (build for build in BUILDS if build.last_torch is None or build.last_torch >= oldest)
    return [build for build in recent if all(_runs_on(build, card) for card in facts.cards)]


def _runs_on(build: Build, card: Card) -> bool:
    return card.capability is None or build.oldest_card <= numbers(card.capability) <= build.newest_card
