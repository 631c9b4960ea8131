"""Classification without generation: the log-probability of every label's whole token sequence, its end included.

All labels of a row are scored in one forward pass: they hang as a tree behind the prompt, each token once.

    … assistant \\n ─┬─ 体 ─ 育 ─┬─ (end)
                    │          └─ 新闻 ─ (end)
                    └─ 经济 ─ (end)

A label's probability is its share of what all allowed labels have together; of several labels that a row may have at
once, see `label_sets.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby, takewhile
from operator import itemgetter
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, Prompt, filled, pack
from weitiao.engine.forward import Forward
from weitiao.engine.supervised_loss import CHUNK
from weitiao.families.chat_format import ChatFormat
from weitiao.prediction.greedy import greedy
from weitiao.prediction.label_sets import LabelSets
from weitiao.prediction.label_trees import Candidate, Scores, Tree, slices, tree_of, tree_row
from weitiao.prediction.thresholds import decided
from weitiao.run_folder import Thresholds
from weitiao.types import Choice, Prediction

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """Prompts behind one prefix, and the labels of each; `advance` is told of rows done."""

    prefix: tuple[int, ...]
    prompts: Sequence[Prompt]
    choices: Sequence[Choice]
    advance: Callable[[int], None] = lambda rows: None

    def of(self, members: Sequence[int]) -> Asked:
        """Some of the rows."""
        return replace(self, prompts=[self.prompts[i] for i in members], choices=[self.choices[i] for i in members])


class LabelScorer:
    def __init__(self, forward: Forward, chat: ChatFormat, batch_tokens: int) -> None:
        self.forward, self.chat, self.batch_tokens = forward, chat, batch_tokens
        self._answer_ids = lru_cache(maxsize=65_536)(lambda text: tuple(chat.answer_ids(text)))

    def answers(self, asks: Iterable[Asked], decoding: str = "exact") -> Iterator[list[Prediction]]:
        """A prediction for each prompt of each, in order. On a card, while it computes one, the next is made.

        decoding: of one label, see `greedy.py`; several are those whose probability is at least 0.5.
        """
        for many, run in groupby(asks, key=lambda ask: any(choice.many for choice in ask.choices)):
            way = self._one_by_one if many else partial(self._ones, decoding=decoding)
            yield from way(run)

    def choose(self, asked: Asked, decoding: str = "exact") -> list[Prediction]:
        """A prediction for each prompt."""
        [found] = self.answers([asked], decoding)
        return found

    def _one_by_one(self, asks: Iterable[Asked]) -> Iterator[list[Prediction]]:
        return map(self._mixed, asks)

    def _mixed(self, asked: Asked) -> list[Prediction]:
        """Where several labels are wanted of some."""
        ones = [i for i, choice in enumerate(asked.choices) if not choice.many]
        several = [i for i, choice in enumerate(asked.choices) if choice.many]
        out = dict(zip(several, self._many(asked.of(several)), strict=True))
        if ones:
            out.update(zip(ones, self.choose(asked.of(ones)), strict=True))
        return [out[i] for i in range(len(asked.prompts))]

    def _ones(self, asks: Iterable[Asked], decoding: str) -> Iterator[list[Prediction]]:
        stop = (self.chat.stop,)

        def wanted(ask: Asked) -> _Wanted:
            offers = [tuple(Candidate((self._answer_ids(label) + stop,)) for label in c.labels) for c in ask.choices]
            return _Wanted(ask, offers)

        for whole, found in self._read(map(wanted, asks)):
            if decoding == "greedy":
                steps = whole.steps(found)
                scores = [np.array([path.sum() for path in row]) for row in steps]
                paths = [[candidate.paths[0] for candidate in offers] for offers in whole.candidates]
                best = [greedy(*both) for both in zip(paths, steps, strict=True)]
            else:
                scores = whole.scores(found)
                best = [int(row.argmax()) for row in scores]
            picked = zip(whole.asked.choices, scores, best, strict=True)
            yield [_picked(choice.labels, _shares(row), at) for choice, row, at in picked]

    def _many(self, asked: Asked) -> list[Prediction]:
        sets = [LabelSets(choice) for choice in asked.choices]
        while open_rows := [i for i, walk in enumerate(sets) if not walk.done]:
            stems, offers = zip(*(self._continuations(sets[i]) for i in open_rows), strict=True)
            prompts = [asked.prompts[i] for i in open_rows]
            starts = [replace(prompt, ids=prompt.ids + stem) for prompt, stem in zip(prompts, stems, strict=True)]
            for i, row in zip(open_rows, self.scores(asked.prefix, starts, offers), strict=True):
                sets[i].look(_shares(row))
                if sets[i].done:
                    asked.advance(1)
        return [_several(walk) for walk in sets]

    def _continuations(self, walk: LabelSets) -> tuple[tuple[int, ...], tuple[Candidate, ...]]:
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
        [(whole, found)] = self._read([_Wanted(Asked(prefix, prompts, (), advance), candidates)])
        return whole.scores(found)

    def _read(self, wanted: Iterable[_Wanted]) -> Iterator[tuple[_Wanted, list[_Found]]]:
        """Of each, in order, what was read of every candidate."""

        def launched() -> Iterator[tuple[_Wanted, _Pieces, list[int], Callable[[], list[Scores]]]]:
            for whole in wanted:
                pieces = _Pieces(whole, self.batch_tokens)
                for packed, members in pack(whole.asked.prefix, pieces.rows, pieces.room):
                    yield whole, pieces, members, self._launch(packed, [pieces.trees[m] for m in members])

        # A card need not wait for the host, which reads a pack while the next one is computed.
        for whole, parts in groupby(_one_behind(launched()), key=itemgetter(0)):
            found: list[_Found] = []
            for _, pieces, members, read in parts:
                found += [(*pieces.places[m], pieces.trees[m], one) for m, one in zip(members, read(), strict=True)]
                whole.asked.advance(sum(pieces.places[m][1].start == 0 for m in members))
            yield whole, found

    @torch.inference_mode()
    def _launch(self, packed: Pack, trees: Sequence[Tree]) -> Callable[[], list[Scores]]:
        """Starts to compute a pack, whose rows end in these trees; what is given waits for what each one reads."""
        # Of hidden states there is one for each prompt's last token and each node of its tree.
        firsts = np.cumsum([0, *(len(tree.ids) + 1 for tree in trees)])
        nodes = np.concatenate([tree.read_nodes + first for tree, first in zip(trees, firsts, strict=False)])
        tokens = np.concatenate([tree.read_tokens for tree in trees])
        order = np.argsort(nodes, kind="stable")
        reads = torch.from_numpy(np.stack([nodes, tokens])[:, order])
        # With few tokens products sum in another order: a label would depend on who else is asked about.
        batch = packed_batch(filled(packed, self.forward.least))
        if self.forward.device.type == "cuda":
            reads, batch = reads.pin_memory().to(self.forward.device, non_blocking=True), batch.pinned()
        hidden, parts = self.forward.hidden(batch)[: firsts[-1]], []
        for start in range(0, len(hidden), CHUNK):
            at, token = reads[:, slice(*np.searchsorted(nodes[order], (start, start + CHUNK)))]
            parts.append(self.forward.log_probabilities(hidden[start : start + CHUNK], at - start, token))
        copied = _copied(torch.cat(parts))
        bounds = np.cumsum([0, *(len(tree.read_nodes) for tree in trees)])

        def found() -> list[Scores]:
            read = np.empty(len(order))
            read[order] = copied()
            return [read[bounds[i] : bounds[i + 1]] for i in range(len(trees))]

        return found


_Found = tuple[int, slice, Tree, Scores]
"""A prompt, some of its candidates, their tree, log-probabilities that were read there."""


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What is read behind each prompt; the labels of `asked` are not looked at."""

    asked: Asked
    candidates: Sequence[tuple[Candidate, ...]]

    def scores(self, found: Iterable[_Found]) -> list[Scores]:
        """Log-probability of each candidate: float64 [candidates] a prompt, in nats."""
        out = [np.empty(len(offers)) for offers in self.candidates]
        for i, part, tree, read in found:
            out[i][part] = tree.scores(read)
        return out

    def steps(self, found: Iterable[_Found]) -> list[list[Scores]]:
        """The same token by token, of candidates with one path each: float64 [tokens of the path] each."""
        out = [[np.empty(0)] * len(offers) for offers in self.candidates]
        for i, part, tree, read in found:
            out[i][part] = tree.steps(read)
        return out


class _Pieces:
    """Rows of packs: a prompt with a tree of as many of its candidates as fit. room: tokens of a pack."""

    def __init__(self, wanted: _Wanted, batch_tokens: int) -> None:
        asked = wanted.asked
        self.places = [
            (i, part)
            for i, offers in enumerate(wanted.candidates)
            for part in slices(offers, batch_tokens - len(asked.prefix) - len(asked.prompts[i].ids))
        ]
        self.trees = [tree_of(wanted.candidates[i][part]) for i, part in self.places]
        self.rows = [tree_row(asked.prompts[i], tree) for (i, _), tree in zip(self.places, self.trees, strict=True)]
        # As few packs as hold them, of about one size.
        sizes = [len(row.ids) for row in self.rows]
        packs = -(-sum(sizes) // max(1, batch_tokens - len(asked.prefix) - max(sizes) // 2))
        self.room = min(batch_tokens, len(asked.prefix) + sum(sizes) // packs + max(sizes))


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


def _picked(labels: tuple[str, ...], shares: Scores, at: int) -> Prediction:
    chances = {label: float(share) for label, share in zip(labels, shares, strict=True)}
    return Prediction(labels[at], labels[at], float(shares[at]), chances)


def _several(sets: LabelSets) -> Prediction:
    answer, probability = decided(sets.chances, Thresholds())
    return Prediction(answer, "\n".join(answer) or sets.choice.nothing, probability, sets.chances)
