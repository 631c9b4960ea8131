"""Which columns a task takes. Where two would do, the user is asked (`DataError`); nothing is guessed in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from weitiao.errors import DataError
from weitiao.init.found import Asked, Found, Table, undecided
from weitiao.init.labels import Labels, holds, labels_in
from weitiao.init.names import says
from weitiao.init.shapes import is_entities, is_split, other_entities
from weitiao.init.table import Column, share
from weitiao.tasks.classification import Classification

MUCH_LONGER = 2
"""Times that one column's texts are longer than the next one's, to be taken for the text by their length alone."""


def classification(table: Table, asked: Asked, image: Column | None, found: Found) -> None:
    label, labels = _label(table, asked, image)
    found.take("label", label, labels.told())
    found.labels = labels
    if options := row_options(table, label):
        found.take("options", options, "a list in which each row's own label stands")
        found.options["options"] = "row"
    elif any(name in table and table[name].kind == "list" for name in Classification.fields["options"]):
        found.options["options"] = "fixed"
    if labels.many:
        joined = f"joined by {labels.separator!r}" if labels.separator else "as lists"
        found.reasons.append(f"several labels a row: {joined}")
        found.options |= {"multi_label": True} | ({"label_separator": labels.separator} if labels.separator else {})
    _take_text(table, asked, image, found)


def ner(table: Table, asked: Asked, image: Column | None, found: Found) -> None:
    known = [table[asked.label]] if asked.label else [column for column in table.values() if is_entities(column)]
    shapes = {c.name: shape for c in table.values() if (shape := other_entities(c))}
    if (asked.label and not is_entities(known[0])) or not known:
        seen = "; ".join(f"{name!r} holds {shape}" for name, shape in shapes.items()) or "no column holds such lists"
        raise DataError(f"no entities to read: {seen}; wanted lists of {{start, end, type, text}} in .jsonl or .json")
    column = _one(known, "entities", "--label")
    with_some = sum(map(bool, column.filled))
    found.take("entities", column, f"lists of entities; {with_some:,} of {len(column.values):,} rows have some")
    _take_text(table, asked, None, found)


def generation(table: Table, asked: Asked, image: Column | None, found: Found) -> None:
    answer = table[asked.label] if asked.label else _answer(table, asked, image, found)
    why = "as you say" if asked.label else _by_name(answer, "answer", "texts that mostly differ")
    found.take("answer", answer, why)
    left = [column for column in table.values() if column.name not in found.columns.values() and column.kind == "text"]
    if asked.text:
        found.take("text", table[asked.text], "as you say")
        return
    for role, words in (("question", "question"), ("text", "input"), ("system", "system")):
        if named := [column for column in left if says(column.name, words)]:
            column = _one(named, role, "--text")
            found.take(role, column, _by_name(column, words, ""))
            left.remove(column)
    if not {"question", "text"} & found.columns.keys():
        _take_text(table, asked, image, found)


def label_columns(table: Table, asked: Asked, image: Column | None) -> list[tuple[Column, Labels]]:
    """Columns that may be the label: what stands in each row's own options, what is called so, what looks it."""
    chosen = [column for column in table.values() if column.kind != "list" and row_options(table, column)]
    for column in chosen:
        if isinstance(labels := labels_in(column, "asked"), Labels):
            return [(column, labels)]
    named = [column for column in table.values() if says(column.name, "label")]
    others = [
        column
        for column in table.values()
        if column not in named and not any(says(column.name, role) for role in ("text", "question", "input", "aside"))
    ]
    for columns, trust in ((named, "named"), (others, "neither")):
        usable = [c for c in columns if c is not image and c.name != asked.text and not is_split(c)]
        read = [(column, labels_in(column, trust)) for column in usable]
        if kept := [(column, labels) for column, labels in read if isinstance(labels, Labels)]:
            return kept
    return []


def row_options(table: Table, label: Column) -> Column | None:
    """The column of lists in which each row's label stands, as one of those that the row may have."""
    lists = [column for column in table.values() if column.kind == "list" and column is not label]
    return next((column for column in lists if share(map(holds, column.values, label.values)) == 1), None)


def prose(table: Table, found: Found) -> list[Column]:
    """Columns of text that have no other role yet."""
    return [
        column
        for column in table.values()
        if column.name not in found.columns.values()
        and column.kind == "text"
        and (column.is_prose or says(column.name, "text"))
        and not says(column.name, "aside")
    ]


def _label(table: Table, asked: Asked, image: Column | None) -> tuple[Column, Labels]:
    if asked.label:
        labels = labels_in(table[asked.label], "asked")
        if isinstance(labels, str):
            raise DataError(f"--label {asked.label!r}: {labels}")
        return table[asked.label], labels
    known = label_columns(table, asked, image)
    if len(known) == 1:
        return known[0]
    if known:
        came = ", ".join(f"{column.name!r} ({len(labels.counts)} values)" for column, labels in known)
        raise DataError(f"more than one column may be the label: {came}; name it with --label")
    raise DataError(f"no column may be the label: {_why_not(table)}; name it with --label")


def _why_not(table: Table) -> str:
    named = [column for column in table.values() if says(column.name, "label")] or list(table.values())
    whys = [(column.name, labels_in(column, "named")) for column in named]
    return "; ".join(f"{name!r}: {why}" for name, why in whys if isinstance(why, str)) or "none repeats few values"


def _take_text(table: Table, asked: Asked, image: Column | None, found: Found) -> None:
    """The text: as asked, by name, by length, or the only one; none is needed beside images."""
    if asked.text:
        found.take("text", table[asked.text], "as you say")
        return
    known = prose(table, found)
    named = [column for column in known if any(says(column.name, role) for role in ("text", "question", "input"))]
    columns = named or ([] if image else known)
    if not columns and image:
        return
    if not columns:
        raise DataError(undecided(table, "no column of texts is left beside the label"))
    longest, *others = sorted(columns, key=lambda column: -column.length)
    if others and not named and longest.length < MUCH_LONGER * max(others[0].length, 1):
        raise DataError(f"more than one column may be the text: {_listed(columns)}; name it with --text")
    found.take("text", longest, _why_text(longest, others, bool(named)))


def _why_text(column: Column, others: list[Column], named: bool) -> str:
    if others:
        return f"the longest of {_listed([column, *others])}; for another one: --text"
    return _by_name(column, "text", "") if named else "the only column of texts beside the label"


def _answer(table: Table, asked: Asked, image: Column | None, found: Found) -> Column:
    others = [column for column in table.values() if column is not image and column.name != asked.text]
    usable = [column for column in others if column.kind in ("text", "list", "number")]
    if named := [column for column in usable if says(column.name, "answer")]:
        return _one(named, "answer", "--label")
    left = [column for column in prose(table, found) if column in usable]
    if image and len(left) == 1:
        return left[0]
    raise DataError(undecided(table, "no column is called answer, output or 答案"))


def _one(columns: list[Column], role: str, option: str) -> Column:
    if len(columns) > 1:
        raise DataError(f"more than one column may be the {role}: {_listed(columns)}; name it with {option}")
    return columns[0]


def _by_name(column: Column, role: str, otherwise: str) -> str:
    return "by its name" if says(column.name, role) or not otherwise else otherwise


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(f"{column.name!r} (median {column.length} characters)" for column in columns)


CHOICES: dict[str, Callable[[Table, Asked, Column | None, Found], None]] = {
    "classification": classification,
    "ner": ner,
    "generation": generation,
}
"""Task → the function that chooses its columns; a task of another file's is configured by hand."""
