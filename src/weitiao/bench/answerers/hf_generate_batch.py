"""transformers' continuous batching as its `generate_batch` runs it, the adapter merged; each row's answer ends on its
own, and another row takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weitiao.bench.hf_generate import FILLER, HfGenerate

NO_ID = -1
"""An id that ends no answer."""
PATIENCE = 1.0
"""Seconds between two looks at whether it still runs."""


class HfGenerateBatch(HfGenerate):
    most = 1024

    @classmethod
    def absent(cls, device: str) -> str | None:
        from transformers import GenerationMixin

        if not hasattr(GenerationMixin, "continuous_batching_context_manager"):
            return "this transformers has no continuous batching"
        return None if device == "cuda" else "left out: it is made for CUDA"

    def answer(self, members: Sequence[int]) -> None:
        """`generate_batch` itself would have one length for all rows."""
        with self._manager(members) as manager:
            for at in members:
                manager.add_request(list(self.questions.prompts[at]), max_new_tokens=self.questions.answers[at])
            left = len(members)
            while left:
                result = manager.get_result(timeout=PATIENCE)
                if result is None and not manager.is_running():
                    raise RuntimeError("continuous batching ended before its rows did")
                if result is not None and result.is_finished():
                    if result.error is not None:
                        raise RuntimeError(f"continuous batching: {result.error}")
                    left -= 1

    def _manager(self, members: Sequence[int]) -> Any:
        from transformers import GenerationConfig

        longest = max(self.questions.answers[at] for at in members)
        config = GenerationConfig(
            do_sample=False, max_new_tokens=longest, eos_token_id=NO_ID, pad_token_id=FILLER, use_cache=True
        )
        # Its cache and graphs stay for the next call.
        return self.model.continuous_batching_context_manager(
            generation_config=config, block=True, timeout=5, persistent_manager=True
        )


ANSWERER = HfGenerateBatch
