"""Many answers written at once in slots: steps of two groups in turn, prompts that are read into free slots, and what
the host does meanwhile. `decode.py` says how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from weitiao.data.pack import Prompt
from weitiao.engine.exact import WIDER
from weitiao.engine.slot_prompts import PromptReader
from weitiao.engine.slot_steps import WIDE, Steps
from weitiao.prediction.grammar import Asked, Bits, Guide, News, words
from weitiao.prediction.guess import Guesser, Worth
from weitiao.prediction.slot_state import Chosen, Decoded, Group, Reading, Slot, Step

LOOK = 16
"""Tokens between two looks at whether an answer repeats itself."""
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
        self.drafts = drafts
        self.stop, self.budget, self.steps, self.cache = stop, budget, steps, steps.cache
        self.forward, self.device = steps.forward, steps.forward.device
        self.prefix, self.prompts, self.guide, self.spent, self.done = len(prefix), prompts, guide, spent, done
        self.out = [Decoded([], 0.0, complete=False) for _ in prompts]
        # The longest first: at the end, when slots stay empty, the short ones are left.
        self.waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        self.reading: list[Reading] = []
        self.ended: list[int] = []
        """Answers of which `done` has not been told."""
        self.news: list[News] = []
        """Of which the guide has not been told. A thread tells it before it asks for the next masks, or this one does
        where it needs to know what is forced; each about its own group's answers."""
        self.slots = slots
        """The first ones of the cache, which are used."""
        self.anywhere = self.forward.slot_kernels is not None
        """Whether a step finds sequences in any slots; else it is about all of the first ones."""
        self.groups, self.paired = [Group(), Group()], self.anywhere and steps.recorded
        kind = self.device.type if self.device.type in PREFILL else "cpu"
        wider = WIDER if self.forward.exact else 1
        self.prefill, self.refill = PREFILL[kind] // wider, REFILL[kind]
        self.reader = PromptReader(self.forward, self.cache, self.prefill)
        self.worth = Worth(WIDE, BUSY[kind])
        self.words, self.thread = words(self.forward.head.weight.shape[0]), thread
        self.guide.expect(self.waiting[-slots:])
        self.reader.read_prefix(prefix)

    def answers(self) -> list[Decoded]:
        while self.waiting or self.reading or self.active:
            self.step()
        return self.out

    @property
    def active(self) -> list[Slot]:
        return [slot for group in self.groups for slot in group.slots]

    def step(self) -> None:
        """Of each group: take what its last step chose, let a thread write the masks of the next, let the other's step
        choose, read prompts into free slots, and start the next. What was read is taken up a turn later, when another
        step has been started; where there is one group, at once."""
        first, second = self.groups
        if second.slots and len(self.active) < PAIRED:
            self._finish(first)
            self._finish(second)
            first.slots, second.slots = first.slots + second.slots, []
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
        free = self.slots - len(self.active) - sum(len(reading.placed) for reading in self.reading)
        if self.waiting and (free * self.refill >= self.slots or free >= len(self.waiting)):
            self._read([self.waiting.pop() for _ in range(min(free, len(self.waiting)))])
            self.guide.expect(self.waiting[-self.slots :])
            if not self.paired:
                self._begin()
        elif not self.waiting and not self.anywhere and 0 < len(self.active) <= self.slots // 2:
            self._shrink()

    def _shrink(self) -> None:
        """Put the answers into the first slots."""
        active = sorted(self.active, key=lambda slot: slot.at)
        while len(active) <= self.slots // 2:
            self.slots //= 2
        self.cache.move([slot.at for slot in active], max(slot.place for slot in active))
        for at, slot in enumerate(active):
            slot.at = at

    def _add(self, slots: Sequence[Slot]) -> None:
        """To the groups: to the first alone where there are few, or a step is no graph."""
        first, second = self.groups
        if self.paired and len(self.active) + len(slots) >= PAIRED:
            for slot in slots:
                min(first, second, key=lambda group: len(group.slots)).slots.append(slot)
        else:
            first.slots += slots

    # -- prompts

    def _read(self, answers: Sequence[int]) -> None:
        taken = {slot.at for slot in self.active}
        taken.update(at for reading in self.reading for at, _ in reading.placed)
        free = (at for at in range(self.slots) if at not in taken)
        placed = list(zip(free, answers, strict=False))
        while placed:
            # They come by length, the longest first.
            count = max(1, self.prefill // len(self.prompts[placed[0][1]].ids))
            self.reading.append(self._read_together(placed[:count]))
            placed = placed[count:]

    def _read_together(self, placed: Sequence[tuple[int, int]]) -> Reading:
        """placed: (slot, answer)."""
        prompts = [self.prompts[answer] for _, answer in placed]
        asked: list[Asked] = [(answer, at, ()) for at, (_, answer) in enumerate(placed)]
        masks = self._masks(asked, len(placed), Group())
        hidden, after = self.reader.read(prompts, [slot for slot, _ in placed])
        bits = masks.result()
        return Reading(placed, after, self._chosen(self.forward.logits(hidden), bits), bits)

    def _begin(self) -> None:
        """The answers to what was read, each with its first token."""
        for reading in self.reading:
            self._add([*self._begun(reading)])
        self.reading = []

    def _begun(self, reading: Reading) -> Iterator[Slot]:
        """Those that go on behind their first token."""
        tokens, chances = reading.chosen.told(1)
        for (at, answer), position, (token,), (chance,) in zip(
            reading.placed, reading.after, tokens, chances, strict=True
        ):
            if self._take(answer, token, chance):
                ids = self.prompts[answer].ids
                place = self.prefix + len(ids)
                known = [*ids, *self.drafts[answer]] if self.drafts else ids
                slot = Slot(answer, at, place, position - place, Guesser(known), [token])
                slot.guesser.add(token)
                yield slot

    # -- answers

    def _prepared(self, group: Group) -> Step | None:
        """The next step of all answers of a group, if it has any."""
        if not group.slots:
            return None
        active = list(group.slots)
        width = self._guess(active)
        most = max(slot.place + len(slot.waiting) for slot in active)
        if most >= self.cache.length:
            # What was started is computed where everything is now.
            for other in self.groups:
                self._finish(other)
        self.steps.make_room(most)
        rows = list(range(len(active))) if self.anywhere else [slot.at for slot in active]
        count = self.steps.size(len(active)) if self.anywhere else self.slots
        told = torch.from_numpy(self._told(active, rows, count, width))
        asked: list[Asked] = [
            (slot.answer, row * width, slot.waiting[1:]) for row, slot in zip(rows, active, strict=True)
        ]
        where = None
        if self.anywhere:
            where = torch.zeros(count, dtype=torch.long)
            where[: len(active)] = torch.tensor([slot.at for slot in active])
        return Step(active, rows, width, told, where, most, self._masks(asked, count * width, group))

    def _choose(self, group: Group) -> None:
        """Let the started step of a group choose its tokens, if it has not yet."""
        step = group.started
        if step is not None and step.logits is not None and step.chosen is None:
            step.chosen = self._chosen(step.logits, step.masks.result())

    def _told(self, active: Sequence[Slot], rows: Sequence[int], count: int, width: int) -> NDArray[np.int64]:
        """[3, count, width]: ids, places and positions of the tokens that wait."""
        waiting = np.array([slot.waiting + [0] * (width - len(slot.waiting)) for slot in active])
        sizes, first, shift = np.array([(len(slot.waiting), slot.place, slot.shift) for slot in active]).T[..., None]
        inside = np.arange(width) < sizes
        places = first + np.arange(width)
        told = np.zeros((3, count, width), dtype=np.int64)
        told[1] = self.cache.scrap
        told[0, rows], told[1, rows] = waiting, np.where(inside, places, self.cache.scrap)
        told[2, rows] = np.where(inside, places + shift, 0)
        return told

    def _finish(self, group: Group) -> None:
        """Take what the started step of a group has chosen."""
        self._choose(group)
        step, group.started = group.started, None
        if step is None or step.chosen is None:
            return
        tokens, chances = step.chosen.told(step.width)
        written = sum(
            self._accept(slot, tokens[row], chances[row]) for slot, row in zip(step.slots, step.rows, strict=True)
        )
        self.worth.saw(step.width, written / len(step.slots))
        group.slots = [slot for slot in group.slots if slot.waiting]

    def _guess(self, active: Sequence[Slot]) -> int:
        """Put guesses behind the tokens that wait; the width of the step."""
        if self.drafts:
            return self._guess_drafts(active)
        if not self.worth.wide(len(active)):
            return 1
        self.guide.take(self._news())
        for slot in active:
            left = self.budget - len(self.out[slot.answer].ids)
            slot.waiting += slot.guesser.guess(self.guide.forced(slot.answer), min(WIDE - 1, left))
        return WIDE if any(len(slot.waiting) > 1 for slot in active) else 1

    def _guess_drafts(self, active: Sequence[Slot]) -> int:
        """What is left of the drafts; where an answer has left its draft, what followed its last tokens there."""
        most = min(DRAFTED, max(map(len, self.drafts)))
        for slot in active:
            ids, draft = self.out[slot.answer].ids, self.drafts[slot.answer]
            if list(draft[: len(ids)]) == ids:
                slot.waiting += draft[len(ids) :][:most]
            else:
                slot.waiting += slot.guesser.guess((), min(most, self.budget - len(ids)))
        return max(len(slot.waiting) for slot in active)

    def _accept(self, slot: Slot, tokens: Sequence[int], chances: Sequence[float]) -> int:
        """Take what was chosen behind each waiting token, as long as that is what was guessed; how many were taken.
        Nothing waits behind an answer that has ended."""
        guess = slot.waiting
        for at, (token, chance) in enumerate(zip(tokens, chances, strict=True)):
            if not self._take(slot.answer, token, chance):
                slot.waiting = []
                return at + 1
            slot.guesser.add(token)
            if guess[at + 1 : at + 2] != [token]:
                break
        slot.place += at + 1
        slot.waiting = [token]
        return at + 1

    def _take(self, answer: int, token: int, chance: float) -> bool:
        """Whether the answer goes on behind this token."""
        out = self.out[answer]
        out.log_probability += chance
        out.complete = token == self.stop
        if not out.complete and len(out.ids) < self.budget:
            out.ids.append(token)
            out.chances.append(chance)
            if len(out.ids) % LOOK or not self.spent(answer, out.ids):
                self.news.append((answer, token))
                return True
        self.news.append((answer, None))
        self.ended.append(answer)
        return False

    def _tell(self) -> None:
        for answer in self.ended:
            self.done(answer, self.out[answer])
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

    def _filled(self, news: Sequence[News], asked: Sequence[Asked], bits: Bits) -> Bits:
        self.guide.take(news)
        self.guide.fill(asked, bits)
        return bits

    def _news(self) -> list[News]:
        news, self.news = self.news, []
        return news
