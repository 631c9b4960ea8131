"""The command line: which commands there are, and how it ends.

Exit codes: 0 done, 1 a bug of ours (with its traceback), 2 something that the user can mend (one line), 130 Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from weitiao import __version__
from weitiao.commands import machine, runs, training
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

for command in (
    *(training.init, training.train, training.check, training.curve, training.preview),
    *(runs.evaluate, runs.predict, runs.report, runs.resend, runs.export),
    *(training.demo, machine.doctor, runs.runs),
):
    app.command()(command)
data_app.command("fetch")(training.data_fetch)
bench_app.command("train")(machine.bench_train)
bench_app.command("predict")(machine.bench_predict)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"weitiao {__version__}")
        raise typer.Exit


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for stream in (sys.stdout, sys.stderr):
        # A pipe on Windows has no sign for much of what is printed; an escape is better than a traceback.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
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


if __name__ == "__main__":
    main()
