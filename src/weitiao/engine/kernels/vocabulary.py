"""Logits over the whole vocabulary: the loss and its gradient, their log-sum-exp, and the token that is chosen."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from weitiao.engine.kernels.shapes import joined

VOCABULARY = 4096
"""Logits that a program holds at a time."""


@triton.jit
def _log_sum(here, vocabulary, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of a row of logits."""
    at = tl.arange(0, BLOCK)
    top, total = tl.full((BLOCK,), -1e30, tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        value = tl.load(here + start + at, start + at < vocabulary, -1e30).to(tl.float32)
        higher = tl.maximum(top, value)
        total = total * tl.exp(top - higher) + tl.exp(value - higher)
        top = higher
    highest = tl.max(top)
    return highest + tl.log(tl.sum(total * tl.exp(top - highest)))


@triton.jit
def _log_sums(logits, sums, vocabulary, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    tl.store(sums + row, _log_sum(logits + row * stride, vocabulary, BLOCK))


def log_sums(logits: torch.Tensor) -> torch.Tensor:
    logits = joined(logits)
    sums = logits.new_empty(len(logits), dtype=torch.float32)
    _log_sums[(len(logits),)](logits, sums, logits.shape[1], logits.stride(0), VOCABULARY, num_warps=8)
    return sums


@triton.jit
def _cross_entropy(logits, labels, losses, vocabulary, ignored, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    here, label = logits + row * vocabulary, tl.load(labels + row)
    counted = label != ignored
    # Before the sums below, in which all threads wait for each other: it will be written over.
    wanted = tl.load(here + label, counted, 0.0).to(tl.float32)
    log_sum = _log_sum(here, vocabulary, BLOCK)
    tl.store(losses + row, tl.where(counted, log_sum - wanted, 0.0))
    for start in range(0, vocabulary, BLOCK):
        inside = start + at < vocabulary
        value = tl.load(here + start + at, inside, -1e30).to(tl.float32)
        share = tl.exp(value - log_sum) - tl.where(start + at == label, 1.0, 0.0)
        tl.store(here + start + at, tl.where(counted, share, 0.0).to(logits.dtype.element_ty), inside)


def cross_entropy_(logits: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    losses = logits.new_empty(len(labels), dtype=torch.float32)
    _cross_entropy[(len(labels),)](logits, labels, losses, logits.shape[1], ignored, VOCABULARY, num_warps=8)
    return losses


@triton.jit
def _chosen(logits, allowed, tokens, chances, vocabulary, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    here, words = logits + row * vocabulary, allowed + row * stride
    top, total = tl.full((BLOCK,), -1e30, tl.float32), tl.zeros((BLOCK,), tl.float32)
    best = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, vocabulary, BLOCK):
        token = start + at
        inside = token < vocabulary
        may = (tl.load(words + token // 32, inside, 0) >> (token % 32)) & 1
        value = tl.where(may == 1, tl.load(here + token, inside, -1e30).to(tl.float32), -1e30)
        higher = tl.maximum(top, value)
        total = total * tl.exp(top - higher) + tl.where(may == 1, tl.exp(value - higher), 0.0)
        best = tl.where(value > top, token, best)
        top = higher
    highest = tl.max(top)
    tl.store(chances + row, -tl.log(tl.sum(total * tl.exp(top - highest))))
    # Of equal ones the first, whatever the block.
    tl.store(tokens + row, tl.min(tl.where(top == highest, best, vocabulary)).to(tl.int64))


def chosen(logits: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = joined(logits)
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    chances = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    stride = allowed.stride(0) if len(allowed) > 1 else 0
    _chosen[(len(logits),)](logits, allowed, tokens, chances, logits.shape[1], stride, VOCABULARY, num_warps=8)
    return tokens, chances
