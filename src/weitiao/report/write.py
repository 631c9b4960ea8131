"""`weitiao report RUN [RUN…]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weitiao.config import suggestion
from weitiao.errors import ConfigError
from weitiao.report.words import languages

COMPARISON = "comparison.html"


def write(runs: Sequence[Path], output: Path | None, language: str | None) -> None:
    """Write the report of one run, or the comparison of several, and print where it is; of a comparison the tables too.

    Raises ConfigError, CheckpointError or DataError, in one line, for what cannot be read, written or compared.
    """
    if language is not None and language not in languages():
        raise ConfigError(f"--language {language!r}: {suggestion(language, languages())}")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise ConfigError(f"{output}: {'is a folder' if output.is_dir() else 'its folder does not exist'}; name a file")
    if len(runs) == 1:
        from weitiao.report.page import write_report

        print(write_report(runs[0], output=output, language=language))
    else:
        _compare(runs, output or Path(COMPARISON), language)


def _compare(folders: Sequence[Path], output: Path, language: str | None) -> None:
    from rich.console import Console

    from weitiao.report.compare import config_differences
    from weitiao.report.comparison_page import names, write_comparison
    from weitiao.report.table import comparison_table, differences_table

    runs, pairs = write_comparison(folders, output, language=language)
    console = Console()
    console.print(comparison_table(list(zip(names(runs), runs, strict=True)), pairs))
    if differences := config_differences(runs):
        console.print(differences_table(names(runs), differences))
    print(output)
