"""What a machine is, and how fast."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from weitiao.commands.arguments import AsJson

Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda where there is a card.")]
Shape = Annotated[
    str | None,
    typer.Option(
        help="Of the model: smollm2-135m, qwen2-1.5b, glm4-9b or tiny; by default qwen2-1.5b on cuda, "
        "smollm2-135m on a cpu."
    ),
]
Repeats = Annotated[int, typer.Option(min=1, help="Blocks of each system.")]


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what this machine is and what about it is to mend. That is driver, cards, torch, disk, hubs, versions."""
    from weitiao.doctor.findings import findings
    from weitiao.doctor.gather import gather
    from weitiao.doctor.text import as_json as json_of
    from weitiao.doctor.text import as_text

    facts = gather(offline)
    print((json_of if as_json else as_text)(facts, findings(facts)))


def bench_train(
    device: Device = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="ner, classification or documents; by default all of them on cuda, ner on a cpu."),
    ] = None,
    samples_per_step: Annotated[list[int] | None, typer.Option(min=1, help="By default 16 and 256.")] = None,
    shape: Shape = None,
    system: Annotated[
        list[str] | None,
        typer.Option(help="weitiao, tutorial, hf_batched, hf_liger or unsloth; by default all of them."),
    ] = None,
    repeats: Repeats = 3,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of a block.")] = 10,
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="On the adapters' input.")] = 0,
    curve: Annotated[int, typer.Option(min=0, help="Compare losses over so many steps, too.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Training steps of Weitiao beside other systems: same random weights, same random samples. Downloads nothing."""
    from weitiao.bench.request import asked
    from weitiao.tracking.screen import Screen

    request = asked(
        device,
        shape,
        profile or (),
        samples_per_step or (),
        system or (),
        repeats=repeats,
        seconds=seconds,
        dropout=dropout,
        curve=curve,
    )
    from weitiao.bench.train import bench_train as measure  # imports torch

    _show_bench(measure(request, Screen()), "train", as_json)


def bench_predict(
    device: Device = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="ner, classification or documents; by default classification and ner."),
    ] = None,
    shape: Shape = None,
    system: Annotated[
        list[str] | None,
        typer.Option(help="weitiao, tutorial, hf_batch or hf_generate_batch; by default all of them."),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="By default 4096 on cuda, 32 on a cpu.")] = None,
    checked: Annotated[
        int | None,
        typer.Option(min=1, help="Rows compared with the plain path; by default 128 on cuda, 16 on a cpu."),
    ] = None,
    repeats: Repeats = 3,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of a block; all rows once at least.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Predictions of Weitiao beside other systems: same random weights, same random rows. Downloads nothing."""
    from weitiao.bench.request import asked_predict
    from weitiao.tracking.screen import Screen

    request = asked_predict(device, shape, profile or (), system or (), rows, checked, repeats=repeats, seconds=seconds)
    from weitiao.bench.predict import bench_predict as measure  # imports torch

    _show_bench(measure(request, Screen()), "predict", as_json)


def _show_bench(found: dict[str, Any], kind: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return

    from rich.console import Console

    from weitiao.bench.table import TABLES

    Console().print(TABLES[kind](found))
