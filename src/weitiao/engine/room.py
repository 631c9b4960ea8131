"""What a step takes of a card's memory, as sums over the widths of a model: pure, without torch.

The engine measures what a token takes, and chooses by `chosen` and `for_activations`; `weitiao check` asks the same
functions with what `Widths` reckons, on a machine without a card. The tensors that are counted are those that the
backward passes of `fast_layer`, `lora_gemm` and `split_attention` keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Recompute = Literal["nothing", "gate_up", "layer"]
KINDS: tuple[Recompute, ...] = ("nothing", "gate_up", "layer")
"""From the fastest to the one that takes the least."""

SAFETY = 0.85
"""Share of the free memory that activations may take."""
DEFAULT = {"cuda": 65_536, "cpu": 4096}
"""Tokens of a pack where memory allows more. On a card, 54,000 in one pack take 1.4 % less time than in two; a CPU's
products get no faster."""
ENOUGH = 1024
"""Tokens of a pack that waste little on its prefix."""
COPIES = 4
"""Of the adapters in float32, besides themselves: two gradients, two moments."""
CHUNK = 2048
"""Positions whose logits exist at once: 2,048 × 151,936 × 2 bytes = 0.6 GiB at Qwen's vocabulary."""
CHUNKS = 2
"""Of them in memory while one follows another."""
ROUNDED = 16
"""Columns for adapters come in so many, which keeps rows aligned; with 32, gate and up of r = 8 took 8 % longer."""
SUMMED = 32
"""Most columns of which the folded MLP keeps sums in registers."""
GRAIN = 64
"""For the flash kernel, a pack's own tokens are a multiple of this: its chunks of queries are of equal size."""


@dataclass(frozen=True)
class Fit:
    tokens: int
    """Of a pack."""
    recompute: Recompute
    bytes_per_token: int = 0
    """0 where nothing was measured."""


def chosen(told: Callable[[Recompute], tuple[int, float]], asked: int | None, wanted: int, longest: int) -> Fit:
    """What is computed again, and how large packs are. told: bytes that a token takes, and bytes for all of them.
    asked: tokens of a pack by the config, or None. longest: of the longest row with its prefix."""
    least = max(longest, min(asked or ENOUGH, ENOUGH * 16))
    found = Fit(wanted, "nothing")
    for kind in KINDS:
        each, free = told(kind)
        room = int(free / each)
        found = Fit(max(min(wanted, room), min(wanted, 256)), kind, each)
        if room >= least:
            break
    return found


def for_activations(free: float, trained: int, logits: int) -> float:
    """Bytes of the free ones, less the optimizer's tensors of the trained parameters and the logits of a chunk."""
    return SAFETY * (free - 4 * COPIES * trained - CHUNKS * logits)


def padded(columns: int) -> int:
    """Columns for adapters in a buffer."""
    return -(-columns // ROUNDED) * ROUNDED


def recorded(own: int) -> int:
    """Own tokens of the size that is recorded for packs of so many."""
    grain = max(GRAIN, 1 << max(own.bit_length() - 7, 0))
    return -(-own // grain) * grain


def left_to_transformers(hidden: int, inner: int, layers: int, tokens: int) -> int:
    """Estimated bytes that transformers' forward pass over `tokens` keeps for the backward pass, in 16 bits."""
    # 12 tensors as wide as the model (three of them float32 in norms), 5 as wide as the MLP.
    per_layer = 2 * (12 * hidden + 3 * hidden + 5 * inner)
    return int(tokens * per_layer * layers)


@dataclass(frozen=True)
class Widths:
    """Elements of a token's tensors in a decoder, and what its adapters add."""

    hidden: int
    inner: int
    layers: int
    heads: int
    query: int
    """Of all heads together."""
    key: int
    vocabulary: int
    rank: int
    adapted: tuple[int, int, int, int]
    """Adapters of the layers that read one input: q k v · o · gate up · down."""
    joined: int = 2
    """Layers that gate and up are: 1 where they are one."""
    more: int = 0
    """Elements that a layer keeps for norms of heads or of its outputs."""
    size: int = 2
    """Bytes of an element."""

    @property
    def pads(self) -> tuple[int, ...]:
        return tuple(padded(self.rank * count) for count in self.adapted)

    @property
    def folded(self) -> bool:
        """Whether the MLP is one function that keeps no input of `down`."""
        whole = self.adapted[2] == self.joined and self.adapted[3] == 1
        return whole and max(self.pads[2:]) <= SUMMED

    @property
    def copied(self) -> int:
        """Bytes of the adapters beside the weights that they are computed with."""
        ins = (self.hidden, self.query, self.hidden, self.inner)
        outs = (self.query + 2 * self.key, self.hidden, 2 * self.inner, self.hidden)
        columns = sum(pad * (into + out) for pad, into, out in zip(self.pads, ins, outs, strict=True))
        return self.size * self.layers * columns

    @property
    def attention(self) -> int:
        """Bytes that a layer keeps of a token up to the attention's output, log-sum-exps and a norm among them."""
        elements = 2 * self.hidden + self.pads[0] + self.query + 2 * self.key + self.query + self.pads[1] + self.more
        return self.size * elements + 4 * self.heads + 4

    def behind(self, kind: Recompute) -> int:
        """Bytes that it keeps behind the attention."""
        both = 2 * self.inner if kind == "nothing" else 0
        inner = self.pads[3] if self.folded else self.inner + self.pads[3]
        return self.size * (2 * self.hidden + self.pads[2] + both + inner) + 4

    def passing(self, kind: Recompute) -> int:
        """Bytes that a token takes for a moment while a layer's gradient is computed."""
        again = {"nothing": 0, "gate_up": 2 * self.size * self.inner, "layer": self.attention + self.behind("nothing")}
        return self.size * (3 * self.inner + 3 * self.hidden) + again[kind]

    def kept(self, kind: Recompute) -> int:
        """Bytes that all layers but the last keep of a token, and the first one's input."""
        each = 2 * self.size * self.hidden if kind == "layer" else self.attention + self.behind(kind)
        return each * (self.layers - 1) + self.size * self.hidden

    def last(self, kind: Recompute) -> int:
        """Bytes that the last one keeps of a token that is not read."""
        return 2 * self.size * self.hidden if kind == "layer" else self.attention

    def per_token(self, kind: Recompute) -> int:
        """As the engine measures it."""
        return self.kept(kind) + max(self.last(kind), self.passing(kind))

    def logits(self, reads: int) -> int:
        """Bytes of a chunk."""
        return self.size * self.vocabulary * min(CHUNK, reads)

    def activations(self, kind: Recompute, tokens: int, reads: int) -> int:
        """Most bytes at once of a pack, of which so many tokens are read: behind the head, or in the gradient of the
        last layer but one."""
        read = self.behind(kind) + 2 * self.size * self.query
        last = self.last(kind) * tokens + (0 if kind == "layer" else read * reads)
        head = CHUNKS * self.logits(reads) + 3 * self.size * self.hidden * reads
        return self.kept(kind) * tokens + max(last + head, self.passing(kind) * tokens)
