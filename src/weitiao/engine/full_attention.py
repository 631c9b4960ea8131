"""Attention of a vision tower, in which every patch of an image sees every other."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


def full_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Sequences laid end to end, in each of which every token sees every other: [1, H, T, D] → [1, T, H, D].

    cu_seq_lens_q: int [sequences + 1], where they begin and end. Of a vision tower, an image or a window is a sequence.
    """
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        starts = cu_seq_lens_q.to(torch.int32)
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        out: Any = varlen_attn(q, k, v, starts, starts, max_length_q, max_length_q, scale=scaling)
        return out[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    if len(set(lengths)) == 1:
        q, k, v = (x[0].unflatten(1, (len(lengths), -1)).transpose(0, 1) for x in (query, key, value))
        same = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        return same.transpose(1, 2).flatten(0, 1)[None], None
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    apart = [F.scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts]
    return torch.cat(apart, dim=2).transpose(1, 2), None
