"""Triton kernels for what torch computes in several: sum and norm, SwiGLU, the rotation of heads, two parts of an
attention, dropout, numbers in halves, the cross-entropy and its gradient; and for what it computes in another order
where rows are few.

`plain.py` has the same functions in torch, with what they take and give. Here they compute in float32 and round once,
where torch rounds to 16 bits behind each of its own. The shapes of programs are fixed and never tuned: the same
machine, the same bits. Numbers that change from pack to pack or from layer to layer are `do_not_specialize`: Triton
would build a kernel anew for 1, for multiples of 16 and for the rest.
"""

from weitiao.engine.kernels import row_attention, slot_attention
from weitiao.engine.kernels.copies import row_copier
from weitiao.engine.kernels.dropout import add_dropped_, dropped
from weitiao.engine.kernels.heads import heads_gradient, merge, rotate_
from weitiao.engine.kernels.low_rank import low_rank_
from weitiao.engine.kernels.mlp import mlp_backward, swiglu, swiglu_backward
from weitiao.engine.kernels.norm import add_norm, add_norm_backward
from weitiao.engine.kernels.rounding import halves
from weitiao.engine.kernels.vocabulary import chosen, cross_entropy_, log_sums

__all__ = [
    "add_dropped_",
    "add_norm",
    "add_norm_backward",
    "chosen",
    "cross_entropy_",
    "dropped",
    "halves",
    "heads_gradient",
    "log_sums",
    "low_rank_",
    "merge",
    "mlp_backward",
    "rotate_",
    "row_attention",
    "row_copier",
    "slot_attention",
    "swiglu",
    "swiglu_backward",
]
