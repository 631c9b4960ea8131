"""Which rows a share or a limit takes. It is drawn by text and by stratum, and knows of rows only a key of each text
and a name of each stratum, so that it need not hold them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from operator import itemgetter

from weitiao.config import DataSection
from weitiao.errors import ConfigError

Group = list[int]
"""Positions of the rows that have one text."""


def asked_shares(data: DataSection) -> dict[str, float]:
    """Split → the share of the training file that it gets; ConfigError when they leave nothing to train on."""
    shares = {name: share for name in ("test", "validation") if isinstance(share := getattr(data, name), float)}
    if data.split_field:
        return {}
    if sum(shares.values()) >= 1:
        raise ConfigError(f"keys `data.validation` + `data.test` = {sum(shares.values()):g}; leave a share to train on")
    return shares


def shares_of(
    keys: Sequence[Hashable], strata: Sequence[Hashable], shares: Mapping[str, float], seed: int
) -> dict[str, set[int]]:
    """Positions for each share, at least one row each where the texts suffice.

    Rows of one key go together. Every stratum gives about its share and keeps its commonest text; strata of a single
    text are taken together as one, and give only what their number makes certain.
    """
    rng = random.Random(seed)
    several, single = _strata(_groups(keys), strata, rng)
    kept = {stratum[-1][0] for stratum in [*several, single] if stratum}
    left = [group for group in _evenly(several, single, rng) if group[0] not in kept]
    held: dict[str, set[int]] = {}
    for name, share in shares.items():
        taken, left = _draw(left, max(1, round(share * len(keys))))
        held[name] = {position for group in taken for position in group}
    return held


def limited(strata: Sequence[Hashable], most: int, seed: str) -> list[int]:
    """Positions of `most` rows, of each stratum its share, in order."""
    rng = random.Random(seed)
    several, single = _strata([[position] for position in range(len(strata))], strata, rng)
    return sorted(position for (position,) in _evenly(several, single, rng)[:most])


def _groups(keys: Sequence[Hashable]) -> list[Group]:
    groups: dict[Hashable, Group] = defaultdict(list)
    for position, key in enumerate(keys):
        groups[key].append(position)
    return list(groups.values())


def _strata(
    groups: list[Group], strata: Sequence[Hashable], rng: random.Random
) -> tuple[list[list[Group]], list[Group]]:
    """(strata of several groups, the only groups of the others), each shuffled with its largest group last.

    A group goes by its first row.
    """
    found: dict[Hashable, list[Group]] = defaultdict(list)
    for group in groups:
        found[strata[group[0]]].append(group)
    several = [stratum for stratum in found.values() if len(stratum) > 1]
    single = [stratum[0] for stratum in found.values() if len(stratum) == 1]
    for stratum in filter(None, [*several, single]):
        rng.shuffle(stratum)
        stratum.append(stratum.pop(stratum.index(max(stratum, key=len))))
    return several, single


def _evenly(strata: list[list[Group]], single: list[Group], rng: random.Random) -> list[Group]:
    """All groups in an order of which any stretch has its share of every stratum, up to one group.

    A group's place is the share of its stratum's rows before it. A random part of its own rows counts as before it,
    so that strata take turns in getting the odd row; all of them count for `single`, which comes late.
    """
    placed: list[tuple[float, Group]] = []
    for stratum, start in [*((stratum, rng.random()) for stratum in strata), (single, 1.0)]:
        rows, before = sum(map(len, stratum)), 0
        for group in stratum:
            placed.append(((before + start * len(group)) / rows, group))
            before += len(group)
    return [group for _, group in sorted(placed, key=itemgetter(0))]


def _draw(groups: list[Group], wanted: int) -> tuple[list[Group], list[Group]]:
    """(taken, rest): the first groups that fit into `wanted` rows, and one more if none does or that comes closer."""
    taken: list[Group] = []
    rest: list[Group] = []
    missing = wanted
    for group in groups:
        fits = len(group) <= missing
        (taken if fits else rest).append(group)
        missing -= len(group) * fits
    smallest = min(rest, key=len, default=None)
    if smallest is not None and (not taken or len(smallest) < 2 * missing):
        rest.remove(smallest)
        taken.append(smallest)
    return taken, rest
