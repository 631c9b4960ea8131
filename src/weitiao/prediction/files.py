"""Rows of a file (or of standard input) → the same rows with `prediction` and `probability`."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from weitiao.config import DataSection
from weitiao.data.formats import jsonl
from weitiao.data.source import read_rows
from weitiao.errors import DataError
from weitiao.prediction.adapter_folder import open_folder
from weitiao.prediction.calibration import withheld
from weitiao.prediction.evaluate import prediction_record
from weitiao.tracking.screen import Screen
from weitiao.types import Row

WRITERS = (".jsonl", ".csv")


def predict_file(
    run: str | Path,
    source: str,
    output: Path | None,
    screen: Screen,
    abstain_below: float | None = None,
    images: str | None = None,
) -> None:
    """Answer every row of `source`; '-' reads standard input, a JSON object or a bare text a line.

    output: .jsonl or .csv, written whole or not at all; None: JSON lines on standard output.
    images: folder of the rows' images; by default that of `source`, or the working directory.
    abstain_below: an answer of a lower probability is not given (`evaluate.prediction_record`).
    Raises DataError for a row that has no text, or an output of another kind.
    """
    if output is not None and output.suffix.lower() not in WRITERS:
        raise DataError(
            f"{output}: cannot write {output.suffix or 'a file without extension'}; wanted {' or '.join(WRITERS)}"
        )
    if output is not None and not output.parent.is_dir():
        raise DataError(f"{output}: no folder {str(output.parent)!r}; make it first")
    if output is not None and output.is_dir():
        raise DataError(f"{output}: is a folder; name a file in it")
    folder = open_folder(run)
    columns = folder.told.columns
    section = DataSection(train=source, columns=columns, encoding=folder.told.encoding, images=images)  # type: ignore[call-arg]
    rows = _standard_input(columns, images or ".") if source == "-" else read_rows(source, section)
    examples = [folder.task.example(row, labelled=False) for row in rows]

    from weitiao.prediction.predictor import Predictor  # torch takes seconds to import

    predictor = Predictor.open(folder)
    with screen.bar("predicting", len(examples), "rows") as advance:
        answers = predictor.answer(examples, advance)
    records = [
        prediction_record(folder.task, example, answer, abstain_below)
        for example, answer in zip(examples, answers, strict=True)
    ]
    if abstain_below is not None:
        count = sum(withheld(answer, abstain_below) for answer in answers)
        screen.note(f"{count} of {len(answers)} answers withheld: their probability is below {abstain_below}")
    if output is None:
        _write_jsonl(sys.stdout, records)
        return
    draft = output.with_name(f".{output.name}.partial")
    with draft.open("w", encoding="utf-8", newline="") as file:
        (_write_csv if output.suffix.lower() == ".csv" else _write_jsonl)(file, records)
    draft.replace(output)
    screen.note(f"{len(records)} rows in {output}")


def _standard_input(columns: Mapping[str, str], images: str) -> list[Row]:
    rows = []
    for number, raw in enumerate(sys.stdin.buffer, 1):
        place = f"standard input:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError(f"{place}: is not UTF-8 text; convert it, or name a file of data.encoding") from None
        if not line.strip():
            continue
        is_json = line.lstrip().startswith("{")
        fields = jsonl.record(line, place) if is_json else {columns.get("text", "text"): line}
        rows.append(Row(fields, "standard input", number, columns, images))
    if not rows:
        raise DataError("standard input: holds no rows; wanted a JSON object or a text a line")
    return rows


def _write_jsonl(file: IO[str], records: Sequence[Mapping[str, Any]]) -> None:
    for record in records:
        file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")


def _write_csv(file: IO[str], records: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in record.items()} for record in records)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
