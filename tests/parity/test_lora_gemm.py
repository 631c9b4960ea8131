"""A linear layer with its adapter, computed together, is what PEFT computes: the same output and the same gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional as F

from parity.oracle import TOLERANCE, gradients, lora_model, worst_error
from runs import lines, lively_model, run_config, trained
from weitiao.data.collate import packed_batch
from weitiao.data.pack import Pack, PackRow
from weitiao.engine import plain
from weitiao.engine.fast_layer import FastDecoder, unfit
from weitiao.engine.forward import Forward
from weitiao.engine.lora_gemm import FoldedMlp, LoraGroup, adapters_copied, foldable

BATCH = packed_batch(Pack(tuple(range(5)), (PackRow(tuple(range(20, 60)), (30, 31, 39), (1, 2, 3)),)))


def step(model, fast: bool):
    model.zero_grad()
    forward = Forward(model.get_base_model(), fast=fast)
    assert (forward.fast is not None) == fast
    torch.manual_seed(3)
    loss = forward.loss(BATCH)
    loss.backward()
    return loss.item(), gradients(model)


def test_after_an_update_the_new_weights_count(qwen2_folder: Path) -> None:
    ours, theirs = lora_model(qwen2_folder), lora_model(qwen2_folder)
    for model, fast in ((ours, True), (theirs, False)):
        step(model, fast)
        with torch.no_grad():
            for _, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(parameter.grad, alpha=-0.1)
    error, name = worst_error(step(ours, True)[1], step(theirs, False)[1])
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def test_prediction_before_training(qwen2_folder: Path) -> None:
    """What was copied in inference mode is no obstacle to a gradient; in 16 bits the adapters' stay float32."""
    ours, theirs = (lora_model(qwen2_folder).to(torch.bfloat16) for _ in range(2))
    for model in (ours, theirs):
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
    with torch.inference_mode():
        Forward(ours.get_base_model(), fast=True).loss(BATCH)
    found, wanted = step(ours, True), step(theirs, False)
    assert all(gradient.dtype == torch.float32 for gradient in found[1].values())
    assert worst_error(found[1], wanted[1])[0] < 0.1


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["k_proj", "up_proj", "o_proj"], ["down_proj"]])
def test_adapters_on_some_of_a_group(qwen2_folder: Path, targets: list[str]) -> None:
    ours, theirs = (lora_model(qwen2_folder, targets=targets) for _ in range(2))
    error, name = worst_error(step(ours, True)[1], step(theirs, False)[1])
    assert error <= TOLERANCE, f"{name}: {error:.2e}"


def test_a_disabled_adapter_does_nothing(qwen2_folder: Path) -> None:
    ours, theirs = lora_model(qwen2_folder), lora_model(qwen2_folder)
    losses = []
    for model, fast in ((ours, True), (theirs, False)):
        forward = Forward(model.get_base_model(), fast=fast)
        with model.disable_adapter(), torch.no_grad():
            losses.append(forward.loss(BATCH).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(step(ours, True)[0], rel=1e-3)


def group(rate: float, scaling: float, sizes=(4, 3), width: int = 5, rank: int = 2) -> LoraGroup:
    """Linear layers of float64 with adapters."""
    torch.manual_seed(0)
    frozen = nn.ModuleDict({f"linear{at}": nn.Linear(width, size) for at, size in enumerate(sizes)})
    config = LoraConfig(r=rank, lora_alpha=scaling * rank, lora_dropout=rate, target_modules=list(frozen))
    model = get_peft_model(frozen.requires_grad_(False), config).double().train()
    layers = [model.get_submodule(f"base_model.model.{name}") for name in frozen]
    for layer in layers:
        nn.init.normal_(layer.lora_B["default"].weight)
    return LoraGroup(layers)


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("scaling", [1.0, 0.7])
def test_a_group_by_finite_differences(rate: float, scaling: float) -> None:
    """While the seed is the same, so is the mask, and the gradient is that of the function."""
    made = group(rate, scaling)
    refresh = adapters_copied([made], plain)
    parts = made.parts

    def computed(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        refresh()
        return made(nn.functional.pad(x, (0, made.pad)))

    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(computed, [x, *parts])
    a1, a2, b1, b2 = parts
    base = nn.functional.linear(x, made.buffer[:, :5], made.bias)
    alone = base + scaling * torch.cat([x @ a1.T @ b1.T, x @ a2.T @ b2.T], -1)
    assert torch.allclose(computed(x), alone) == (rate == 0)


def test_weights_laid_together_stay_the_modules_own(qwen2_folder: Path) -> None:
    model = lora_model(qwen2_folder).get_base_model()
    layer = model.get_decoder().layers[0]
    before = {name: value.clone() for name, value in layer.named_parameters()}
    first, again = (FastDecoder(model.get_decoder()).layers[0].qkv for _ in range(2))
    assert all(torch.equal(before[name], value) for name, value in layer.named_parameters())
    assert first.buffer.data_ptr() == again.buffer.data_ptr() == layer.self_attn.q_proj.base_layer.weight.data_ptr()
    with torch.no_grad():
        layer.self_attn.v_proj.base_layer.weight.fill_(3.0)
    assert first.buffer[-1, 0] == 3.0
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


@pytest.mark.parametrize("again", [False, True], ids=["kept", "again"])
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("sizes", [(3, 3), (6,)], ids=["apart", "fused"])
def test_an_mlp_by_finite_differences(rate: float, again: bool, sizes: tuple[int, ...]) -> None:
    gate_up, down = group(rate, 0.7, sizes), group(rate, 1.3, (5,), width=3)
    down.place = 1
    assert foldable(gate_up, down)
    refresh = adapters_copied([gate_up, down], plain)
    parts = [*gate_up.parts, *down.parts]

    def computed(x: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        refresh()
        return FoldedMlp.apply(nn.functional.pad(x, (0, gate_up.pad)), gate_up, down, again, plain, True, *parts)

    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(computed, [x, *parts])
    refresh()
    gate, up = gate_up(nn.functional.pad(x, (0, gate_up.pad))).chunk(2, -1)
    alone = down(nn.functional.pad(nn.functional.silu(gate) * up, (0, down.pad)))
    torch.testing.assert_close(computed(x, *parts), alone)


def test_dropout_keeps_the_mean() -> None:
    made = group(0.3, 1.0)
    adapters_copied([made], plain)()
    x = torch.randn(6, 5, dtype=torch.float64)
    with torch.no_grad():
        noisy = torch.stack([made(nn.functional.pad(x, (0, made.pad))) for _ in range(4000) if made.seed.add_(1)])
        for layer in made.layers:
            layer.eval()
        calm = made(nn.functional.pad(x, (0, made.pad)))
    spread = (noisy[0] - calm).abs().max()
    assert spread > 0.01
    torch.testing.assert_close(noisy.mean(0), calm, rtol=0, atol=float(spread) / 8)


def test_layers_that_do_not_fit(qwen2_folder: Path) -> None:
    model = lora_model(qwen2_folder)
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    layer.base_layer._hf_hook = object()
    assert Forward(model.get_base_model(), fast=True).slow_because is not None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_learns_the_same_either_way(
    qwen2_folder: Path, classification_file: Path, tmp_path: Path, dtype: str
) -> None:
    """Whole steps with the optimizer: what was computed with before an update is not computed with behind it."""
    model = lively_model(tmp_path / "model", qwen2_folder)
    losses = []
    for fast in (True, False):
        told = f"run.name=run-{fast}", f"engine.fast_layer={fast}", f"model.dtype={dtype}"
        run = trained(run_config(tmp_path, model, classification_file, *told))
        losses.append([line["loss"] for line in lines(run / "log.jsonl") if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4 if dtype == "float32" else 0.05)
    assert losses[1][-1] < losses[1][0] / 2


def test_what_an_adapter_adds_is_not_rounded_away(qwen2_folder: Path) -> None:
    """An adapter that was updated once adds less than half of a bfloat16's last digit. PEFT adds it to a product that
    is rounded already, where it vanishes; in one product with the weights it counts, on the average over many."""
    torch.manual_seed(0)
    peft = get_peft_model(
        nn.Sequential(nn.Linear(256, 512, bias=False)).to(torch.bfloat16), LoraConfig(r=8, target_modules=["0"])
    )
    [layer] = [module for module in peft.modules() if isinstance(module, LoraLayer)]
    inputs = torch.randn(128, 256, dtype=torch.bfloat16)

    def outputs(b: float) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        signs = torch.randint(0, 2, layer.lora_B["default"].weight.shape, generator=generator) * 2.0 - 1
        with torch.no_grad():
            layer.lora_B["default"].weight.copy_(b * signs)
            group = LoraGroup([layer])
            adapters_copied([group], plain)()
            return group(F.pad(inputs, (0, group.pad))).double(), peft(inputs).double()

    b = 1e-4
    (ours, theirs), (ours_before, theirs_before) = outputs(b), outputs(0.0)
    a = layer.lora_A["default"].weight.detach().double()
    outputs(b)
    added = inputs.double() @ a.T @ layer.lora_B["default"].weight.detach().double().T * layer.scaling["default"]
    changes = ours - ours_before, theirs - theirs_before
    counted = [float((change * added).sum() / (added * added).sum()) for change in changes]
    assert counted[0] == pytest.approx(1, abs=0.1)
    assert counted[1] < 0.5
