"""What Hugging Face's ways to predict have in common: prompts as ids, greedy, without a grammar.

A random model never ends an answer, so each way is told how long one is: as many tokens as ours, the stop among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from weitiao.bench.answerer import Answerer, adapted
from weitiao.bench.questions import Questions
from weitiao.bench.shapes import ModelMaker
from weitiao.model.quiet import quiet

FILLER = 0
"""Id that pads a row; hidden by the mask."""


class HfGenerate(Answerer):
    merged = True
    """Whether the adapter is added to the weights before."""

    @classmethod
    def environment(cls, folder: Path) -> Mapping[str, str]:
        return {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

    @property
    def setting(self) -> str:
        return ", ".join(filter(None, [super().setting, "merged" if self.merged else ""]))

    def prepare(self, make: ModelMaker, questions: Questions) -> None:
        self.questions = questions
        model = adapted(make)
        with quiet():
            self.model = model.merge_and_unload() if self.merged else model
        self.device = next(self.model.parameters()).device

    @torch.inference_mode()
    def generate(self, members: Sequence[int]) -> torch.Tensor:
        """A batch, padded on the left, until its longest answer is written: int64 [B, T + new]."""
        prompts = [self.questions.prompts[at] for at in members]
        width = max(map(len, prompts))
        fill = [width - len(prompt) for prompt in prompts]
        ids = [[FILLER] * left + list(prompt) for left, prompt in zip(fill, prompts, strict=True)]
        mask = [[0] * left + [1] * len(prompt) for left, prompt in zip(fill, prompts, strict=True)]
        with quiet():
            written: torch.Tensor = self.model.generate(
                input_ids=torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                do_sample=False,
                max_new_tokens=max(self.questions.answers[at] for at in members),
                pad_token_id=FILLER,
            )
        # What a caller does with the answers, and the end of the device's work.
        return written.cpu()
