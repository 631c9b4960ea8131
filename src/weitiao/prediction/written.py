"""Answers written token by token; what 16 bits leave open, float32 decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

from weitiao.engine.exact import WIDER
from weitiao.engine.forward import Forward
from weitiao.prediction.confirm import confirmed
from weitiao.prediction.decode import Decoder
from weitiao.prediction.grammar import GrammarCompiler, Guide
from weitiao.prediction.prompts import Prompts
from weitiao.prediction.slot_run import DRAFTED
from weitiao.prediction.slot_state import Decoded
from weitiao.prediction.token_places import TokenPlaces
from weitiao.prediction.windows import Advance, Windows
from weitiao.tasks.base import Example
from weitiao.types import Constraint, Grammar, Prediction

SLOTS = 16
"""Times as many tokens as a batch has may lie in the slots of answers that are being written, if the card has room: K
and V take less than what is computed."""
ALIKE = 4
GUESSED = 16
"""Times fewer tokens of drafts are looked at in one step: each has the logits of all tokens."""


class Written:
    def __init__(
        self, prompts: Prompts, forward: Forward, grammars: GrammarCompiler, budget: int, cuda_graphs: bool
    ) -> None:
        """budget: most tokens of an answer."""
        self.prompts, self.forward, self.grammars = prompts, forward, grammars
        self.task, self.chat = prompts.encoder.task, prompts.encoder.chat
        self.decoder = Decoder(forward, self.chat.stop, budget, cuda_graphs)
        # Few answers are written again: to record their steps would take longer.
        self._exact = Decoder(forward, self.chat.stop, budget, cuda_graphs=False)
        self._places = TokenPlaces(self.chat.tokenizer.decode)

    def answers(self, examples: Sequence[Example], advance: Advance, near: float) -> list[Prediction]:
        """near: in nats; an answer under a grammar in which some token may have been chosen before one that is nearer
        to it is read in float32, and where that would choose another token it is written again."""
        asked = Windows(self.prompts.encoder, examples)
        counted = asked.counted(advance)
        # Of each row when its turn comes, and once. A task's rows are all under grammars, or none is.
        limit = cache(lambda row: self.prompts.constraint(asked.rows[row]))
        limited = isinstance(limit(0), Grammar)
        out: dict[int, Prediction] = {}
        open_: dict[int, Decoded] = {}

        def read(row: int, decoded: Decoded) -> None:
            out[row] = self._read(decoded, asked.rows[row])

        def done(row: int, decoded: Decoded) -> None:
            read(row, decoded)
            if limited and least(decoded) < -math.log1p(math.exp(-near)):
                open_[row] = decoded
            counted(1)

        self._decode(self.decoder, range(len(asked.rows)), asked, limit, done)
        if open_ and near and self.forward.rounds:
            with self.forward.exactly():
                others = self._confirm(open_, asked, limit, read)
                self._decode(self._exact, others, asked, limit, read, {row: open_[row].ids for row in others})
        return asked.merged([out[i] for i in range(len(asked.rows))])

    def rest(self) -> None:
        """Give back the memory that is kept for the next answers."""
        self.decoder.rest()

    def _confirm(
        self,
        answers: Mapping[int, Decoded],
        asked: Windows,
        limit: Callable[[int], Constraint],
        done: Callable[[int, Decoded], None],
    ) -> list[int]:
        """Tell `done` of the answers to rows of `asked` that are the same now; gives the other rows."""
        rows, others = sorted(answers), list[int]()
        for prefix, members, prompts in self.prompts.behind_prefixes([asked.encoded[row] for row in rows]):
            these = [rows[at] for at in members]
            before, guide = [answers[row] for row in these], self._guide(these, limit)
            tokens = self.prompts.batch_tokens // WIDER
            found = confirmed(self.forward, prefix, prompts, before, guide, self.chat.stop, tokens)
            for row, decoded in zip(these, found, strict=True):
                if decoded is None:
                    others.append(row)
                else:
                    done(row, decoded)
        return sorted(others)

    def _decode(
        self,
        decoder: Decoder,
        rows: Sequence[int],
        asked: Windows,
        limit: Callable[[int], Constraint],
        done: Callable[[int, Decoded], None],
        drafts: Mapping[int, Sequence[int]] = {},
    ) -> None:
        """Some rows of `asked`; `done` is told of each. drafts: of each, or none."""
        if not rows:
            return
        for prefix, members, prompts in self.prompts.behind_prefixes([asked.encoded[row] for row in rows]):
            # A slot has room for the prefix, a prompt and its answer; few answers are longer than their prompt.
            sizes = [len(prefix) + len(prompt.ids) + min(len(prompt.ids), decoder.budget) for prompt in prompts]
            for group in _of_one_size(sizes):
                these = [rows[members[at]] for at in group]
                guesses = [drafts[row] for row in these] if drafts else []
                slots = SLOTS * self.prompts.batch_tokens // max(sizes[at] for at in group)
                if guesses:
                    slots = self.prompts.batch_tokens // GUESSED // (1 + min(DRAFTED, max(map(len, guesses))))
                decoder.decode(
                    prefix,
                    [prompts[at] for at in group],
                    self._guide(these, limit),
                    max(1, slots),
                    partial(self._spent, [asked.rows[row] for row in these]),
                    partial(_told, these, done),
                    guesses,
                )

    def _guide(self, rows: Sequence[int], limit: Callable[[int], Constraint]) -> Guide:
        if not isinstance(limit(rows[0]), Grammar):
            return self.grammars.any_text

        def grammar(answer: int) -> Grammar:
            found = limit(rows[answer])
            assert isinstance(found, Grammar)
            return found

        return self.grammars.guide(grammar)

    def _spent(self, examples: Sequence[Example], row: int, ids: list[int]) -> bool:
        return self.task.spent(self.chat.tokenizer.decode(ids), examples[row])

    def _read(self, decoded: Decoded, example: Example) -> Prediction:
        whole = self.chat.tokenizer.decode(decoded.ids)
        text = whole if decoded.complete else self.task.complete_part(whole)
        probability = _exp(decoded.log_probability) if decoded.complete else None
        answer, parts = self.task.read(text, example)
        # A token that reaches over the end of a part counts for the part that it begins in.
        starts = self._places.starts(decoded.ids, whole) if parts else []
        chances = [
            _exp(sum(chance for at, chance in zip(starts, decoded.chances, strict=True) if start <= at < end))
            for start, end in parts
        ]
        return Prediction(answer, text, probability, parts=tuple(chances))


def least(decoded: Decoded) -> float:
    """The least log-probability of a token that was chosen, the stop among them."""
    stop = decoded.log_probability - sum(decoded.chances) if decoded.complete else 0.0
    return min([stop, *decoded.chances])


def _told(rows: Sequence[int], done: Callable[[int, Decoded], None], answer: int, decoded: Decoded) -> None:
    done(rows[answer], decoded)


def _exp(log_probability: float) -> float:
    return min(math.exp(log_probability), 1.0)


def _of_one_size(sizes: Sequence[int]) -> list[list[int]]:
    """Indices in groups whose sizes differ by a factor of `ALIKE` at most: slots are as large as the largest needs, and
    each group ends with a few long answers alone."""
    groups: list[list[int]] = []
    for at in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        if groups and sizes[groups[-1][0]] <= ALIKE * sizes[at]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return [sorted(group) for group in groups]
