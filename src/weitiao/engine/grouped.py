"""Attention whose query heads share keys: those of a key stand as queries beside each other, so that no key is copied
for each of them."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def grouped_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scaling: float
) -> torch.Tensor:
    """query [B, H, n, D]; key, value [B, Hk, K, D]; bias as `grouped_bias` makes it → [B, H, n, D]."""
    heads, count = key.shape[1], query.shape[2]
    together = query.unflatten(1, (heads, -1)).flatten(2, 3)
    out = F.scaled_dot_product_attention(together, key, value, attn_mask=bias, scale=scaling)
    return out.unflatten(2, (-1, count)).flatten(1, 2)


def grouped_bias(seen: torch.Tensor, dtype: torch.dtype, groups: int) -> torch.Tensor:
    """bool [..., n, K], True where a query looks → [..., groups × n, K], 0 there. groups: query heads of a key."""
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
    return bias.repeat(*[1] * (seen.ndim - 2), groups, 1)
