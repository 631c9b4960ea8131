"""Greedy decoding of many answers at once, each under its grammar, behind one shared prefix.

Answers are written in slots (`engine/slots.py`): when one ends, the next prompt takes its slot. A step may take several
tokens of an answer: the one that was chosen last, and behind it a guess (`guess.py`). Each guessed token is checked
against what the model chooses before it, so answers are those of one token a step.

While the logits are computed, a thread finds out which tokens the grammars allow. On a card a step is a CUDA graph, and
many answers are written in two groups in turn: while it computes the step of one, the host reads what the other's last
step has chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from weitiao.data.pack import Prompt
from weitiao.engine.forward import Forward
from weitiao.engine.slot_steps import WIDE, Steps
from weitiao.engine.slots import SlotCache
from weitiao.prediction.grammar import Guide
from weitiao.prediction.slot_run import Run
from weitiao.prediction.slot_state import Decoded

MOST = {"cuda": 1024, "cpu": 64}
"""Slots: with more tokens a step takes longer in proportion, and on a card the host has fewer steps to start."""
ROOM = 128
"""Tokens of an answer that a slot has room for at first, or as many as its prompt has. On a card more costs little, and
to move everything a lot."""
SHARE = 0.5
"""Of a card's free memory, what slots may take."""


class Decoder:
    def __init__(self, forward: Forward, stop: int, budget: int, cuda_graphs: bool = True) -> None:
        """budget: most tokens of an answer."""
        self.forward, self.stop, self.budget = forward, stop, budget
        self.recorded = cuda_graphs and forward.fast is not None and forward.device.type == "cuda"
        self.thread = ThreadPoolExecutor(1)
        """It looks which tokens are allowed."""
        self._steps: Steps | None = None

    @torch.inference_mode()
    def decode(
        self,
        prefix: Sequence[int],
        prompts: Sequence[Prompt],
        guide: Guide,
        slots: int,
        spent: Callable[[int, list[int]], bool] = lambda answer, ids: False,
        done: Callable[[int, Decoded], None] = lambda answer, decoded: None,
        drafts: Sequence[Sequence[int]] = (),
    ) -> list[Decoded]:
        """Answers to `prompts`, in order, at most `slots` at a time.

        spent: told now and then of an answer's tokens; one for which it is true gets no more. done: told of each answer
        that has ended, while a card writes others. drafts: an answer to each that their grammars allow, which may well
        be it: it is guessed whole.
        """
        # Few answers are longer than their prompt; there will be room for more when it is needed.
        longest = max(len(prompt.ids) for prompt in prompts)
        answer = min(self.budget, max(longest, ROOM if self.recorded else 0))
        tokens = len(prefix) + longest + answer + WIDE
        steps = self._steps_for(min(slots, len(prompts)), tokens)
        used = min(slots, len(prompts), steps.cache.slots)
        how = self.stop, self.budget, spent, done, self.thread, drafts
        return Run(steps, used, prefix, prompts, guide, *how).answers()

    def _most(self, tokens: int) -> int:
        """Slots of so many tokens that pay, and fit on the card."""
        if self.forward.device.type != "cuda":
            return MOST["cpu"]
        free, _ = torch.cuda.mem_get_info(self.forward.device)
        free += torch.cuda.memory_reserved(self.forward.device) - torch.cuda.memory_allocated(self.forward.device)
        config = self.forward.body.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        item = 4 if self.forward.exact else self.forward.head.weight.itemsize
        each = 2 * config.num_hidden_layers * config.num_key_value_heads * size * item
        return max(1, min(MOST["cuda"], int(SHARE * free / (each * tokens))))

    def rest(self) -> None:
        """Give back the memory that is kept for the next answers."""
        self._steps = None

    def _steps_for(self, slots: int, tokens: int) -> Steps:
        """With at most so many slots, of as many tokens at least. What is kept will do if it has half as many slots:
        to record all steps anew takes longer."""
        kept, self._steps = self._steps, None
        if kept is None or 2 * kept.cache.slots < slots or kept.cache.length <= tokens:
            # Rows of the sizes that were asked for before may come again.
            long = max(tokens, kept.cache.length) if kept else tokens
            kept = None  # its memory is free before there is more
            length = long if self._most(long) >= slots else tokens
            kept = Steps(self.forward, SlotCache(min(slots, self._most(length)), length), self.recorded)
        if self.recorded:
            self._steps = kept
        return kept
