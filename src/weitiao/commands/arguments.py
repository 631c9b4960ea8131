"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _configs(incomplete: str) -> list[str]:
    """What a shell offers for CONFIG: shipped names and YAML files here; where none fits, it offers files itself."""
    shipped = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.yaml"))
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
