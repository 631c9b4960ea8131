"""Greedy decoding of many answers at once, each under its grammar, behind one shared prefix.

Answers are written in slots (`engine/slots.py`): when one ends, the next prompt takes its slot. A step may take several
tokens of an answer: the one that was chosen last, and behind it a guess (`guess.py`). Each guessed token is checked
against what the model chooses before it, so answers are those of one token a step. On a card a step is a CUDA graph;
while it computes the logits, the host finds out which tokens the grammars allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from weitiao.data.collate import image_places, row_positions
from weitiao.data.pack import PackRow, Prompt
from weitiao.engine.forward import Forward
from weitiao.engine.slot_steps import Steps
from weitiao.engine.slots import SlotCache
from weitiao.prediction.grammar import Asked, Guide, words
from weitiao.prediction.guess import Guesser, Worth

LOOK = 16
"""Tokens between two looks at whether an answer repeats itself."""
MOST = 256
"""Slots: with more tokens a step takes longer in proportion."""
WIDE = 4
"""Tokens of an answer that a step with guesses takes."""
REFILL = 8
"""Slots are filled again when one in so many is free: to read a few prompts costs a step of its own."""
PREFILL = {"cuda": 2048, "cpu": 512}
"""Tokens of prompts that are read at once, if they have no images: a mask over a long slot must fit into memory."""
BUSY = {"cuda": 256, "cpu": 20}
"""Tokens that are computed in the time in which all weights are read; on a CPU measured (16 to 25)."""


@dataclass
class Decoded:
    ids: list[int]
    """Tokens of the answer, without the stop."""
    log_probability: float
    """Of the answer and its stop among the tokens that the grammar allowed, in nats."""
    complete: bool
    """Whether it ended by itself within the budget."""
    chances: list[float] = field(default_factory=list)
    """Log-probability of each of `ids`, in nats; of a complete answer, all but the stop's of `log_probability`."""


class Decoder:
    def __init__(self, forward: Forward, stop: int, budget: int, cuda_graphs: bool = True) -> None:
        """budget: most tokens of an answer."""
        self.forward, self.stop, self.budget = forward, stop, budget
        self.vocabulary: int = forward.head.weight.shape[0]
        self.recorded = cuda_graphs and forward.fast is not None and forward.device.type == "cuda"
        self._steps: Steps | None = None

    @torch.inference_mode()
    def decode(
        self,
        prefix: Sequence[int],
        prompts: Sequence[Prompt],
        guide: Guide,
        slots: int,
        spent: Callable[[int, list[int]], bool] = lambda answer, ids: False,
        advance: Callable[[int], None] = lambda answers: None,
    ) -> list[Decoded]:
        """Answers to `prompts`, in order, at most `slots` at a time.

        spent: told now and then of an answer's tokens; one for which it is true gets no more. advance: told of answers
        done.
        """
        longest = max(len(prompt.ids) for prompt in prompts)
        # Few answers are longer than their prompt; there will be room for more when it is needed.
        slots = min(slots, len(prompts), MOST)
        if self.recorded:
            slots = 1 << (slots - 1).bit_length()  # few sizes
        steps = self._steps_for(slots, len(prefix) + longest + min(longest, self.budget) + WIDE)
        run = _Run(self, steps, slots, prefix, prompts, guide, spent, advance)
        while run.waiting or run.active:
            run.step()
        return run.out

    def rest(self) -> None:
        """Give back the memory that is kept for the next answers."""
        self._steps = None

    def _steps_for(self, slots: int, tokens: int) -> Steps:
        kept = self._steps
        if kept is None or kept.cache.slots < slots or kept.cache.length <= tokens:
            self._steps = None  # its memory is free before there is more
            kept = Steps(self.forward, SlotCache(slots, tokens), self.recorded)
        if self.recorded:
            self._steps = kept
        return kept


@dataclass
class _Slot:
    """An answer that is being written."""

    answer: int
    place: int
    """In the slot, of the next token that is computed."""
    shift: int
    """From a token's place to its position; not 0 behind images."""
    guesser: Guesser
    waiting: list[int] = field(default_factory=list)
    """The token that was chosen last, and a guess of what follows."""


class _Run:
    def __init__(
        self,
        decoder: Decoder,
        steps: Steps,
        slots: int,
        prefix: Sequence[int],
        prompts: Sequence[Prompt],
        guide: Guide,
        spent: Callable[[int, list[int]], bool],
        advance: Callable[[int], None],
    ) -> None:
        self.stop, self.budget, self.steps, self.cache = decoder.stop, decoder.budget, steps, steps.cache
        self.forward, self.device = decoder.forward, decoder.forward.device
        self.prefix, self.prompts, self.guide, self.spent, self.advance = len(prefix), prompts, guide, spent, advance
        self.out = [Decoded([], 0.0, complete=False) for _ in prompts]
        # The longest first: at the end, when slots stay empty, the short ones are left.
        self.waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        self.slots = slots
        """The first ones of the cache, which are used."""
        self.active: dict[int, _Slot] = {}
        """By slot."""
        self.prefill = PREFILL.get(self.device.type, PREFILL["cpu"])
        self.worth = Worth(WIDE, BUSY.get(self.device.type, BUSY["cpu"]))
        self._bits = torch.empty(0, words(decoder.vocabulary), dtype=torch.int32)
        self._read_prefix(prefix)

    def step(self) -> None:
        """Read prompts into free slots, and write on."""
        free = self.slots - len(self.active)
        if self.waiting and (free * REFILL >= self.slots or free >= len(self.waiting)):
            self._read([self.waiting.pop() for _ in range(min(free, len(self.waiting)))])
            self.guide.expect(self.waiting[-self.slots :])
        if not self.waiting and 0 < len(self.active) <= self.slots // 2:
            used = sorted(self.active)
            while len(used) <= self.slots // 2:
                self.slots //= 2
            self.cache.move(used, max(slot.place for slot in self.active.values()))
            self.active = {at: self.active[slot] for at, slot in enumerate(used)}
        if self.active:
            self._write()

    # -- prompts

    def _read_prefix(self, prefix: Sequence[int]) -> None:
        for start in range(0, len(prefix), self.prefill):
            ids = self._ints(prefix[start : start + self.prefill])[None]
            places = start + torch.arange(ids.shape[1], device=self.device)[None]
            self.cache.begin(places, self._ints([0]), len(prefix))
            self.forward.step(ids, places, self.cache, self._ints([0]))
        self.cache.share(len(prefix))

    def _read(self, answers: Sequence[int]) -> None:
        free = (at for at in range(self.slots) if at not in self.active)
        placed = list(zip(free, answers, strict=False))
        while placed:
            # They come by length, the longest first.
            count = max(1, self.prefill // len(self.prompts[placed[0][1]].ids))
            self._read_together(placed[:count])
            placed = placed[count:]

    def _read_together(self, placed: Sequence[tuple[int, int]]) -> None:
        """placed: (slot, answer)."""
        prompts = [self.prompts[answer] for _, answer in placed]
        hidden, after = self._prompts_read(prompts, self._ints([slot for slot, _ in placed]))
        asked: list[Asked] = [(answer, at, ()) for at, (_, answer) in enumerate(placed)]
        tokens, chances = self._chosen(self.forward.head(hidden), asked)
        for (slot, answer), prompt, position, token, chance in zip(
            placed, prompts, after, tokens, chances, strict=True
        ):
            if not self._take(answer, token, chance):
                continue
            place = self.prefix + len(prompt.ids)
            self.active[slot] = _Slot(answer, place, position - place, Guesser(prompt.ids), [token])
            self.active[slot].guesser.add(token)

    def _prompts_read(self, prompts: Sequence[Prompt], slots: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Hidden states [B, H] of the last token of each, and the positions of what follows."""
        sizes = [len(prompt.ids) for prompt in prompts]
        width = max(sizes)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        places = torch.full((len(prompts), width), self.cache.scrap)
        positions = torch.zeros(3, len(prompts), width, dtype=torch.long)
        image_at: list[int] = []
        for at, (prompt, size) in enumerate(zip(prompts, sizes, strict=True)):
            ids[at, :size] = torch.tensor(prompt.ids)
            places[at, :size] = torch.arange(self.prefix, self.prefix + size)
            positions[:, at, :size] = self.prefix + row_positions(PackRow(prompt.ids, (), images=prompt.images))
            image_at += [at * width + place for place in image_places(prompt.images)]
        images = [image for prompt in prompts for image in prompt.images]
        # Without images, the three agree.
        where = positions if images else positions[0]
        last = torch.tensor(sizes) - 1
        hidden: torch.Tensor | None = None
        # An image is seen whole.
        chunk = width if images else self.prefill
        for start in range(0, width, chunk):
            here = slice(start, min(start + chunk, width))
            inside = (last - start).clamp(0, here.stop - start - 1)
            keep = torch.arange(len(prompts)) * (here.stop - start) + inside
            self.cache.begin(places[:, here].to(self.device), slots, self.prefix + here.stop)
            found = self.forward.step(
                ids[:, here].to(self.device),
                where[..., here].to(self.device),
                self.cache,
                keep.to(self.device),
                images,
                self._ints(image_at) if images else None,
            )
            ends = ((last >= start) & (last < here.stop)).to(found.device)[:, None]
            hidden = found if hidden is None else torch.where(ends, found, hidden)
        assert hidden is not None
        return hidden, (positions.amax((0, 2)) + 1).tolist()

    # -- answers

    def _write(self) -> None:
        """One step of every answer."""
        width = self._guess()
        most = max(slot.place + len(slot.waiting) for slot in self.active.values())
        self.steps.make_room(most)
        told = np.zeros((3, self.slots, width), dtype=np.int64)
        told[1] = self.cache.scrap
        asked: list[Asked] = []
        for at, slot in self.active.items():
            size = len(slot.waiting)
            told[0, at, :size] = slot.waiting
            told[1, at, :size] = np.arange(slot.place, slot.place + size)
            told[2, at, :size] = told[1, at, :size] + slot.shift
            asked.append((slot.answer, at * width, slot.waiting[1:]))
        tokens, chances = self._chosen(self.steps.logits(torch.from_numpy(told), most), asked)
        written = 0
        for at, slot in list(self.active.items()):
            here = slice(at * width, (at + 1) * width)
            written += self._accept(slot, tokens[here], chances[here])
            if not slot.waiting:
                del self.active[at]
        self.worth.saw(width, written / len(asked))

    def _guess(self) -> int:
        """Put guesses behind the tokens that wait; the width of the step."""
        if not self.worth.wide(self.slots):
            return 1
        for slot in self.active.values():
            left = self.budget - len(self.out[slot.answer].ids)
            slot.waiting += slot.guesser.guess(self.guide.forced(slot.answer), min(WIDE - 1, left))
        return WIDE if any(len(slot.waiting) > 1 for slot in self.active.values()) else 1

    def _accept(self, slot: _Slot, tokens: Sequence[int], chances: Sequence[float]) -> int:
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
                self.guide.take(answer, token)
                return True
        self.guide.end(answer)
        self.advance(1)
        return False

    def _chosen(self, logits: torch.Tensor, asked: Sequence[Asked]) -> tuple[list[int], list[float]]:
        """logits [N, V] → of each, the likeliest allowed token, and its log-probability among the allowed ones."""
        bits = self.guide.everywhere
        if bits is None:
            # The card is still at the logits.
            bits = self._masks(len(logits))
            self.guide.fill(asked, bits)
        masks = torch.from_numpy(bits).to(logits.device, non_blocking=True)
        tokens, chances = self.forward.kernels.chosen(logits, masks)
        return tokens.tolist(), chances.tolist()

    def _masks(self, count: int) -> NDArray[np.int32]:
        if count > len(self._bits):
            pinned = self.device.type == "cuda"
            self._bits = torch.zeros(count, self._bits.shape[1], dtype=torch.int32, pin_memory=pinned)
        return self._bits[:count].numpy()

    def _ints(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)
