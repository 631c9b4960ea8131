"""Both languages say the same things, and all that they say is used."""

from __future__ import annotations

import importlib
import re
import string
from pathlib import Path

import pytest

import weitiao.report
from weitiao.report.words import Words, interval, languages, number, percent, signed

REPORT = Path(weitiao.report.__file__).parent
TABLES = ("WORDS", "METRICS", "SYSTEMS")
BY_PREFIX = ("split_", "task_", "kind_", "verdict_", "warn_", "test_")
"""Keys that are put together from a prefix and a name."""


def table(language: str, name: str) -> dict[str, str]:
    return getattr(importlib.import_module(f"weitiao.report.words.{language}"), name)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_languages() -> None:
    assert languages() == ["en", "zh"]


@pytest.mark.parametrize("name", TABLES)
def test_same_keys(name: str) -> None:
    assert list(table("en", name)) == list(table("zh", name))


def test_same_fields() -> None:
    english, chinese = table("en", "WORDS"), table("zh", "WORDS")
    assert [key for key in english if fields(english[key]) != fields(chinese[key])] == []


def test_every_word_is_used() -> None:
    files = [*REPORT.glob("*.py"), *(REPORT / "words").glob("__init__.py"), *(REPORT / "templates").glob("*")]
    text = "\n".join(path.read_text("utf-8") for path in files)
    used = set(re.findall(r"w\.(\w+)", text)) | set(re.findall(r"[\"'](\w+)[\"']", text))
    prefixes = [prefix for prefix in BY_PREFIX if re.search(rf"[\"']{prefix}(?:\{{|[\"'])", text)]
    unused = [k for k in table("en", "WORDS") if k not in used and not k.startswith(tuple(prefixes))]
    assert unused == []


def test_no_word_is_hidden_by_a_method() -> None:
    w = Words("en")
    assert [key for key in table("en", "WORDS") if hasattr(w, key)] == []


def test_metrics_of_all_tasks_have_names(runs: dict[str, Path]) -> None:
    import json

    for run in runs.values():
        figures = json.loads((run / "metrics.json").read_text("utf-8"))["systems"]["finetuned"]
        names = [key for key, value in figures.items() if isinstance(value, float)]
        told = [name for name in names if not name.endswith(("_low", "_high"))]
        assert [name for name in told if Words("zh").metric(name) == name] == []


def test_figures_are_written_plainly() -> None:
    assert [number(v) for v in (0.8766, 0, 0.0, 1234, None, 0.00002, True)] == [
        "0.877", "0", "0.000", "1,234", "—", "2.0e-05", "True",
    ]  # fmt: skip
    assert [percent(v) for v in (0, 0.003, 0.0999, 0.42, 1)] == ["0 %", "0.3 %", "10 %", "42 %", "100 %"]
    assert [signed(v) for v in (0.0214, -0.0041)] == ["+0.021", "−0.004"]
    assert interval({"f1": 0.5}, "f1") == ""
    assert Words("en").duration(89) == "89.0 s"
    assert Words("zh").duration(252) == "4.2 分钟"
