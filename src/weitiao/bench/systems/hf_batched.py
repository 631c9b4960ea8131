"""Hugging Face and PEFT as well set as they go: batches as large as fit, no checkpointing, the head at the last
positions only. Rows are padded on the left, so that these are the answers'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from peft.helpers import disable_input_dtype_casting

from weitiao.bench.hf import UNSUPERVISED, HfSystem
from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings
from weitiao.types import Encoded

ROWS = 64
"""Most rows of a micro-batch."""
PADDED_TOKENS = 16_384
"""Most tokens of a micro-batch, padding among them: enough to fill a card, and few long documents."""


class HfBatched(HfSystem):
    def prepare(self, make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> None:
        super().prepare(make, samples, settings)
        self.fits = PADDED_TOKENS
        """Padded tokens of a batch that does not run out of memory, as far as is known."""

    def batches(self, members: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
        """Rows of similar length together, as with Trainer's grouping by length; the longest first, so that what does
        not fit is known at once."""
        members = sorted(members, key=lambda sample: -len(sample.ids))
        while members:
            size = max(1, min(ROWS, self.fits // len(members[0].ids)))
            yield members[:size]
            members = members[size:]

    def backward(self, members: Sequence[Encoded]) -> torch.Tensor:
        longest = max(len(sample.ids) for sample in members)
        while True:
            try:
                return super().backward(members)
            except torch.cuda.OutOfMemoryError:
                if self.fits <= longest:
                    raise
            # Outside of the handler, whose traceback would keep the activations alive.
            self.fits = min(self.fits, longest * min(ROWS, len(members))) // 2
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def loss(self, members: Sequence[Encoded], wanted: int) -> torch.Tensor:
        """The last token of a row is only a label."""
        ids = self.padded([sample.ids[:-1] for sample in members], 0, left=True)
        mask = self.padded([[1] * (len(sample.ids) - 1) for sample in members], 0, left=True)
        labels = self.padded([sample.answer for sample in members], UNSUPERVISED, left=True)
        half = self.model.get_base_model().dtype == torch.bfloat16
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=half),
            # PEFT would copy every input of an adapter to float32.
            disable_input_dtype_casting(self.model, active=half),
        ):
            return self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                labels=labels,
                shift_labels=labels,
                logits_to_keep=labels.shape[1],
                num_items_in_batch=wanted,
                use_cache=False,
            ).loss


SYSTEM = HfBatched
