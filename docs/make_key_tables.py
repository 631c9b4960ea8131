"""Writes the tables of keys into `from-llama-factory.md` and `from-ms-swift.md`, between their two marks.

    python docs/make_key_tables.py

`make docs-config` calls it; tests/test_docs.py fails when a page is not what it would write.
"""

from __future__ import annotations

import json
from pathlib import Path

from weitiao.other_spellings.kinds import FACTORY, SWIFT, NotNeeded, Refused, Renamed, Row
from weitiao.other_spellings.table import BATCH, TABLE

HERE = Path(__file__).parent
PAGES = {HERE / "from-llama-factory.md": FACTORY, HERE / "from-ms-swift.md": SWIFT}
BEGIN, END = "<!-- keys -->", "<!-- end of keys -->"


def page(path: Path) -> str:
    """The whole text of a page, its tables written anew."""
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(PAGES[path])}\n{END}{rest.partition(END)[2]}"


def tables(whose: str) -> str:
    """The keys of one program: those that become ours, that are not needed, and that are refused."""
    rows = {key: row for key, row in TABLE.items() if whose in row.of}
    both = " × ".join(f"`{key}`" for key in BATCH)
    renamed = [f"| {both} | `training.samples_per_step` | their product; both are needed |"]
    renamed += [f"| `{key}` | `{row.ours}` | {row.note} |" for key, row in rows.items() if isinstance(row, Renamed)]
    idle = [f"| `{key}` | {_values(row)} | {row.why} |" for key, row in rows.items() if isinstance(row, NotNeeded)]
    refused = [f"| `{key}` | {row.why} |" for key, row in rows.items() if isinstance(row, Refused)]
    return "\n".join(
        [
            "| their key | becomes | |\n|---|---|---|",
            *renamed,
            "\nNot needed; a line says so, and another value than those named is refused:\n",
            "| their key | values | why |\n|---|---|---|",
            *idle,
            "\nRefused, unless they are off (`false`, `0`, `none`, or an empty list):\n",
            "| their key | why |\n|---|---|",
            *refused,
            "",
        ]
    )


def _values(row: Row) -> str:
    values = row.values if isinstance(row, NotNeeded) else None
    return "any" if values is None else ", ".join(f"`{json.dumps(value)}`" for value in values)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path), "utf-8")
        print(path)
