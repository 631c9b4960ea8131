"""Candidates behind a prompt as a tree, in which what they share stands once, and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from weitiao.data.pack import PackRow, Prompt

Scores = NDArray[np.float64]
"""Log-probabilities, in nats."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible continuation: token sequences, each with what ends it, of which any one is this continuation."""

    paths: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Tokens that it adds to a tree; its paths part at their end."""
        return max(len(path) for path in self.paths) - 1


@dataclass(frozen=True)
class Tree:
    """Candidates as a tree. Node 0 is the prompt's last token; node k + 1 is `ids[k]`.

    `read_nodes` and `read_tokens` list the log-probabilities to read, and `read_paths` whose they are; `owners` says
    to which candidate a path belongs.
    """

    ids: tuple[int, ...]
    parents: tuple[int, ...]
    read_nodes: NDArray[np.int64]
    read_tokens: NDArray[np.int64]
    read_paths: NDArray[np.int64]
    owners: NDArray[np.int64]

    def scores(self, read: Scores) -> Scores:
        out = np.full(self.owners[-1] + 1, -np.inf)
        np.logaddexp.at(out, self.owners, np.bincount(self.read_paths, read))
        return out

    def steps(self, read: Scores) -> list[Scores]:
        return np.split(read, np.flatnonzero(np.diff(self.read_paths)) + 1)


@lru_cache(maxsize=4096)
def tree_of(candidates: tuple[Candidate, ...]) -> Tree:
    ids: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    reads: list[tuple[int, int, int]] = []
    paths = [(owner, path) for owner, candidate in enumerate(candidates) for path in candidate.paths]
    for number, (_, path) in enumerate(paths):
        node = 0
        for token in path[:-1]:
            reads.append((node, token, number))
            if (node, token) not in children:
                ids.append(token)
                parents.append(node)
                children[node, token] = len(ids)
            node = children[node, token]
        reads.append((node, path[-1], number))
    nodes, tokens, numbers = (np.array(column) for column in zip(*reads, strict=True))
    return Tree(tuple(ids), tuple(parents), nodes, tokens, numbers, np.array([owner for owner, _ in paths]))


def tree_row(prompt: Prompt, tree: Tree) -> PackRow:
    """The prompt with its tree, of which every node is read, and the prompt's last token."""
    last = len(prompt.ids) - 1
    chain = range(-1, last)
    nodes = tuple(range(last, last + len(tree.ids) + 1))
    parents = (*chain, *(last + parent for parent in tree.parents))
    return PackRow(prompt.ids + tree.ids, nodes, parents=parents, images=prompt.images)


def slices(candidates: tuple[Candidate, ...], room: int) -> Iterator[slice]:
    """Slices of the candidates whose tokens fit into `room` (each holds at least one candidate)."""
    start = used = 0
    for at, candidate in enumerate(candidates):
        if used + candidate.size > room and at > start:
            yield slice(start, at)
            start, used = at, 0
        used += candidate.size
    yield slice(start, len(candidates))
