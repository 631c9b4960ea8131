"""Hugging Face and PEFT as well set as they go: the whole step in one batch where that fits, no checkpointing, the head
at the last positions only. Rows are padded on the left, so that these are the answers'."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft.helpers import disable_input_dtype_casting

from weitiao.bench.hf import UNSUPERVISED, HfSystem
from weitiao.bench.shapes import ModelMaker
from weitiao.bench.system import Settings
from weitiao.types import Encoded


class HfBatched(HfSystem):
    def prepare(self, make: ModelMaker, samples: Sequence[Encoded], settings: Settings) -> None:
        super().prepare(make, samples, settings)
        self.fits = settings.samples_per_step
        """Rows of the largest batch that did not run out of memory, as far as is known."""

    def batch_size(self, members: int) -> int:
        return self.fits

    def backward(self, members: Sequence[Encoded]) -> torch.Tensor:
        # Rows of a micro-batch are of similar length, as with Trainer's grouping by length.
        members = sorted(members, key=lambda sample: -len(sample.ids))
        while True:
            try:
                return super().backward(members)
            except torch.cuda.OutOfMemoryError:
                if self.fits == 1:
                    raise
            # Outside of the handler, whose traceback would keep the activations alive.
            self.fits = 1 << ((self.fits - 1).bit_length() - 1)
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
