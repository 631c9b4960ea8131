"""The tutorial's loop: one row at a time, the adapter apart. It allows 512 tokens; a trained model ends before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weitiao.bench.hf_generate import HfGenerate


class Tutorial(HfGenerate):
    merged = False
    most = 8
    sizes: Mapping[str, Sequence[int]] = {"cpu": (1,), "cuda": (1,)}

    def answer(self, members: Sequence[int]) -> None:
        for at in members:
            self.generate([at])


ANSWERER = Tutorial
