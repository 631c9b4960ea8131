"""Tables on a terminal of 80 columns: what does not fit wraps, and no figure is cut."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from weitiao.curve.table import curve_table
from weitiao.report.table import metrics_table


def printed(table: Table) -> str:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_metrics() -> None:
    figures = {"f1": 0.235, "f1_low": 0.0, "f1_high": 0.462}
    figures |= dict.fromkeys(("precision", "recall", "text_f1", "boundary_f1"), 0.667)
    found = {"task": "ner", "rows": 6, "split": "test", "headline": "f1", "ceiling": 1.0}
    text = printed(metrics_table(found | {"systems": {"finetuned": figures, "dictionary": figures}}))
    assert "…" not in text
    assert text.count("0.235 [0.000–0.462]") == 2


@pytest.mark.parametrize(
    ("rows", "split", "title"),
    [
        (1200, "test", "ner · 1,200 test rows"),
        (1, "validation", "ner · 1 validation row"),
        (4, "p4.jsonl", "ner · 4 rows of p4.jsonl"),
        (1, "data/p1.jsonl", "ner · 1 row of data/p1.jsonl"),
    ],
)
def test_what_was_measured(rows: int, split: str, title: str) -> None:
    found = {"task": "ner", "rows": rows, "split": split, "headline": "f1", "ceiling": 1.0}
    assert metrics_table(found | {"systems": {"finetuned": {"f1": 0.5}}}).title == title


def test_a_curve() -> None:
    score = {"score": 0.6, "low": 0.235, "high": 0.965}
    systems = {"majority": 0.5, "tfidf": 0.7}
    point: dict[str, Any] = {"share": 50.0, "rows": 1600, "steps": 200, "lengthened": False, "seeds": [1], **score}
    found = {"task": "classification", "headline": "accuracy", "test_rows": 10, "split": "test"}
    found |= {"points": [point | {"systems": systems}], "predictions": [{"times": 2, "rows": 3200, **score}]}
    text = printed(curve_table(found))
    assert "…" not in text
    assert text.count("0.600 [0.235–0.965]") == 2
