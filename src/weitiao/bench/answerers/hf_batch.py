"""Hugging Face's `generate` in batches, well set: the adapter merged, rows of similar length together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weitiao.bench.hf_generate import HfGenerate


class HfBatch(HfGenerate):
    most = 512
    sizes: Mapping[str, Sequence[int]] = {"cpu": (1, 8, 16, 32), "cuda": (256, 512)}

    def answer(self, members: Sequence[int]) -> None:
        """The longest first, so that what does not fit is known at once."""
        ordered = sorted(members, key=lambda at: -len(self.questions.prompts[at]))
        for start in range(0, len(ordered), self.size):
            self.generate(ordered[start : start + self.size])


ANSWERER = HfBatch
