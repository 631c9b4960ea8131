"""Run a notebook from top to bottom with other parameters, and keep its outputs.

    python notebooks/run.py notebooks/train_qwen2.ipynb executed.ipynb MODEL=pypi:smollm2-135m-instruct

The cell tagged `parameters` gets the given values; a value is read as a Python literal, else taken as text. The
notebook runs in the working directory.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient


def run(notebook: Path, folder: Path, parameters: Mapping[str, Any], timeout: int = 3600) -> nbformat.NotebookNode:
    """The notebook with its outputs, executed in `folder`.

    timeout: seconds that one cell may take. Raises KeyError for a name that the parameters cell does not have, and
    nbclient's CellExecutionError for a cell that fails.
    """
    book = nbformat.read(notebook, as_version=4)
    (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ())]
    names = [line.partition(" = ")[0] for line in cell.source.splitlines()]
    for name, value in parameters.items():
        if name not in names:
            raise KeyError(f"{name}: the parameters are {', '.join(names)}")
        cell.source = "\n".join(
            f"{name} = {value!r}" if line.startswith(f"{name} = ") else line for line in cell.source.splitlines()
        )
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=timeout, coalesce_streams=True, resources=where).execute()
    return book


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    source, target, *given = sys.argv[1:]
    values = {name: _value(text) for name, _, text in (argument.partition("=") for argument in given)}
    nbformat.write(run(Path(source), Path.cwd(), values), target)
