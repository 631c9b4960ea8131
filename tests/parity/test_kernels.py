"""The Triton kernels compute what torch does: through Triton's interpreter where there is no card."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from parity.by_kernels import with_kernels
from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import kernels, plain
from weitiao.engine.attention_plan import AttentionPlan
from weitiao.engine.split_attention import Heads, split_layout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *size: torch.randn(*size, generator=generator).to(DEVICE)


def gapped(x: torch.Tensor) -> torch.Tensor:
    """The same with gaps of NaN between its rows."""
    wide = torch.full((len(x), x.shape[1] + 5), float("nan"), device=x.device, dtype=x.dtype)
    wide[:, : x.shape[1]] = x
    return wide[:, : x.shape[1]]


def assert_same(found, wanted) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 96, 1000])
@pytest.mark.parametrize("both", [True, False])
def test_sum_and_norm(draw, width: int, both: bool) -> None:
    x, delta, weight = draw(4, width), draw(4, width) if both else None, draw(width)
    ours, theirs = (module.add_norm(x, delta, weight, 1e-3, 32) for module in (kernels, plain))
    assert ours[1].shape == (4, width + 32)
    for at in (0, 2):
        assert_same(ours[at], theirs[at])
    assert_same(ours[1][:, :width], theirs[1][:, :width])
    g, more = gapped(draw(4, width)), gapped(draw(4, width)) if both else None
    found, wanted = (module.add_norm_backward(g, more, theirs[0], weight, theirs[2]) for module in (kernels, plain))
    assert_same(found, wanted)


def test_the_gradient_of_the_norm_is_torchs(draw) -> None:
    x, weight, g, more = draw(3, 40).requires_grad_(), draw(40), draw(3, 40), draw(3, 40)
    (torch.nn.functional.rms_norm(x, (40,), weight, 1e-3) * g + x * more).sum().backward()
    _, _, rstd = plain.add_norm(x.detach(), None, weight, 1e-3, 0)
    assert_same(plain.add_norm_backward(g, more, x.detach(), weight, rstd), x.grad)


@pytest.mark.parametrize(("rows", "inner"), [(1, 1), (3, 96), (5, 1024), (2, 2500)])
def test_swiglu(draw, rows: int, inner: int) -> None:
    both, g = draw(rows, 2 * inner), gapped(draw(rows, inner))
    found, wanted = (module.swiglu(both, 32) for module in (kernels, plain))
    assert found.shape == wanted.shape == (rows, inner + 32)
    assert_same(found[:, :inner], wanted[:, :inner])
    found, wanted = (module.swiglu_backward(g, both) for module in (kernels, plain))
    assert_same(found, wanted)
    leaf = both.clone().requires_grad_()
    gate, up = leaf.chunk(2, -1)
    (torch.nn.functional.silu(gate) * up * g).sum().backward()
    assert_same(wanted, leaf.grad)


@pytest.mark.parametrize(("rows", "width", "pad"), [(1, 40, 16), (37, 600, 48), (5, 300, 192), (20, 40, 768)])
def test_low_rank(draw, rows: int, width: int, pad: int) -> None:
    x, a = gapped(draw(rows, width).half()), draw(pad, width).half()
    found, wanted = (torch.full((rows, pad + 3), 9.0).half().to(DEVICE) for _ in range(2))
    for module, out in ((kernels, found), (plain, wanted)):
        module.low_rank_(x, a, out[:, :pad])
    torch.testing.assert_close(found, wanted, rtol=2**-9, atol=2e-2)
    alone = torch.empty(1, pad, dtype=torch.float16, device=DEVICE)
    kernels.low_rank_(x[-1:], a, alone)
    assert pad > 512 or torch.equal(alone[0], found[-1, :pad])


@pytest.mark.parametrize("module", [kernels, plain], ids=["triton", "torch"])
def test_halves(draw, module: ModuleType) -> None:
    x = gapped(draw(5, 1100) * torch.logspace(-6, 6, 1100, device=DEVICE))
    both = module.halves(x, torch.bfloat16)
    assert both.shape == (2, 5, 1100)
    assert both.dtype == torch.bfloat16
    high, low = both.double()
    # Triton's interpreter cuts where a card rounds.
    assert ((high + low - x.double()).abs() <= x.double().abs() * 2**-14).all()
    assert ((high - x.double()).abs() > x.double().abs() * 2**-12).any()


@pytest.mark.parametrize(("rows", "inner"), [(3, 20), (1030, 130)])
@pytest.mark.parametrize("up", [0, 4])
def test_gradient_of_the_mlp(draw, rows: int, inner: int, up: int) -> None:
    both, g = draw(rows, 2 * inner), gapped(draw(rows, inner + 32))
    told = (g, both, draw(32, inner), gapped(draw(rows, 32)), 4, up, (0.0, torch.tensor(5, device=DEVICE), 0))
    ours, theirs = (module.mlp_backward(*told) for module in (kernels, plain))
    assert ours[2].shape == (2, inner, 4)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_gradient_of_the_mlp_with_dropout(draw) -> None:
    """The kernel's own mask is that of `dropped`."""
    both, g, a, inner = draw(40, 2 * 130), draw(40, 130 + 32), draw(32, 130), draw(40, 32)
    noise = (0.3, torch.tensor(5, device=DEVICE), 2)
    found = kernels.mlp_backward(g, both, a, inner, 4, 4, noise)
    share, seen = (kernels.dropped(x, *noise) for x in (g[:, 130:] @ a, plain.swiglu(both, 0)))
    wanted = plain.swiglu_backward(g[:, :130] + share, both)
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found[1], g[:, 130:].T @ seen, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("tokens", "heads", "size", "turned"), [(1, 1, 2, 2), (7, 3, 16, 8), (4, 14, 128, 128)])
def test_rotation(draw, tokens: int, heads: int, size: int, turned: int, interleaved: bool) -> None:
    angles = draw(tokens, turned)
    found, wanted = (x[:, :heads] for x in draw(2, tokens, heads + 2, size))
    before = draw(tokens, heads, size)
    for module, x in ((kernels, found), (plain, wanted)):
        x.copy_(before)
        module.rotate_(x, angles.cos(), angles.sin(), interleaved, 1)
    assert_same(found, wanted)
    assert not torch.allclose(found, before)
    assert_same(found.norm(dim=-1), before.norm(dim=-1))
    kernels.rotate_(found, angles.cos(), angles.sin(), interleaved, -1)
    assert_same(found, before)


def test_two_parts_of_an_attention(draw) -> None:
    first, second, one, two = draw(11, 3, 8), draw(8, 3, 8), draw(3, 11), draw(2, 3, 4)
    results = []
    for module in (kernels, plain):
        out, *lses = module.merge(first, one, second, two, 32)
        results.append((out[:, :24], *lses))
    for found, wanted in zip(*results, strict=True):
        assert_same(found, wanted)


@pytest.mark.parametrize("module", [kernels, plain], ids=["triton", "torch"])
def test_dropout(draw, module: ModuleType) -> None:
    """Its share, its mean, a mask that depends on all that it should and comes again."""
    x, rate, seed = gapped(draw(300, 400)), 0.1, torch.tensor(7 * 10**12, device=DEVICE)
    found = module.dropped(x, rate, seed, 3)
    lost = found == 0
    assert abs(lost.float().mean() - rate) < 4 * (rate * (1 - rate) / x.numel()) ** 0.5
    assert_same(found[~lost], x[~lost] / (1 - rate))
    for axis, size in ((0, 300), (1, 400)):  # no row and no column stands out
        assert (lost.float().mean(axis) - rate).abs().max() < 5 * (rate * (1 - rate) / size) ** 0.5
    assert torch.equal(found, module.dropped(x, rate, seed, 3))
    more, out = draw(300, 400), gapped(draw(300, 400))
    wanted = out + torch.where(lost, 0.0, more / (1 - rate))
    module.add_dropped_(out, more, rate, seed, 3)
    assert_same(out, wanted)
    for other in (module.dropped(x, rate, seed + 1, 3), module.dropped(x, rate, seed, 4)):
        both = ((other == 0) & lost).float().mean()
        assert abs(both - rate**2) < 5 * (rate**2 / x.numel()) ** 0.5  # independent


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize(("size", "turned"), [(16, 16), (12, 4)])
def test_gradient_of_the_heads(draw, interleaved: bool, prefix: int, size: int, turned: int) -> None:
    angles = draw(7, turned)
    own = tuple(draw(7, heads, size) for heads in (5, 2, 2))
    shared = (draw(7 - prefix, 5, size), draw(prefix, 2, size), draw(prefix, 2, size)) if prefix else None
    found, wanted = (
        module.heads_gradient(own, shared, angles.cos(), angles.sin(), interleaved) for module in (kernels, plain)
    )
    assert found.shape == (7, 9 * size)
    assert_same(found, wanted)


def test_copied_rows(draw) -> None:
    sources = [draw(rows, 3) for rows in (1, 200, 40)]
    results = []
    for module in (kernels, plain):
        buffer = torch.zeros(300, 8, dtype=torch.bfloat16, device=DEVICE)
        targets = [buffer[:1, :3], buffer[1:201, 2:5], buffer[250:290, 4:7]]
        copy = module.row_copier(targets, sources)
        sources[0].add_(1)
        copy()
        results.append(buffer)
        sources[0].sub_(1)
    torch.testing.assert_close(*results, rtol=2**-7, atol=0)
    assert results[0].count_nonzero() == 3 * 241


@pytest.mark.parametrize("size", [3, 5000])
def test_cross_entropy(draw, size: int) -> None:
    logits, labels = 4 * draw(5, size), torch.tensor([0, -100, 2, size - 1, -100], device=DEVICE)
    leaf = logits.clone().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(leaf, labels, reduction="none")
    wanted.sum().backward()
    for module in (kernels, plain):
        given = logits.clone()
        assert_same(module.cross_entropy_(given, labels, -100), wanted.detach())
        assert_same(given, leaf.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [3, 5000])
def test_log_sums(dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(0)
    logits = (4 * torch.randn(300, size)).to(dtype).to(DEVICE)[::60]
    for module in (kernels, plain):
        assert torch.allclose(module.log_sums(logits).double(), logits.double().logsumexp(-1), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "glm4", "glm4_0414", "qwen2_vl"])
def test_a_model(family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradients of a pack, with the kernels, their attention among them, and without."""
    rows = tuple(PackRow(tuple(range(5 + at, 21 + at)), (9, 10, 15), (1, 2, 3)) for at in range(4))
    found = []
    called = []
    right = kernels.row_attention.forward
    monkeypatch.setattr(kernels.row_attention, "forward", lambda *args: called.append(1) or right(*args))
    for module in (kernels, plain):
        model = lora_model(request.getfixturevalue(f"{family}_folder")).to(DEVICE)
        loss = with_kernels(model, module).loss(packed_batch(Pack(tuple(range(6)), rows)))
        loss.backward()
        found.append((loss.item(), gradients(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=TOLERANCE)
    error, name = worst_error(found[0][1], found[1][1])
    assert error <= TOLERANCE, f"{name}: {error:.2e}"
    assert len(called) == 2  # layers


def test_sixteen_bits(draw) -> None:
    x = draw(4, 2 * 96)
    exact = kernels.swiglu(x.to(torch.bfloat16).float(), 0)
    found = kernels.swiglu(x.to(torch.bfloat16), 0)
    assert found.dtype == torch.bfloat16
    # One rounding; Triton's interpreter cuts where a card rounds.
    torch.testing.assert_close(found.float(), exact, rtol=2**-7, atol=0)


@pytest.mark.parametrize("prefix", [0, 1, 70])
@pytest.mark.parametrize(("query", "key"), [(4, 2), (3, 3)])
def test_attention_of_short_rows(draw, prefix: int, query: int, key: int) -> None:
    """Beside the whole matrix of scores, with a table that has unused places."""
    lengths, size, scaling = (130, 1, 64, 5), 16, 0.3
    total = prefix + sum(lengths)
    qkv, g = draw(total, (query + 2 * key) * size), gapped(draw(total, query * size))
    blocks = split_layout(prefix, lengths, sequences=9).blocks.to(DEVICE)
    told = (blocks, prefix, (query, key, size), scaling)
    out, lse = kernels.row_attention.forward(qkv, *told, 32)
    found = kernels.row_attention.backward(g, qkv, out, lse, *told)

    seen = torch.zeros(total, total, dtype=torch.bool, device=DEVICE)
    seen[prefix:, :prefix] = True
    start = 0
    for length in [prefix, *lengths]:
        seen[start : start + length, start : start + length] = True
        start += length
    seen &= torch.ones_like(seen).tril()
    leaf = qkv.clone().requires_grad_()
    q, k, v = leaf.unflatten(1, (-1, size)).split([query, key, key], dim=1)
    k, v = (x.repeat_interleave(query // key, dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * scaling
    wanted = torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -float("inf")).softmax(-1), v).flatten(1)
    (wanted * g).sum().backward()
    assert out.shape == (total, query * size + 32)
    torch.testing.assert_close(out[:, : query * size], wanted.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@given(
    prefix=st.sampled_from([0, 3, 35]),
    back=st.lists(
        st.builds(
            lambda prompt, tree: [0] * prompt + tree,
            st.integers(1, 140),
            st.lists(st.integers(0, 200), max_size=90),
        ),
        min_size=1,
        max_size=3,
    ),
    size=st.sampled_from([16, 32, 64, 128]),
    heads=st.sampled_from([(4, 2), (3, 1), (2, 2)]),
    step=st.sampled_from([16, 64]),
    seed=st.integers(0, 9),
)
@settings(max_examples=50)
def test_attention_of_trees(
    prefix: int, back: list[list[int]], size: int, heads: tuple[int, int], step: int, seed: int
) -> None:
    """Beside the whole matrix of scores. back: how far before the token in front of each one its parent stands; a row
    may have several beginnings, of which no one sees another. step: as in float32, and as in 16 bits."""
    parents = [tuple(max(at - 1 - n, -1) for at, n in enumerate(row)) for row in back]
    (query, key), scaling = heads, size**-0.5
    layout = split_layout(prefix, [len(row) for row in parents], parents=parents)
    total = prefix + sum(map(len, parents))
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(total, (query + 2 * key) * size, generator=generator).to(DEVICE)
    blocks, trees = layout.blocks.to(DEVICE), layout.trees.to(DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels.row_attention, "tile", lambda dtype, cores: (step, 4))
        out, lse = kernels.row_attention.forward(qkv, blocks, prefix, (query, key, size), scaling, 0, trees)

    seen = torch.zeros(total, total, dtype=torch.bool)
    seen[:prefix, :prefix] = torch.ones(prefix, prefix).tril()
    start = prefix
    for row in parents:
        for at, parent in enumerate(row):
            seen[start + at] = seen[start + parent] if parent >= 0 else False
            seen[start + at, :prefix] = seen[start + at, start + at] = True
        start += len(row)
    q, k, v = qkv.double().cpu().unflatten(1, (-1, size)).split([query, key, key], dim=1)
    k, v = (x.repeat_interleave(query // key, dim=1) for x in (k, v))
    scores = (torch.einsum("qhd,khd->hqk", q, k) * scaling).masked_fill(~seen, -float("inf"))
    wanted = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
    torch.testing.assert_close(out.double().cpu(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.double().cpu() * math.log(2), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)


def test_a_long_tree(draw) -> None:
    """Behind a prompt of 600 tokens, beside the whole matrix of scores."""
    prefix, lengths, device = 70, (640, 90), torch.device(DEVICE)
    parents = (*range(-1, 599), *(599 + (at % 10 if at >= 10 else 0) for at in range(40)))
    trees = (parents, tuple(range(-1, 89)))
    heads, layout = Heads(2, 1, 16, 0.25, False), split_layout(prefix, lengths, parents=trees)
    qkv = draw(prefix + sum(lengths), 4 * 16)
    told = (layout.blocks.to(DEVICE), prefix, (2, 1, 16), heads.scaling, 0, layout.trees.to(DEVICE))
    found, _ = kernels.row_attention.forward(qkv, *told)
    plan = AttentionPlan(prefix, lengths, trees, device, "dense")
    q, k, v = (part.transpose(0, 1)[None] for part in heads.parts(qkv))
    assert_same(found, plan.attend(q, k, v, heads.scaling)[0].flatten(1))


@pytest.mark.parametrize("prefix", [0, 35])
def test_a_chain_is_a_row(draw, prefix: int) -> None:
    """To the last bit."""
    lengths = (130, 1, 64, 5)
    qkv = draw(prefix + sum(lengths), 4 * 16)
    told = (split_layout(prefix, lengths).blocks.to(DEVICE), prefix, (2, 1, 16), 0.3, 0)
    chains = split_layout(prefix, lengths, parents=[tuple(range(-1, n - 1)) for n in lengths])
    found = kernels.row_attention.forward(qkv, *told, chains.trees.to(DEVICE))
    for ours, theirs in zip(found, kernels.row_attention.forward(qkv, *told), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("step", [16, 64])
@pytest.mark.parametrize("tree", [False, True])
def test_a_row_does_not_tell_what_it_shares(draw, tree: bool, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: alone or beside others, all of it its own or the greater part a prefix."""
    monkeypatch.setattr(kernels.row_attention, "tile", lambda dtype, cores: (step, 4))
    # Where kernels are interpreted: some BLAS libraries sum a row in another order at another place in a tile.
    monkeypatch.setattr(np, "matmul", lambda a, b, dtype=None: (a[:, :, None] * b).sum(axis=1, dtype=dtype))
    whole, other = draw(200, 4 * 16), draw(30, 4 * 16)

    def answered(prefix: int, beside: bool) -> torch.Tensor:
        lengths, qkv = [len(whole) - prefix], whole
        if beside:
            lengths, qkv = [30, *lengths], torch.cat([whole[:prefix], other, whole[prefix:]])
        # Behind place 149 two branches of 25 tokens.
        parents = [tuple(at - 1 if at != 175 - prefix else 149 - prefix for at in range(n)) for n in lengths]
        layout = split_layout(prefix, lengths, parents=parents if tree else ())
        trees = None if layout.trees is None else layout.trees.to(DEVICE)
        return kernels.row_attention.forward(qkv, layout.blocks.to(DEVICE), prefix, (2, 1, 16), 0.3, 0, trees)[0][-50:]

    alone = answered(0, False)
    for prefix in (1, 35, 64, 100, 149):
        for beside in (False, True):
            assert torch.equal(answered(prefix, beside), alone), (prefix, beside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocabulary", [70, 9000])
@pytest.mark.parametrize("alike", [False, True], ids=["each its own", "all alike"])
def test_the_likeliest_of_those_allowed(dtype: torch.dtype, vocabulary: int, alike: bool) -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(5, vocabulary)).to(dtype).to(DEVICE)
    words = torch.randint(-(2**31), 2**31, (1 if alike else 5, -(-vocabulary // 32)), dtype=torch.int32, device=DEVICE)
    bits = torch.from_numpy(np.unpackbits(words.cpu().numpy().view(np.uint8), axis=1, bitorder="little"))
    allowed = bits[:, :vocabulary].bool().to(DEVICE)
    logs = logits.double().masked_fill(~allowed, -torch.inf).log_softmax(-1)
    for module in (kernels, plain):
        tokens, chances = module.chosen(logits, words)
        assert tokens.tolist() == logs.argmax(-1).tolist()
        assert torch.allclose(chances.double(), logs.amax(-1), atol=1e-5)
