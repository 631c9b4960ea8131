"""Classification without generation: the log-probability of every label's whole token sequence, its end included.

All labels of a row are scored in one forward pass: they hang as a tree behind the prompt, each token once.

    … assistant \\n ─┬─ 体 ─ 育 ─┬─ (end)
                    │          └─ 新闻 ─ (end)
                    └─ 经济 ─ (end)

A label's probability is its share of what all allowed labels have together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow, Prompt, pack
from weitiao.engine.forward import Forward
from weitiao.engine.supervised_loss import CHUNK
from weitiao.families.chat_format import ChatFormat
from weitiao.types import Choice, Prediction

Scores = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible continuation: token sequences, each with what ends it, of which any one is this continuation."""

    paths: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Tokens that it adds to a tree; its paths part at their end."""
        return max(len(path) for path in self.paths) - 1


class LabelScorer:
    def __init__(self, forward: Forward, chat: ChatFormat, batch_tokens: int) -> None:
        self.forward, self.chat, self.batch_tokens = forward, chat, batch_tokens
        self._answer_ids = lru_cache(maxsize=65_536)(lambda text: tuple(chat.answer_ids(text)))

    def choose(
        self,
        prefix: tuple[int, ...],
        prompts: Sequence[Prompt],
        choices: Sequence[Choice],
        advance: Callable[[int], None] = lambda rows: None,
    ) -> list[Prediction]:
        """A prediction for each prompt behind the shared `prefix`; `advance` is told of rows done."""
        ones = [i for i, choice in enumerate(choices) if not choice.many]
        several = [i for i, choice in enumerate(choices) if choice.many]
        out: dict[int, Prediction] = {}
        for members, answer in ((ones, self._one), (several, self._many)):
            if members:
                found = answer(prefix, [prompts[i] for i in members], [choices[i] for i in members], advance)
                out.update(zip(members, found, strict=True))
        return [out[i] for i in range(len(prompts))]

    def _one(
        self,
        prefix: tuple[int, ...],
        prompts: Sequence[Prompt],
        choices: Sequence[Choice],
        advance: Callable[[int], None],
    ) -> list[Prediction]:
        stop = (self.chat.stop,)
        candidates = [tuple(Candidate((self._answer_ids(label) + stop,)) for label in c.labels) for c in choices]
        scores = self.scores(prefix, prompts, candidates, advance)
        return [_best(choice.labels, _shares(row)) for choice, row in zip(choices, scores, strict=True)]

    def _many(
        self,
        prefix: tuple[int, ...],
        prompts: Sequence[Prompt],
        choices: Sequence[Choice],
        advance: Callable[[int], None],
    ) -> list[Prediction]:
        """Labels are taken one after another in their order, until to end is likelier than any further label.

        A label's probability is the highest share that it had in a round; that of the whole answer is the product of
        the shares of what was taken.
        """
        walks = [_Walk(choice) for choice in choices]
        while open_rows := [i for i, walk in enumerate(walks) if not walk.done]:
            stems, offers = zip(*(self._continuations(walks[i]) for i in open_rows), strict=True)
            asked = [prompts[i] for i in open_rows]
            starts = [replace(prompt, ids=prompt.ids + stem) for prompt, stem in zip(asked, stems, strict=True)]
            for i, row in zip(open_rows, self.scores(prefix, starts, offers), strict=True):
                walks[i].take(_shares(row))
                if walks[i].done:
                    advance(1)
        return [walk.prediction() for walk in walks]

    def _continuations(self, walk: _Walk) -> tuple[tuple[int, ...], tuple[Candidate, ...]]:
        """What all of them begin with, and behind it: to end here first, then each label that may come next.

        Whole answers are encoded, as in training: a line break may melt into one token with the sign before it.
        """
        stop = (self.chat.stop,)
        offers = [[self._answer_ids(walk.text or walk.choice.nothing) + stop]]
        for label in walk.left:
            text = "\n".join([*walk.taken, label])
            offers.append([self._answer_ids(text) + stop])
            if label != walk.choice.labels[-1]:
                offers[-1].append(self._answer_ids(text + "\n"))
        together = zip(*(path for paths in offers for path in paths), strict=False)
        stem = tuple(tokens[0] for tokens in takewhile(lambda tokens: len(set(tokens)) == 1, together))
        return stem, tuple(Candidate(tuple(path[len(stem) :] for path in paths)) for paths in offers)

    def scores(
        self,
        prefix: tuple[int, ...],
        prompts: Sequence[Prompt],
        candidates: Sequence[tuple[Candidate, ...]],
        advance: Callable[[int], None] = lambda rows: None,
    ) -> list[Scores]:
        """Log-probability of each candidate behind its prompt: float64 [candidates] a prompt, in nats."""
        pieces = [
            (i, part)
            for i, offers in enumerate(candidates)
            for part in _parts(offers, self.batch_tokens - len(prefix) - len(prompts[i].ids))
        ]
        trees = [_tree(candidates[i][part]) for i, part in pieces]
        rows = [_row(prompts[i], tree) for (i, _), tree in zip(pieces, trees, strict=True)]
        out = [np.empty(len(offers)) for offers in candidates]
        packs = pack(prefix, rows, self.batch_tokens)
        launched = ((members, self._launch(packed, [trees[m] for m in members])) for packed, members in packs)
        # A card need not wait for the host, which reads a pack while the next one is computed.
        for members, found in _one_behind(launched):
            for member, values in zip(members, found(), strict=True):
                i, part = pieces[member]
                out[i][part] = values
            advance(sum(pieces[m][1].start == 0 for m in members))
        return out

    @torch.inference_mode()
    def _launch(self, packed: Pack, trees: Sequence[_Tree]) -> Callable[[], list[Scores]]:
        """Starts to compute a pack, whose rows end in these trees; what is given waits for the scores by tree."""
        # Of hidden states there is one for each prompt's last token and each node of its tree.
        firsts = np.cumsum([0, *(len(tree.ids) + 1 for tree in trees)])
        nodes = np.concatenate([tree.read_nodes + first for tree, first in zip(trees, firsts, strict=False)])
        tokens = np.concatenate([tree.read_tokens for tree in trees])
        order = np.argsort(nodes, kind="stable")
        reads, batch = torch.from_numpy(np.stack([nodes, tokens])[:, order]), packed_batch(packed)
        if self.forward.device.type == "cuda":
            reads, batch = reads.pin_memory(), batch.pinned()
        hidden, parts = self.forward.hidden(batch), []
        for start in range(0, len(hidden), CHUNK):
            table = self.forward.log_probabilities(hidden[start : start + CHUNK])
            reads = reads.to(table.device, non_blocking=True)
            at, token = reads[:, slice(*np.searchsorted(nodes[order], (start, start + CHUNK)))]
            parts.append(table[at - start, token])
        copied = _copied(torch.cat(parts))
        bounds = np.cumsum([0, *(len(tree.read_nodes) for tree in trees)])

        def found() -> list[Scores]:
            read = np.empty(len(order))
            read[order] = copied()
            return [tree.scores(read[bounds[i] : bounds[i + 1]]) for i, tree in enumerate(trees)]

        return found


class _Walk:
    """How far a row with several labels has come."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.taken: list[str] = []
        self.done = False
        self._probability = 1.0
        self._chances = dict.fromkeys(choice.labels, 0.0)

    @property
    def text(self) -> str:
        return "\n".join(self.taken)

    @property
    def left(self) -> tuple[str, ...]:
        after = self.choice.labels.index(self.taken[-1]) + 1 if self.taken else 0
        return self.choice.labels[after:]

    def take(self, shares: Scores) -> None:
        """shares: of ending here, then of each label left."""
        best = int(shares.argmax())
        self._probability *= float(shares[best])
        for label, share in zip(self.left, shares[1:], strict=True):
            self._chances[label] = max(self._chances[label], float(share))
        if best:
            self.taken.append(self.left[best - 1])
        self.done = best == 0 or not self.left

    def prediction(self) -> Prediction:
        answer = tuple(self.taken)
        return Prediction(answer, self.text or self.choice.nothing, self._probability, self._chances)


@dataclass(frozen=True)
class _Tree:
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


@lru_cache(maxsize=4096)
def _tree(candidates: tuple[Candidate, ...]) -> _Tree:
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
    return _Tree(tuple(ids), tuple(parents), nodes, tokens, numbers, np.array([owner for owner, _ in paths]))


def _row(prompt: Prompt, tree: _Tree) -> PackRow:
    last = len(prompt.ids) - 1
    chain = range(-1, last)
    nodes = tuple(range(last, last + len(tree.ids) + 1))
    parents = (*chain, *(last + parent for parent in tree.parents))
    return PackRow(prompt.ids + tree.ids, nodes, parents=parents, images=prompt.images)


def _parts(candidates: tuple[Candidate, ...], room: int) -> Iterator[slice]:
    """Slices of the candidates whose tokens fit into `room` (each holds at least one candidate)."""
    start = used = 0
    for at, candidate in enumerate(candidates):
        if used + candidate.size > room and at > start:
            yield slice(start, at)
            start, used = at, 0
        used += candidate.size
    yield slice(start, len(candidates))


def _one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, each as soon as the next one is there."""
    held: deque[T] = deque()
    for item in items:
        held.append(item)
        if len(held) > 1:
            yield held.popleft()
    yield from held


def _copied(values: torch.Tensor) -> Callable[[], NDArray[np.float32]]:
    """Starts to copy values to the host; what is given waits for them, but for nothing that a card was told later."""
    host = values.to("cpu", non_blocking=values.is_cuda)
    there = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def wait() -> NDArray[np.float32]:
        if there is not None:
            there.synchronize()
        return host.numpy()

    return wait


def _shares(scores: Scores) -> Scores:
    """Softmax."""
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def _best(labels: tuple[str, ...], shares: Scores) -> Prediction:
    best = int(shares.argmax())
    chances = {label: float(share) for label, share in zip(labels, shares, strict=True)}
    return Prediction(labels[best], labels[best], float(shares[best]), chances)
