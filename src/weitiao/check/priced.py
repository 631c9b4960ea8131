"""A result with what the training takes. It depends on machine and flags, and so is never kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weitiao.check.finding import LEVELS, Finding
from weitiao.config import RunConfig
from weitiao.cost.estimate import estimate
from weitiao.families.base import family_of
from weitiao.model.files import model_folder


def priced(
    result: Mapping[str, Any], config: RunConfig, gpu: str | None = None, price: float | None = None
) -> dict[str, Any]:
    """The result with `cost`, and the finding `too-large` where there is one.

    gpu: a name in `cost/cards.py`, or `cpu`; None: the machine at hand. price: of an hour.
    """
    folder = model_folder(config.model)
    _, family = family_of(folder, config.model.family)
    cost, found = estimate(config, folder, family, result, gpu, price)
    findings = list(result["findings"])
    if found is not None:
        findings.append(Finding("too-large", **found, count=1).record())
        findings.sort(key=lambda finding: LEVELS.index(finding["level"]))
    return {**result, "findings": findings, "cost": cost}
