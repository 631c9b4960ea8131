"""What is done with runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from weitiao.commands.arguments import AsJson, Overrides, Run


def evaluate(
    run: Run,
    data: Annotated[Path | None, typer.Option(help="A labelled file, in place of the run's own test rows.")] = None,
    images: Annotated[str | None, typer.Option(help="Folder of that file's images; by default the run's.")] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Measure the untuned model and the task's baselines too. It takes at least twice as long; on a CPU, "
            "where answers are written, hours.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in the shape of metrics.json.")] = False,
) -> None:
    """Measure a run's adapter on labelled rows."""
    from weitiao.prediction.evaluate import evaluate as measure
    from weitiao.report.table import show_metrics
    from weitiao.tracking.screen import Screen

    metrics = measure(run, data, images=images, baselines=baselines, screen=Screen())
    print(json.dumps(metrics, ensure_ascii=False, indent=2)) if as_json else show_metrics(metrics)


def predict(
    run: Run,
    source: Annotated[
        str, typer.Argument(help="A file of rows, or '-' for JSON lines or plain text lines.", metavar="INPUT")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help=".jsonl, .csv or .parquet; by default, or as '-', JSON lines on standard output."
        ),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Give no answer whose probability is lower; it becomes a suggestion."),
    ] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the images; by default that of INPUT.")] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Fold the adapter into the weights, once both answer the first rows alike.")
    ] = False,
    top: Annotated[
        int, typer.Option(min=0, help="List so many of the likeliest labels, each with its probability.")
    ] = 0,
    decoding: Annotated[
        str,
        typer.Option(help="exact: the likeliest label; greedy: the likeliest token each time, as a decoder writes it."),
    ] = "exact",
) -> None:
    """Answer rows with a run's adapter, few of them in memory. The same command goes on with an unfinished file."""
    from weitiao.prediction.files import predict_file
    from weitiao.tracking.screen import Screen

    predict_file(run, source, output, Screen(), abstain_below, images, merged, top, decoding)


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; several are compared with the first.", metavar="RUN...")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="HTML file; by default report.html in the run folder, or comparison.html here."
        ),
    ] = None,
    language: Annotated[str | None, typer.Option(help="en or zh; by default the task's.")] = None,
) -> None:
    """Write a run's report, or compare runs, as one HTML page. It needs nothing beside it."""
    from weitiao.report.write import write

    write(runs, output, language)


def resend(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    overrides: Overrides = None,
) -> None:
    """Give a run's figures to its trackers again, or to others. Such as: resend RUN 'tracking.trackers=[swanlab]'."""
    from weitiao.tracking.record import resend as send

    send(run, overrides or [])


def export(
    run: Run,
    dest: Annotated[Path, typer.Argument(help="A new folder.", metavar="DEST")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="adapter: PEFT's files; merged: a whole model; chatglm-adapter: GLM-4's own layer names; "
            "standalone: with a program that answers without Weitiao.",
        ),
    ],
    merged: Annotated[
        bool, typer.Option("--merged", help="standalone: with the whole model, so that no base model is needed.")
    ] = False,
) -> None:
    """Write a run's adapter, or the whole model, for other programs. How it is used is printed."""
    from weitiao.export import export as write
    from weitiao.tracking.screen import Screen

    print(write(run, dest, format, Screen(), merged))


def runs(
    folder: Annotated[Path, typer.Argument(help="A folder that holds run folders.", metavar="[FOLDER]")] = Path(
        "output"
    ),
    as_json: AsJson = False,
) -> None:
    """List the runs below a folder, with metric, state and size."""
    from weitiao.runs import WIDTH, runs_below, runs_table

    found = runs_below(folder)
    if as_json:
        print(json.dumps([vars(run) for run in found], ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as told:
        console.print(runs_table(found, folder, console.width))
    print("\n".join(line.rstrip() for line in told.get().rstrip().split("\n")))
