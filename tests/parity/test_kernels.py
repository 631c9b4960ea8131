"""The Triton kernels compute what torch does: through Triton's interpreter where there is no card."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton")

from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import kernels
from weitiao.engine.fast_layer import FastDecoder, Rotate, Swiglu
from weitiao.engine.forward import Forward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def both(ours, theirs, x: torch.Tensor, *more: torch.Tensor):
    """Outputs and gradients of x for a random gradient, of each."""
    found = []
    for function in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = function.apply(leaf, *more)
        g = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        out.backward(g)
        found.append((out.detach(), leaf.grad))
    return found


@pytest.mark.parametrize(("rows", "inner"), [(1, 1), (3, 96), (5, 1024), (2, 2500)])
def test_swiglu(rows: int, inner: int) -> None:
    x = torch.randn(rows, 2 * inner, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    ours, theirs = both(kernels.Swiglu, Swiglu, x)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 1, 2), (7, 3, 16), (4, 14, 128)])
def test_rotation(tokens: int, heads: int, size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, heads + 2, size, generator=draw).to(DEVICE)
    cos, sin = (torch.randn(tokens, 1, size, generator=draw).to(DEVICE) for _ in range(2))
    ours, theirs = both(_Part(kernels.Rotate, heads), _Part(Rotate, heads), x, cos, sin)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


class _Part:
    """Applied to the first heads alone, which are a view with gaps between its rows."""

    def __init__(self, function, heads: int) -> None:
        self.function, self.heads = function, heads

    def apply(self, x, *more):
        return self.function.apply(x[:, : self.heads], *more)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "qwen2_vl"])
def test_a_model(family: str, request: pytest.FixtureRequest) -> None:
    """Loss and gradients of a pack, with the kernels and without."""
    rows = tuple(PackRow(tuple(range(5 + at, 17 + at)), (9, 10, 11), (1, 2, 3)) for at in range(3))
    found = []
    for triton in (True, False):
        model = lora_model(request.getfixturevalue(f"{family}_folder")).to(DEVICE)
        forward = Forward(model.get_base_model(), fast=True)
        forward.fast = FastDecoder(forward.body, triton)
        loss = forward.loss(packed_batch(Pack(tuple(range(6)), rows)))
        loss.backward()
        found.append((loss.item(), gradients(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=TOLERANCE)
    error, name = worst_error(found[0][1], found[1][1])
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def test_sixteen_bits() -> None:
    x = torch.randn(4, 2 * 96, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    exact = kernels.Swiglu.apply(x.to(torch.bfloat16).float())
    found = kernels.Swiglu.apply(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    # One rounding; Triton's interpreter cuts where a card rounds.
    torch.testing.assert_close(found.float(), exact, rtol=2**-7, atol=0)
