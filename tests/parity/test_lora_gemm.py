"""A linear layer with its adapter, computed together, is what PEFT computes: the same output and the same gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from runs import lines, lively_model, run_config, trained
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine.fast_layer import FastDecoder, unfit
from weitiao.engine.forward import Forward
from weitiao.engine.lora_gemm import _LoraGroup, use_lora_gemm


def both(folder: Path, dropout: float = 0.0):
    ours, theirs = lora_model(folder), lora_model(folder)
    for model in (ours, theirs):
        for layer in model.modules():
            if isinstance(layer, LoraLayer) and dropout:
                layer.lora_dropout["default"] = torch.nn.Dropout(dropout)
    assert use_lora_gemm(ours)
    return ours, theirs


def step(model, ids: torch.Tensor):
    model.zero_grad()
    torch.manual_seed(3)
    logits = model(input_ids=ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:])
    loss.backward()
    return logits.detach(), gradients(model)


IDS = torch.randint(0, 500, (1, 60), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", ["qwen2", "glm4", "qwen2_vl"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_output_and_gradients(family: str, recompute: bool, request: pytest.FixtureRequest) -> None:
    ours, theirs = both(request.getfixturevalue(f"{family}_folder"))
    if recompute:
        ours.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        ours.train()
    found, wanted = step(ours, IDS), step(theirs, IDS)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)
    error, name = worst_error(found[1], wanted[1])
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def test_after_an_update_the_new_weights_count(qwen2_folder: Path) -> None:
    ours, theirs = both(qwen2_folder)
    for model in (ours, theirs):
        step(model, IDS)
        with torch.no_grad():
            for _, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(parameter.grad, alpha=-0.1)
    error, name = worst_error(step(ours, IDS)[1], step(theirs, IDS)[1])
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def test_prediction_before_training(qwen2_folder: Path) -> None:
    """What was cast in inference mode is no obstacle to a gradient."""
    ours, theirs = (model.to(torch.bfloat16) for model in both(qwen2_folder))
    for model in (ours, theirs):
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
    with torch.inference_mode():
        ours(input_ids=IDS)
    found, wanted = step(ours, IDS), step(theirs, IDS)
    assert all(gradient.dtype == torch.float32 for gradient in found[1].values())
    assert worst_error(found[1], wanted[1])[0] < 0.1


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["k_proj", "up_proj", "o_proj"], ["down_proj"]])
def test_adapters_on_some_of_a_group(qwen2_folder: Path, targets: list[str]) -> None:
    ours, theirs = (lora_model(qwen2_folder, targets=targets) for _ in range(2))
    batch = packed_batch(Pack(tuple(range(5)), (PackRow(tuple(range(20, 60)), (30, 31, 39), (1, 2, 3)),)))
    found = []
    for model, fast in ((ours, True), (theirs, False)):
        forward = Forward(model.get_base_model(), fast=fast)
        assert (forward.fast is not None) == fast
        forward.loss(batch).backward()
        found.append(gradients(model))
    error, name = worst_error(*found)
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def test_a_disabled_adapter_does_nothing(qwen2_folder: Path) -> None:
    ours, theirs = both(qwen2_folder)
    with ours.disable_adapter(), theirs.disable_adapter(), torch.no_grad():
        assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("scaling", [1.0, 0.7])
def test_a_group_by_finite_differences(rate: float, scaling: float) -> None:
    """With the mask held still by the seed, the gradient is that of the function."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((2, 5, 6), (7, 6), (7,), (3, 6), (3, 6), (4, 3), (3, 3))
    x, weight, bias, *parts = (torch.randn(size, generator=draw, dtype=torch.float64) for size in sizes)

    def group(x: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        a1, a2, *bs = (part.detach() for part in parts)
        return _LoraGroup.apply(x, weight, bias, scaling, rate, [4, 3], [0, 1], torch.cat([a1, a2]), *bs, *parts)

    inputs = [value.requires_grad_() for value in (x, *parts)]
    assert torch.autograd.gradcheck(group, inputs)
    a1, a2, b1, b2 = parts
    plain = torch.nn.functional.linear(x, weight, bias) + scaling * torch.cat([x @ a1.T @ b1.T, x @ a2.T @ b2.T], -1)
    assert torch.allclose(group(*inputs), plain) == (rate == 0)


def test_weights_laid_together_stay_the_modules_own(qwen2_folder: Path) -> None:
    model = lora_model(qwen2_folder).get_base_model()
    layer = model.get_decoder().layers[0]
    before = {name: value.clone() for name, value in layer.named_parameters()}
    first, again = (FastDecoder(model.get_decoder()).layers[0].qkv for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in layer.named_parameters())
    assert first.weight.data_ptr() == again.weight.data_ptr() == layer.self_attn.q_proj.base_layer.weight.data_ptr()
    with torch.no_grad():
        layer.self_attn.v_proj.base_layer.weight.fill_(3.0)
    assert first.weight[-1, 0] == 3.0
    model.to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="moved or copied"):
        first.check()


def test_why_a_decoder_is_left_to_transformers(qwen2_folder: Path) -> None:
    def decoder(targets: list[str]):
        return lora_model(qwen2_folder, targets=targets).get_base_model().get_decoder()

    assert unfit(decoder(["q_proj", "k_proj", "v_proj", "down_proj"])) is None
    assert unfit(decoder(["q_proj", "v_proj", "up_proj"])) is None
    body = decoder(["o_proj"])
    body.layers[1].self_attn.q_proj._hf_hook = object()
    assert "spread over cards" in str(unfit(body))
    del body.layers[1].self_attn.q_proj._hf_hook
    body.config.hidden_act = "gelu"
    assert "gelu" in str(unfit(body))
    assert "Linear is not known" in str(unfit(torch.nn.Linear(2, 2)))


def test_dropout_keeps_the_mean(qwen2_folder: Path) -> None:
    ours, _ = both(qwen2_folder, dropout=0.3)
    layer = next(module for module in ours.modules() if isinstance(module, LoraLayer))
    x = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        calm = layer.eval()(x)
        layer.train()
        mean = torch.stack([layer(x) for _ in range(4000)]).mean(0)
        spread = layer(x) - calm
    assert spread.abs().max() > 0.01
    torch.testing.assert_close(mean, calm, rtol=0, atol=float(spread.abs().max()) / 8)


def test_what_does_not_fit_is_left_to_peft(qwen2_folder: Path) -> None:
    model = lora_model(qwen2_folder)
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    layer.base_layer._hf_hook = object()
    assert not use_lora_gemm(model)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_learns_the_same_either_way(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, dtype: str
) -> None:
    """Whole steps with the optimizer: what was computed with before an update is not computed with behind it."""
    model = lively_model(tmp_path / "model", qwen2_folder)
    losses = []
    for at, (fast, gemm) in enumerate(((True, True), (False, True), (False, False))):
        told = f"run.name=run-{at}", f"engine.fast_layer={fast}", f"engine.lora_gemm={gemm}", f"model.dtype={dtype}"
        run = trained(run_config(tmp_path, model, classification_file, *told))
        losses.append([line["loss"] for line in lines(run / "log.jsonl") if "loss" in line])
    for ours in losses[:2]:
        assert ours == pytest.approx(losses[2], rel=1e-4 if dtype == "float32" else 0.05)
    assert losses[2][-1] < losses[2][0] / 2
