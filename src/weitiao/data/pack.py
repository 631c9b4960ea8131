"""Which examples a step takes, and how they are laid into packs. Pure functions of (seed, epoch, step).

A pack is one sequence: the prefix that its rows share once, then each row's own tokens.

    prefix  row 0        row 1     row 2
    P P P P a a a a a a  b b b b   c c c c c
    0 1 2 3 4 5 6 7 8 9  4 5 6 7   4 5 6 7 8     positions
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from weitiao.types import Encoded, PlacedImage

EVENLY = (1.01, 1.05, 1.2)
"""Capacities that are tried for bins about equally full, as multiples of their mean."""


@dataclass(frozen=True, slots=True)
class PackRow:
    """Tokens of one row behind the prefix, and those after which a prediction is wanted."""

    ids: tuple[int, ...]
    keep: tuple[int, ...]
    """Indices into `ids` of the tokens whose hidden state is read."""
    labels: tuple[int, ...] = ()
    """For training: the id wanted after each token of `keep`."""
    parents: tuple[int, ...] | None = None
    """For a tree behind a prompt: index of each token's predecessor, -1 for the first. None: a plain sequence."""
    images: tuple[PlacedImage, ...] = ()
    """In the order of their tokens; their `start` is an index into `ids`. None stands behind a fork of a tree."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a row asks behind the prefix."""

    ids: tuple[int, ...]
    images: tuple[PlacedImage, ...] = ()
    """Their `start` is an index into `ids`."""


@dataclass(frozen=True, slots=True)
class Pack:
    prefix: tuple[int, ...]
    rows: tuple[PackRow, ...]

    @property
    def tokens(self) -> int:
        return len(self.prefix) + sum(len(row.ids) for row in self.rows)


def samples_of_step(count: int, samples_per_step: int, seed: int, step: int) -> list[int]:
    """Indices of the examples of a step (counted from 0), of `count`.

    Each epoch is its own shuffle; a step never crosses an epoch, so an epoch's last step may be short.
    """
    epoch, within = divmod(step, steps_per_epoch(count, samples_per_step))
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[within * samples_per_step : (within + 1) * samples_per_step]


def steps_per_epoch(count: int, samples_per_step: int) -> int:
    return -(-count // samples_per_step)


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` in bins of at most `capacity` (a longer one is alone in its bin).

    First fit over lengths in descending order, so rows of a bin are of similar length.
    """
    filled: list[tuple[int, list[int]]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for at, (total, members) in enumerate(filled):
            if total + lengths[index] <= capacity:
                members.append(index)
                filled[at] = (total + lengths[index], members)
                break
        else:
            filled.append((lengths[index], [index]))
    return [members for _, members in filled]


def even_bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As few bins as `bins` has, and about equally full: they need less memory, and resemble each other from step to
    step."""
    found = bins(lengths, capacity)
    if len(found) < 2:
        return found
    tried = (int(more * sum(lengths) / len(found)) for more in EVENLY)
    ways = (bins(lengths, room) for room in tried if room < capacity)
    return next((way for way in ways if len(way) == len(found)), found)


def pack(prefix: Sequence[int], rows: Sequence[PackRow], tokens_per_pack: int) -> list[tuple[Pack, list[int]]]:
    """Rows in packs of at most `tokens_per_pack` tokens, each with the indices of the rows that it holds."""
    room = max(tokens_per_pack - len(prefix), 1)
    grouped = even_bins([len(row.ids) for row in rows], room)
    return [(Pack(tuple(prefix), tuple(rows[i] for i in members)), members) for members in grouped]


def filled(pack: Pack, least: int) -> Pack:
    """The same with a row behind it, if need be, so that there are at least so many tokens and so many reads."""
    reads = max(0, least - sum(len(row.keep) for row in pack.rows))
    tokens = max(1 if reads else 0, least - pack.tokens)
    if tokens <= 0:
        return pack
    return replace(pack, rows=(*pack.rows, PackRow((0,) * tokens, tuple(at % tokens for at in range(reads)))))


def training_row(encoded: Encoded, prefix_length: int) -> PackRow:
    """Row of an encoded example: each answer token is read at the token before it; the last token is only a label."""
    own = encoded.ids[prefix_length:-1]
    first = encoded.prompt_length - 1 - prefix_length
    return PackRow(own, tuple(range(first, len(own))), encoded.answer, images=_own_images(encoded, prefix_length))


def prompt_row(encoded: Encoded, prefix_length: int, lead: Sequence[int] = ()) -> Prompt:
    """What an encoded prompt has of its own, and the ids that lead to every answer."""
    return Prompt((*encoded.prompt[prefix_length:], *lead), _own_images(encoded, prefix_length))


def _own_images(encoded: Encoded, prefix_length: int) -> tuple[PlacedImage, ...]:
    return tuple(replace(image, start=image.start - prefix_length) for image in encoded.images)
