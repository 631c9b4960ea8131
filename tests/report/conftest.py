"""Run folders for the report's tests, made once a session: they are only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from report.made import caption_rows, made_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "classification": made_run(folder / "classification"),
        "multi_label": made_run(folder / "multi_label", multi_label=True),
        "ner": made_run(folder / "ner", "ner"),
        "generation": made_run(folder / "generation", "generation", caption_rows(60)),
    }
