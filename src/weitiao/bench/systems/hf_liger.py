"""`hf_batched` with Liger's kernels for norms, SwiGLU and rotation, the last for all models of its process. Its fused
loss stays off, for it computes every position."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from weitiao.bench.systems.hf_batched import HfBatched


class HfLiger(HfBatched):
    own_process = True

    @classmethod
    def absent(cls, model_type: str) -> str | None:
        if importlib.util.find_spec("liger_kernel") is None:
            return "not installed (liger-kernel)"
        if not torch.cuda.is_available():
            return "needs CUDA"
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

        # It would pass over an unknown model in silence.
        return None if model_type in MODEL_TYPE_TO_APPLY_LIGER_FN else f"Liger has no kernels for {model_type}"

    def change(self, base: Any) -> None:
        from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(base, rope=True, cross_entropy=False, fused_linear_cross_entropy=False)


SYSTEM = HfLiger
