"""The fixed words of a report, one file a language; the file's name is the registry.

`WORDS` is key → text, which may have `{fields}`. `METRICS` is metric → (name, what it means), `SYSTEMS` system → name.
A metric, a system or a task that is not there keeps its own name. All files have the same keys.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def languages() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


class Words:
    """The words of one language, and its way to write figures. In a template `w.key` is the text of `key`."""

    def __init__(self, language: str) -> None:
        table = importlib.import_module(f"{__name__}.{language}")
        self.language = language
        self.tag = {"zh": "zh-Hans"}.get(language, language)
        """For the page's `lang`."""
        self._words, self._metrics, self._systems = table.WORDS, table.METRICS, table.SYSTEMS

    def __getitem__(self, key: str) -> str:
        return str(self._words[key])

    def say(self, key: str, **values: Any) -> str:
        """The text of `key` with its fields filled in."""
        return self[key].format(**values)

    def task(self, name: str) -> str:
        return str(self._words.get(f"task_{name}", name))

    def metric(self, name: str) -> str:
        return str(self._metrics[name][0]) if name in self._metrics else name

    def meaning(self, name: str) -> str:
        return str(self._metrics[name][1]) if name in self._metrics else ""

    def system(self, name: str) -> str:
        return str(self._systems.get(name, name))

    def duration(self, seconds: float | None) -> str:
        """12.3 s, 4.2 min or 1.3 h."""
        if seconds is None:
            return "—"
        for unit, size in (("hours", 3600), ("minutes", 60)):
            if seconds >= 1.5 * size:
                return self.say(unit, n=f"{seconds / size:.1f}")
        return self.say("seconds", n=f"{seconds:.1f}")


def number(value: Any) -> str:
    """A figure as it is shown: 0.877, 1,234, 5e-05, —."""
    if value is None:
        return "—"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    # What is smaller than any learning rate is what rounding left of nothing.
    return f"{value:.3f}" if abs(value) >= 0.001 or abs(value) < 1e-9 else f"{value:.1e}"


def signed(value: float) -> str:
    """A difference as it is shown: +0.021, −0.004."""
    return ("−" if value < 0 else "+") + number(abs(float(value)))


def percent(value: float) -> str:
    """A share as it is shown, such as 42 % or 0.3 %."""
    return f"{100 * value:.0f} %" if value >= 0.0995 or value == 0 else f"{100 * value:.1f} %"


def interval(figures: Any, name: str) -> str:
    """[0.840, 0.913], or nothing where a metric has no interval."""
    if f"{name}_low" not in figures:
        return ""
    return f"[{number(figures[f'{name}_low'])}, {number(figures[f'{name}_high'])}]"
