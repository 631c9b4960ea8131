"""What examples begin with: one common *token* prefix, or one for each group (a prefix text encoded alone may differ).

Rows that come with one of a few long prompts (other labels, other instructions) share little all together, and much in
groups. A pack holds rows of one group, so each group costs its prefix and a pack in every step that has rows of it.

    instruction ─┬─ labels A ─┬─ row 0        one group: 4 × (labels + text) behind the instruction
                 │            └─ row 3        two groups: 2 × (instruction + labels), 4 × text
                 └─ labels B ─┬─ row 1
                              └─ row 2
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from math import exp, lgamma
from os.path import commonprefix
from typing import NamedTuple

from weitiao.types import Encoded

PACK = 256
"""Tokens computed in the time that one more pack takes beside its own: a card reads every weight for it. While an H100
reads a byte it computes 295 FLOP, an A100 156; a token takes two for a weight of 16 bits."""
WORTH = 0.95
"""Share of the cost that a split may leave. Rows stay together for less gain."""
DEEPEST = 100
"""Forks, one behind another, that are looked at; Python allows 1,000 calls inside of each other."""


class PrefixGroup(NamedTuple):
    """Rows that may lie in one pack."""

    prefix: tuple[int, ...]
    """What all of them begin with."""
    members: tuple[int, ...]
    """Their indices, ascending."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Expected tokens of a step that draws `at_once` of `rows` without putting any back."""

    rows: int
    at_once: int
    pack: int = PACK
    """Tokens that a pack costs beside its own."""

    def own(self, count: int, tokens: int, prefix: int) -> float:
        """What `count` rows of together `tokens` have behind their prefix."""
        return (tokens - count * prefix) * self.at_once / self.rows

    def group(self, count: int, tokens: int, prefix: int) -> float:
        """Those, and where any of the rows is drawn, their prefix and a pack."""
        return self.own(count, tokens, prefix) + self._present(count) * (prefix + self.pack)

    def _present(self, count: int) -> float:
        """Chance that a step has any of `count` rows: 1 − C(rows − count, at_once) / C(rows, at_once)."""
        others = self.rows - count
        if others < self.at_once:
            return float(count > 0)
        log_absent = lgamma(others + 1) - lgamma(others - self.at_once + 1)
        log_absent -= lgamma(self.rows + 1) - lgamma(self.rows - self.at_once + 1)
        return 1 - exp(log_absent)


def common_prefix(encoded: Sequence[Encoded]) -> tuple[int, ...]:
    """Longest token prefix of all prompts, as far as it may be shared."""
    if not encoded:
        return ()
    return encoded[0].ids[: _shared([e.ids for e in encoded], map(_end, encoded))]


def prefix_groups(encoded: Sequence[Encoded], at_once: int, pack_cost: int = PACK) -> list[PrefixGroup]:
    """Rows in groups for which a step is expected to cost least; all in one, behind their common prefix, where groups
    would gain little. at_once: rows of a step. pack_cost: tokens that a pack costs beside its own."""
    if not encoded:
        return []
    tree = _Tree(encoded, StepCost(len(encoded), min(at_once, len(encoded)), pack_cost))
    _, found = tree.split(range(len(encoded)))
    groups = [PrefixGroup(encoded[members[0]].ids[:shared], tuple(sorted(members))) for shared, members in found]
    return sorted(groups, key=lambda group: group.members)


Groups = list[tuple[int, Sequence[int]]]
"""Tokens of each prefix, and the rows behind it."""


class _Tree:
    """The prompts as a tree of tokens."""

    def __init__(self, encoded: Sequence[Encoded], cost: StepCost) -> None:
        self.ids, self.ends, self.cost = [e.ids for e in encoded], [_end(e) for e in encoded], cost

    def split(self, members: Sequence[int], depth: int = 0) -> tuple[float, Groups]:
        """Expected tokens of a step for these rows, and their groups. depth: forks before them."""
        shared = _shared([self.ids[member] for member in members], (self.ends[member] for member in members))
        one = self.cost.group(*self._size(members), shared)
        together: tuple[float, Groups] = (one, [(shared, members)])
        branches = self._branches(members, shared)
        least = [self._least(branch) for branch in branches]
        stays = [self.cost.own(*self._size(branch), shared) for branch in branches]
        if sum(least) > WORTH * one:
            hopeful = [low <= WORTH * stay for low, stay in zip(least, stays, strict=True)]
            branches, stays = list(compress(branches, hopeful)), list(compress(stays, hopeful))
        if not branches or depth == DEEPEST:
            return together
        found = [self.split(branch, depth + 1) for branch in branches]
        gaining = [part for part, stay in zip(found, stays, strict=True) if part[0] <= WORTH * stay]
        best = min((self._beside(parts, members, shared) for parts in (gaining, found)), key=lambda way: way[0])
        return best if best[0] <= WORTH * one else together

    def _branches(self, members: Sequence[int], shared: int) -> list[list[int]]:
        """Rows by the token behind those `shared` by all. Those that may share no more are in none."""
        found: dict[int, list[int]] = defaultdict(list)
        for member in members:
            if self.ends[member] > shared:
                found[self.ids[member][shared]].append(member)
        return list(found.values())

    def _beside(self, parts: list[tuple[float, Groups]], members: Sequence[int], shared: int) -> tuple[float, Groups]:
        """Groups of some of the rows, and one of those that are left."""
        cost, groups = sum(cost for cost, _ in parts), [group for _, groups in parts for group in groups]
        apart = {member for _, own in groups for member in own}
        left = [member for member in members if member not in apart]
        if not left:
            return cost, groups
        return cost + self.cost.group(*self._size(left), shared), [*groups, (shared, left)]

    def _least(self, members: Sequence[int]) -> float:
        """No groups of these rows cost less: as if all shared as many tokens as any of them may."""
        return self.cost.group(*self._size(members), max(self.ends[member] for member in members))

    def _size(self, members: Sequence[int]) -> tuple[int, int]:
        """How many they are, and their tokens."""
        return len(members), sum(len(self.ids[member]) for member in members)


def _shared(ids: Sequence[tuple[int, ...]], ends: Iterable[int]) -> int:
    """Tokens that all begin with, up to the least of `ends`."""
    # Of whole tuples: to cut them first takes longer than to compare them.
    return min(len(commonprefix(ids)), min(ends))


def _end(encoded: Encoded) -> int:
    """Tokens that a prefix may take. The last one of the prompt stays out of it: the loss of an answer's first token
    is read there, and it differs by row. So do images, whose tokens are the same in all of them."""
    return min([encoded.prompt_length - 1, *(image.start for image in encoded.images[:1])])
