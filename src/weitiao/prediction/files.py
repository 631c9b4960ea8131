"""Rows of a file (or of standard input) → the same rows with `prediction` and `probability`, a block at a time.

A file is read twice: first to check every row and to count them, before the model is loaded, then to be answered.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao import __version__
from weitiao.config import DataSection
from weitiao.data.formats import jsonl
from weitiao.data.formats.text_file import encoding_like
from weitiao.data.source import data_file, iter_rows
from weitiao.errors import ConfigError, DataError
from weitiao.model.ahead import FOR_PREDICTION, import_ahead, libraries_ahead
from weitiao.prediction.adapter_folder import AdapterFolder, open_folder
from weitiao.prediction.agreement import ROWS, open_merged, refuse_quantized
from weitiao.prediction.calibration import withheld
from weitiao.prediction.columns import columns_for, columns_of_file, say_standard
from weitiao.prediction.draft import Draft, Printed
from weitiao.prediction.evaluate import prediction_record
from weitiao.prediction.greedy import refuse_decoding
from weitiao.prediction.writers import WRITERS
from weitiao.run_folder import TASK_FILE
from weitiao.tasks.base import Example, Task
from weitiao.tracking.screen import LINE_EVERY, Screen
from weitiao.types import Prediction, Row

if TYPE_CHECKING:
    from weitiao.prediction.predictor import Predictor

BLOCK_ROWS = 1024
"""Rows that are answered and kept at once: enough to fill packs, seconds to minutes of work."""
ON_A_CARD = 8
"""So many times as many. When few answers of a block are left, a card has little to do."""


def predict_file(
    run: str | Path,
    source: str,
    output: Path | None,
    screen: Screen,
    abstain_below: float | None = None,
    images: str | None = None,
    merged: bool = False,
    top: int = 0,
    decoding: str = "exact",
) -> None:
    """Answer every row of `source`; '-' reads standard input, a JSON object or a bare text a line.

    output: .jsonl, .csv or .parquet, which appears whole or not at all; None or '-': JSON lines on standard output.
        What was answered of a file stays beside the output when the command ends early; the same one goes on with it.
    images: folder of the rows' images; by default that of `source`, or the working directory.
    abstain_below: an answer of a lower probability is not given (`evaluate.prediction_record`).
    merged: fold the adapter into the weights, if the first rows are then answered as without (`agreement.py`).
    top: so many of the likeliest labels are told, too.
    decoding: `greedy` takes the likeliest token each time, not the likeliest label (`greedy.py`).
    Raises DataError for a row that has no text, or an output of another kind; ConfigError for an option
    that the task does not have.
    """
    if output == Path("-"):
        output = None
    if output is not None:
        _refuse_output(output)
    folder = open_folder(run)
    refuse_decoding(folder.task, decoding)
    if merged:
        refuse_quantized(folder)
    if top and not folder.task.lists_labels:
        raise ConfigError(f"--top: an answer of task {folder.told.task['name']} is no label of a list; leave it out")
    belongs = None
    if source != "-":
        belongs = _belongs(folder, abstain_below=abstain_below, merged=merged, top=top, decoding=decoding)
    examples = partial(_examples, folder.task, source, _section(folder, source, images, screen), screen)
    done: Draft | Printed = Printed() if output is None else Draft(output, belongs)
    # Standard input cannot be read twice: it has no total, and a broken row is told when its block is reached.
    total = None if source == "-" else done.check(examples())
    if folder.outline and not merged:
        libraries = import_ahead(FOR_PREDICTION, card=True)
    else:
        libraries = libraries_ahead(FOR_PREDICTION, folder.base.folder, "auto")
    _say_what_was_kept(done, total, screen)

    def opened(block: list[Example]) -> Predictor:
        libraries.join()
        from weitiao.prediction.predictor import Predictor

        if not merged:
            return Predictor.open(folder)
        # The file's first rows, also when it is gone on with: so the same is decided again.
        first = block if source == "-" else islice(examples(), ROWS)
        return open_merged(folder, list(islice(first, ROWS)), screen)

    try:
        _answer(
            opened,
            islice(examples(), done.rows, None),
            partial(prediction_record, folder.task, abstain_below=abstain_below, top=top),
            partial(withheld, below=abstain_below),
            done,
            total,
            screen,
            decoding,
        )
        if total is not None and done.rows != total:
            raise DataError(f"{source}: had {total} rows, and {done.rows} when it was read again; call predict again")
        done.finish(_parquet_file(source))
    except BaseException:
        if done.resumable and done.rows:
            screen.note(f"{done.rows} answered rows are kept; the same command goes on behind them")
        raise
    finally:
        done.close()
    if abstain_below is not None:
        screen.note(f"{done.withheld} of {done.rows} answers withheld: their probability is below {abstain_below}")
    if output is not None:
        screen.note(f"{done.rows} rows in {output}")


def _answer(
    opened: Callable[[list[Example]], Predictor],
    examples: Iterator[Example],
    record: Callable[[Example, Prediction], dict[str, Any]],
    is_withheld: Callable[[Prediction], bool],
    done: Draft | Printed,
    total: int | None,
    screen: Screen,
    decoding: str,
) -> None:
    # Before torch is there, which takes seconds: what is wrong with standard input mostly stands in its first rows.
    block = _block(examples, BLOCK_ROWS)
    done.open()
    if not block:
        return

    predictor = opened(block)
    # What is in memory now stays there: no search for garbage need look at it, while a card has nothing to do.
    gc.freeze()
    if total is None and len(block) < BLOCK_ROWS:
        total = len(block)
    rows = BLOCK_ROWS * (ON_A_CARD if predictor.wants_many else 1)
    if done.rows:
        # Blocks end where they would have without an end between them.
        block += _block(examples, rows - len(block))
    with _progress(screen, total, done.rows) as advance:
        while block:
            answers = predictor.answer(block, advance, decoding)
            done.add(block, list(map(record, block, answers)), sum(map(is_withheld, answers)))
            block = _block(examples, rows)


def _block(examples: Iterator[Example], rows: int) -> list[Example]:
    return list(islice(examples, rows))


def _examples(task: Task, source: str, section: DataSection, screen: Screen) -> Iterator[Example]:
    rows = _standard_input(task, section, screen) if source == "-" else iter_rows(source, section)
    return (task.example(row, labelled=False) for row in rows)


def _section(folder: AdapterFolder, source: str, images: str | None, screen: Screen) -> DataSection:
    """How the source is read."""
    told = {"columns": folder.told.columns, "encoding": _encoding(folder, source, screen), "images": images}
    section = DataSection(train=source, **told)  # type: ignore[arg-type]
    if source == "-":
        return section
    columns = columns_of_file(folder.task, source, section, labelled=False, screen=screen)
    return section.model_copy(update={"columns": columns})


def _encoding(folder: AdapterFolder, source: str, screen: Screen) -> str:
    """How the source is read; a note where that is not how the run's own rows were."""
    usual = folder.told.encoding
    found = usual if source == "-" else encoding_like(data_file(source), usual)
    if found != usual:
        screen.note(f"{source}: read as {found}; the run's own rows were {usual}")
    return found


def _refuse_output(output: Path) -> None:
    if output.suffix.lower() not in WRITERS:
        *others, last = WRITERS
        wanted = f"{', '.join(others)} or {last}"
        raise DataError(f"{output}: cannot write {output.suffix or 'a file without extension'}; wanted {wanted}")
    if not output.parent.is_dir():
        raise DataError(f"{output}: no folder {str(output.parent)!r}; make it first")
    if output.is_dir():
        raise DataError(f"{output}: is a folder; name a file in it")


def _belongs(folder: AdapterFolder, **options: Any) -> dict[str, Any]:
    """What decides the answers besides the rows. The rows of a block share a prefix, so its size does, too."""
    whole = hashlib.sha256()
    for name in (TASK_FILE, "adapter_config.json", "adapter_model.safetensors"):
        with (folder.path / name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return {"adapter": whole.hexdigest(), **options, "block_rows": BLOCK_ROWS, "weitiao": __version__}


def _say_what_was_kept(done: Draft | Printed, total: int | None, screen: Screen) -> None:
    if isinstance(done, Draft) and done.given_up:
        screen.note(f"{done.path}: was left by another run, input or option; starting anew")
    if done.rows:
        screen.note(f"going on behind row {done.rows} of {total}")


def _parquet_file(source: str) -> Path | None:
    """The input, if it is a Parquet file."""
    if source == "-" or Path(source).suffix.lower() != ".parquet":
        return None
    return data_file(source)


@contextlib.contextmanager
def _progress(screen: Screen, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    """A bar; where no total is known, now and then a line with the rows so far."""
    if total is not None:
        with screen.bar("predicting", total, "rows", done) as advance:
            yield advance
        return
    start = shown = time.monotonic()

    def count(rows: int) -> None:
        nonlocal done, shown
        done, now = done + rows, time.monotonic()
        if now - shown >= LINE_EVERY:
            shown = now
            screen.note(f"predicting {done} rows so far  {done / (now - start):.1f} rows/s")

    yield count


def _standard_input(task: Task, section: DataSection, screen: Screen) -> Iterator[Row]:
    row, usual = None, section.columns
    said = False
    for number, raw in enumerate(sys.stdin.buffer, 1):
        place = f"standard input:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError(f"{place}: is not UTF-8 text; convert it, or name its file in place of -") from None
        if not line.strip():
            continue
        is_json = line.lstrip().startswith("{")
        fields = jsonl.record(line, place) if is_json else {usual.get("text", "text"): line}
        row = Row(fields, "standard input", number, usual, section.images or ".")
        columns = columns_for(task, row, labelled=False)
        if columns != usual:
            row = replace(row, columns=columns)
            if not said:
                say_standard(columns, usual, place, screen)
            said = True
        yield row
    if row is None:
        raise DataError("standard input: holds no rows; wanted a JSON object or a text a line")
