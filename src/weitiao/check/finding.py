"""What a check finds: a name that can be looked up in `docs/check.md`, a count, and the first places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

T = TypeVar("T")
MOST_EXAMPLES = 3
LONGEST_EXAMPLE = 160
"""Characters of a text that is shown."""
Level = Literal["error", "warning", "note"]
"""Training refuses errors; a warning is worth a look; a note is worth knowing."""
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass
class Finding:
    name: str
    level: Level
    what: str = ""
    """One sentence with the count in it."""
    do: str = ""
    """What to do about it."""
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """(place, text)"""

    def add(self, place: str, text: str = "", most: int = LONGEST_EXAMPLE) -> None:
        """Count one more, and keep it as an example when it is one of the first. most: characters of the text."""
        self.count += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append((place, clipped(text, most)))

    def name_first(self, found: Sequence[T] | NDArray[Any], told: Callable[[Any], tuple[str, str]]) -> None:
        """Keep the first of what was counted as examples; told: the place and text of one."""
        self.examples = [told(one) for one in found[:MOST_EXAMPLES]]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        examples = [{"place": place, "text": text} for place, text in self.examples]
        return {**asdict(self), "examples": examples}


def clipped(text: str, most: int = LONGEST_EXAMPLE) -> str:
    """A text on one line, its end left out where it is long."""
    text = " ".join(text[: 4 * most].split())
    return text if len(text) <= most else text[: most - 1] + "…"


def rows(count: int, kind: str = "") -> str:
    """`1 row`, `1,200 training rows`."""
    return f"{count:,} {kind + ' ' if kind else ''}row{'' if count == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """`12.3 %`, `< 0.1 %`."""
    share = 100 * part / max(whole, 1)
    return "< 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"
