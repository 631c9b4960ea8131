"""Many answers written at once in slots: steps of two groups in turn, prompts that are read into free slots, and what
the host does meanwhile. `decode.py` says how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import numpy as np
import torch

from weitiao.data.pack import Prompt
from weitiao.engine.exact import WIDER
from weitiao.engine.slot_prompts import PromptReader
from weitiao.engine.slot_steps import WIDE, Steps
from weitiao.prediction.grammar import Asked, Bits, Guide, News, words
from weitiao.prediction.guess import Guesser, Worth
from weitiao.prediction.slot_state import Answers, Chosen, Decoded, Floats, Group, Ints, Reading, Step

REFILL = {"cuda": 4, "cpu": 8}
"""Slots are filled again when one in so many is free: to read a few prompts costs a step of its own, and free slots
cost nothing where kernels find the others."""
PAIRED = 128
"""Answers that are worth two groups: each reads all weights."""
PREFILL = {"cuda": 16_384, "cpu": 512}
"""Tokens of prompts that are read at once, if they have no images."""
BUSY = {"cuda": 256, "cpu": 20}
"""Tokens that are computed in the time in which all weights are read; on a CPU measured (16 to 25)."""
DRAFTED = 48
"""Most tokens of a draft that a step looks at: all of most answers, while one long answer does not widen the others."""


class Run:
    def __init__(
        self,
        steps: Steps,
        slots: int,
        prefix: Sequence[int],
        prompts: Sequence[Prompt],
        guide: Guide,
        stop: int,
        budget: int,
        spent: Callable[[int, list[int]], bool],
        done: Callable[[int, Decoded], None],
        thread: ThreadPoolExecutor,
        drafts: Sequence[Sequence[int]],
    ) -> None:
        """slots: how many of the cache's are used. stop, budget: what ends an answer, and its most tokens. thread: it
        looks which tokens are allowed. The others are those of `Decoder.decode`."""
        self.drafts, self.budget = drafts, budget
        self.steps, self.cache = steps, steps.cache
        self.forward, self.device = steps.forward, steps.forward.device
        self.prefix, self.prompts, self.guide, self.done = len(prefix), prompts, guide, done
        self.out = Answers(len(prompts), stop, budget, spent)
        self.at, self.place, self.shift = np.zeros((3, len(prompts)), np.int64)
        """Of each answer that is being written its slot; there, where its next token is computed; and from a token's
        place to its position, which is not 0 behind images."""
        self.guessers: dict[int, Guesser] = {}
        # The longest first, which is the last: at the end, when slots stay empty, the short ones are left.
        self.waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        self.reading: list[Reading] = []
        self.ended: list[int] = []
        """Answers of which `done` has not been told."""
        self.found: dict[int, Decoded] = {}
        """The others that have ended."""
        self.news = News([], [])
        """Of which the guide has not been told. A thread tells it before it asks for the next masks, or this one does
        where it needs to know what is forced; each about its own group's answers."""
        self.taken = np.zeros(slots, bool)
        """Of the first slots of the cache, which are used, those in which an answer is."""
        self.anywhere = self.forward.slot_kernels is not None
        """Whether a step finds sequences in any slots; else it is about all of the first ones."""
        self.groups, self.paired = [Group(), Group()], self.anywhere and steps.recorded
        kind = self.device.type if self.device.type in PREFILL else "cpu"
        wider = WIDER if self.forward.exact else 1
        self.refill = REFILL[kind]
        self.reader = PromptReader(steps, PREFILL[kind] // wider)
        self.worth = Worth(WIDE, BUSY[kind])
        self.words, self.thread = words(self.forward.head.weight.shape[0]), thread
        self.guide.expect(reversed(self.waiting[-slots:]))
        self.reader.read_prefix(prefix)

    def answers(self) -> list[Decoded]:
        while self.waiting or self.reading or self.active:
            self.step()
        return [self.found[answer] for answer in range(len(self.prompts))]

    @property
    def active(self) -> int:
        """Answers that are being written."""
        return sum(len(group.answers) for group in self.groups)

    def step(self) -> None:
        """Of each group: take what its last step chose, let a thread write the masks of the next, let the other's step
        choose, read prompts into free slots, and start the next. What was read is taken up a turn later, when another
        step has been started; where there is one group, at once."""
        first, second = self.groups
        if len(second.answers) and self.active < PAIRED:
            self._finish(first)
            self._finish(second)
            first.answers, second.answers = np.concatenate([first.answers, second.answers]), second.answers[:0]
        for group, other in ((first, second), (second, first)):
            self._finish(group)
            self._begin()
            if not self.paired:
                self._fill()
            step = self._prepared(group)
            self._choose(other)
            if self.paired:
                self._fill()
            if step is not None:
                step.logits = self.steps.logits(step.told, step.where, step.most)
                group.started = step
            self._tell()

    def _fill(self) -> None:
        slots, free = len(self.taken), int((~self.taken).sum())
        if self.waiting and (free * self.refill >= slots or free >= len(self.waiting)):
            self._read([self.waiting.pop() for _ in range(min(free, len(self.waiting)))])
            self.guide.expect(reversed(self.waiting[-slots:]))
            if not self.paired:
                self._begin()
        elif not self.waiting and not self.anywhere and 0 < self.active <= slots // 2:
            self._shrink()

    def _shrink(self) -> None:
        """Put the answers into the first slots."""
        [active] = [group.answers for group in self.groups if len(group.answers)]
        active = active[np.argsort(self.at[active])]
        slots = len(self.taken)
        while len(active) <= slots // 2:
            slots //= 2
        self.cache.move(self.at[active].tolist(), int(self.place[active].max()))
        self.at[active] = np.arange(len(active))
        self.taken = np.arange(slots) < len(active)

    def _add(self, answers: Ints) -> None:
        """To the groups: to the first alone where there are few, or a step is no graph."""
        first, second = self.groups
        many = self.paired and self.active + len(answers) >= PAIRED
        # Both are as large then.
        most = (len(answers) + len(second.answers) - len(first.answers) + 1) // 2 if many else len(answers)
        own = max(0, min(most, len(answers)))
        first.answers = np.concatenate([first.answers, answers[:own]])
        second.answers = np.concatenate([second.answers, answers[own:]])

    # -- prompts

    def _read(self, answers: Sequence[int]) -> None:
        slots = np.flatnonzero(~self.taken)[: len(answers)]
        self.at[answers], self.taken[slots] = slots, True
        while answers:
            # They come by length, the longest first.
            count = self.reader.together(len(self.prompts[answers[0]].ids))
            self.reading.append(self._read_together(answers[:count]))
            answers = answers[count:]

    def _read_together(self, answers: Sequence[int]) -> Reading:
        prompts = [self.prompts[answer] for answer in answers]
        asked: list[Asked] = [(answer, at, ()) for at, answer in enumerate(answers)]
        masks = self._masks(asked, len(answers), Group())
        there = np.array(answers)
        hidden, after = self.reader.read(prompts, self.at[there])
        bits = masks.result()
        return Reading(there, np.array(after), self._chosen(self.forward.logits(hidden), bits), bits)

    def _begin(self) -> None:
        """The answers to what was read, each with its first token; those that go on behind it."""
        for reading in self.reading:
            answers = reading.answers
            self.place[answers] = [self.prefix + len(self.prompts[answer].ids) for answer in answers]
            self.shift[answers] = reading.after - self.place[answers]
            tokens, chances = reading.chosen.told(1)
            self._take(answers, tokens, chances, np.ones_like(answers))
            self._add(answers[~self.out.ended[answers]])
        self.reading = []

    # -- answers

    def _prepared(self, group: Group) -> Step | None:
        """The next step of all answers of a group, if it has any."""
        answers = group.answers
        if not len(answers):
            return None
        guesses = self._guesses(answers)
        waiting, counts = self._waiting(answers, guesses)
        most = int((self.place[answers] + counts).max())
        if most >= self.cache.length:
            # What was started is computed where everything is now.
            for other in self.groups:
                self._finish(other)
        self.steps.make_room(most)
        rows = np.arange(len(answers)) if self.anywhere else self.at[answers]
        count = self.steps.size(len(answers)) if self.anywhere else len(self.taken)
        told = torch.from_numpy(self._told(answers, rows, count, waiting, counts))
        first = rows * waiting.shape[1]
        guessed: Sequence[Sequence[int]] = guesses or [()] * len(answers)
        asked: list[Asked] = [*zip(answers.tolist(), first.tolist(), guessed, strict=True)]
        where = None
        if self.anywhere:
            where = torch.zeros(count, dtype=torch.long)
            where[: len(answers)] = torch.from_numpy(self.at[answers])
        masks = self._masks(asked, count * waiting.shape[1], group)
        return Step(answers, rows, waiting, counts, told, where, most, masks)

    def _choose(self, group: Group) -> None:
        """Let the started step of a group choose its tokens, if it has not yet."""
        step = group.started
        if step is not None and step.logits is not None and step.chosen is None:
            step.chosen = self._chosen(step.logits, step.masks.result())

    def _waiting(self, answers: Ints, guesses: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
        """What waits of each, as `Step` has it."""
        counts = 1 + np.array([*map(len, guesses)] or [0] * len(answers))
        width = int(counts.max())
        if guesses and not self.drafts:
            width = WIDE if width > 1 else 1
        waiting = np.zeros((len(answers), width), np.int64)
        waiting[:, 0] = self.out.last(answers)
        waiting[:, 1:][np.arange(1, width) < counts[:, None]] = [*chain.from_iterable(guesses)]
        return waiting, counts

    def _told(self, answers: Ints, rows: Ints, count: int, waiting: Ints, counts: Ints) -> Ints:
        """[3, count, width]: ids, places and positions of the tokens that wait."""
        behind = np.arange(waiting.shape[1])
        inside = behind < counts[:, None]
        places = self.place[answers, None] + behind
        told = np.zeros((3, count, waiting.shape[1]), np.int64)
        told[1] = self.cache.scrap
        told[0, rows], told[1, rows] = waiting, np.where(inside, places, self.cache.scrap)
        told[2, rows] = np.where(inside, places + self.shift[answers, None], 0)
        return told

    def _finish(self, group: Group) -> None:
        """Take what the started step of a group has chosen."""
        self._choose(group)
        step, group.started = group.started, None
        if step is None or step.chosen is None:
            return
        all_tokens, all_chances = step.chosen.told(step.width)
        tokens, chances = all_tokens[step.rows], all_chances[step.rows]
        given = step.right(tokens)
        self._take(step.answers, tokens, chances, given)
        # Of an answer that has ended it does not matter any more.
        self.place[step.answers] += given
        self.worth.saw(step.width, float(given.mean()))
        group.answers = group.answers[~self.out.ended[group.answers]]

    def _guesses(self, answers: Ints) -> list[list[int]]:
        """What may follow each answer; nothing at all where that is not worth a wider step."""
        if self.drafts:
            return self._guesses_of_drafts(answers.tolist())
        if not self.worth.wide(len(answers)):
            return []
        self.guide.take(self._news())
        left = np.minimum(WIDE - 1, self.budget - self.out.sizes[answers])
        return [
            self._guesser(answer).guess(self.guide.forced(answer), most)
            for answer, most in zip(answers.tolist(), left.tolist(), strict=True)
        ]

    def _guesses_of_drafts(self, answers: Sequence[int]) -> list[list[int]]:
        """What is left of the drafts; where an answer has left its draft, what followed its last tokens there."""
        most = min(DRAFTED, max(map(len, self.drafts)))
        guesses = []
        for answer in answers:
            ids, draft = self.out.ids(answer), list(self.drafts[answer])
            if draft[: len(ids)] == ids:
                guesses.append(draft[len(ids) :][:most])
            else:
                guesses.append(self._guesser(answer).guess((), min(most, self.budget - len(ids))))
        return guesses

    def _guesser(self, answer: int) -> Guesser:
        """It knows what is written of the answer."""
        if answer not in self.guessers:
            draft = self.drafts[answer] if self.drafts else ()
            self.guessers[answer] = Guesser([*self.prompts[answer].ids, *draft])
        guesser = self.guessers[answer]
        guesser.add(self.out.ids(answer, guesser.heard))
        return guesser

    def _take(self, answers: Ints, tokens: Ints, chances: Floats, given: Ints) -> None:
        """Take what was chosen, as `Answers.take`; slots of answers that have ended are free."""
        news = self.out.take(answers, tokens, chances, given)
        self.news = News([*self.news.rounds, *news.rounds], [*self.news.ended, *news.ended])
        self.taken[self.at[news.ended]] = False
        self.ended += news.ended

    def _tell(self) -> None:
        for answer in self.ended:
            self.guessers.pop(answer, None)
            self.found[answer] = self.out.decoded(answer)
            self.done(answer, self.found[answer])
        self.ended = []

    def _chosen(self, logits: torch.Tensor, bits: Bits) -> Chosen:
        """logits [N, V] → of each, the likeliest allowed token, and its log-probability among the allowed ones."""
        masks = torch.from_numpy(bits).to(logits.device, non_blocking=True)
        return Chosen(*self.forward.kernels.chosen(logits, masks))

    def _masks(self, asked: Sequence[Asked], count: int, group: Group) -> Future[Bits]:
        """Of a step with so many logits; a thread writes them."""
        news = self._news()
        if self.guide.everywhere is not None:
            always: Future[Bits] = Future()
            always.set_result(self.guide.everywhere)
            return always
        if count > len(group.bits):
            group.bits = torch.zeros(count, self.words, dtype=torch.int32, pin_memory=self.device.type == "cuda")
        return self.thread.submit(self._filled, news, asked, group.bits[:count].numpy())

    def _filled(self, news: News, asked: Sequence[Asked], bits: Bits) -> Bits:
        self.guide.take(news)
        self.guide.fill(asked, bits)
        return bits

    def _news(self) -> News:
        news, self.news = self.news, News([], [])
        return news
