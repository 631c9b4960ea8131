"""Rows as prompts behind the prefixes that they share, and what may answer each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weitiao.data.encode import Encoder
from weitiao.data.pack import Prompt, prompt_row
from weitiao.data.prefix import prefix_groups
from weitiao.engine.image_features import ImageFeatures
from weitiao.tasks.base import Example
from weitiao.types import Constraint, Encoded


class Prompts:
    def __init__(self, encoder: Encoder, images: ImageFeatures | None, batch_tokens: int) -> None:
        """images: of a model that reads them. batch_tokens: tokens of a prediction batch."""
        self.encoder, self.images, self.batch_tokens = encoder, images, batch_tokens

    def constraint(self, row: Example) -> Constraint:
        return self.encoder.task.constraint(row, self.encoder.chat.tokenizer.normalize)

    def behind_prefixes(
        self, encoded: Sequence[Encoded]
    ) -> Iterator[tuple[tuple[int, ...], Sequence[int], list[Prompt]]]:
        """Each shared prefix, the rows behind it, and what they ask there."""
        if self.images is not None:
            self.images.prepare([image for e in encoded for image in e.images])
        # Kernel by kernel, a batch of few rows takes about as long as a full one.
        for prefix, members in prefix_groups(encoded, len(encoded), pack_cost=self.batch_tokens):
            yield prefix, members, [prompt_row(encoded[i], len(prefix), self.encoder.chat.lead) for i in members]
