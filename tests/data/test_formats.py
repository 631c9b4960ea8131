"""Each format gives back the rows that were written, at the lines where they stand."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.config import DataSection
from weitiao.data.formats import formats
from weitiao.data.formats.json_array import BLOCK
from weitiao.data.source import read_rows
from weitiao.errors import DataError
from weitiao.tasks.generation import Generation, GenerationOptions

Rows = list[dict[str, Any]]


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def write_json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")


def write_delimited(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_excel(path: Path, rows: Rows) -> None:
    book = openpyxl.Workbook()
    for cells in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.active.append(cells)
    book.save(path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".jsonl": write_jsonl,
    ".ndjson": write_jsonl,
    ".json": write_json,
    ".csv": write_delimited,
    ".tsv": write_delimited,
    ".parquet": write_parquet,
    ".xlsx": write_excel,
}
# An .xlsx cell takes no control characters but tab and line break, reads "_x0041_" as "A", and "=" begins a formula.
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff_=") | st.sampled_from('\n\t",;'),
    min_size=1,
).filter(str.strip)


def read(path: Path, encoding: str = "utf-8") -> list[tuple[int, dict[str, Any]]]:
    return list(formats()[path.suffix].read(path, encoding))


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_format_is_found_and_owns_its_extensions() -> None:
    assert set(formats()) == set(WRITERS), "a new format needs a writer here"
    for module in formats().values():
        assert all(formats()[extension] is module for extension in module.EXTENSIONS)
        assert all(extension == extension.lower() and extension[0] == "." for extension in module.EXTENSIONS)


@pytest.mark.parametrize("extension", WRITERS)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_rows_come_back_as_written(
    extension: str, texts: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [{"text": text, "类别": label} for text, label in texts]
    path = tmp_path_factory.getbasetemp() / f"rows{extension}"
    WRITERS[extension](path, rows)
    assert [fields for _, fields in read(path)] == rows


def test_jsonl_counts_blank_lines_and_only_real_line_breaks(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '\n{"text": "a\u2028\u0085b"}\r\n  \n{"text": "c"}')
    assert read(path) == [(2, {"text": "a\u2028\u0085b"}), (4, {"text": "c"})]


def test_delimited_row_is_at_the_line_on_which_it_starts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", '\r\ntext,label\r\n"two\r\nlines",x\r\n\r\nlast,y')
    assert read(path) == [
        (3, {"text": "two\r\nlines", "label": "x"}),
        (6, {"text": "last", "label": "y"}),
    ]


def test_long_documents_fit_into_a_cell(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\n" + "长" * 200_000 + ",x\n")
    assert len(read(path)[0][1]["text"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text;label\n很好, 满意;好评\n"),
        ("a.csv", "text\tlabel\n很好, 满意\t好评\n"),
        ("a.tsv", 'text,label\n"很好, 满意",好评\n'),
        ("a.csv", '"text";"label"\n"很好, 满意";"好评"\n'),
    ],
)
def test_another_separator_is_noticed(tmp_path: Path, name: str, content: str) -> None:
    assert read(written(tmp_path / name, content)) == [(2, {"text": "很好, 满意", "label": "好评"})]


@pytest.mark.parametrize("before", [0, 60])
@pytest.mark.parametrize("text", ["很好, 满意", "差; 一般"])
def test_one_column_is_not_parted(tmp_path: Path, text: str, before: int) -> None:
    """A spreadsheet quotes the mark that it parts cells by, and no other."""
    rows = [*["好"] * before, text]
    path = written(tmp_path / "a.csv", "\n".join(["text", *rows]))
    assert [fields for _, fields in read(path)] == [{"text": row} for row in rows]


def test_a_header_that_fits_two_separators_goes_by_its_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text, in short;label\na;b\nc, d, e;f\n")
    assert [fields for _, fields in read(path)] == [
        {"text, in short": "a", "label": "b"},
        {"text, in short": "c, d, e", "label": "f"},
    ]


@settings(max_examples=80, deadline=None)
@given(
    cells=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6),
    mark=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
)
def test_a_table_comes_back_whatever_its_separator_and_encoding(
    cells: list[tuple[str, ...]], mark: str, encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    names = ("文本", "label", "编号")
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=mark).writerows([names, *cells])
    assert [fields for _, fields in read(path, encoding)] == [dict(zip(names, row, strict=True)) for row in cells]


def test_unnamed_index_column_of_pandas_is_read(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.csv", ",text\n0,好\n")) == [(2, {"": "0", "text": "好"})]


def test_json_array_gives_the_line_of_each_object(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '\n[\n {"text":\n "a"},\n\n {"text": "b"}, {"text": "c"}\n]\n')
    assert [line for line, _ in read(path)] == [3, 6, 6]


def test_json_reads_one_object_a_line_too(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n')) == [(1, {"a": 1}), (2, {"a": 2})]


@pytest.mark.parametrize("filler", [BLOCK - 40 + shift for shift in range(0, 40, 3)])
def test_json_objects_may_lie_across_blocks(tmp_path: Path, filler: int) -> None:
    rows = [{"pad": "长" * filler}, {"a": True, "b": -1.5e-3, "c": '\\"\n😀', "d": [None, {}]}, {"a": "end"}]
    path = written(tmp_path / "a.json", json.dumps(rows))
    assert [fields for _, fields in read(path)] == rows
    path = written(tmp_path / "b.json", json.dumps(rows, ensure_ascii=False))
    assert [fields for _, fields in read(path)] == rows


def test_json_error_after_many_blocks_has_its_line_and_column(tmp_path: Path) -> None:
    good = '{"text": "' + "x" * 90 + '"},\n'
    path = written(tmp_path / "a.json", "[\n" + good * 3000 + '{"text" "broken"}]')
    with pytest.raises(DataError, match=r"a\.json:3002: broken JSON at column 9, near "):
        read(path)


@pytest.mark.parametrize("extension", [".jsonl", ".json", ".csv"])
def test_text_files_stream(tmp_path: Path, extension: str) -> None:
    rows = [{"text": "字" * 200, "label": str(i)} for i in range(10_000)]
    WRITERS[extension](path := tmp_path / f"a{extension}", rows)
    tracemalloc.start()
    for _ in formats()[extension].read(path, "utf-8"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 5e6
    assert peak < 2e6, f"{peak} bytes to read {path.stat().st_size}"


def test_excel_skips_empty_rows_and_keeps_the_sheet_numbers(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for cells in [["text", "label", None], [], ["a", 1], ["b"], [None, None, ""]]:
        book.active.append(cells)
    book.create_sheet("second").append(["not", "read"])
    book.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx") == [(3, {"text": "a", "label": 1}), (4, {"text": "b", "label": None})]


def test_excel_sheet_with_a_wrong_size_is_read_whole(tmp_path: Path) -> None:
    write_excel(tmp_path / "a.xlsx", rows := [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    with zipfile.ZipFile(tmp_path / "a.xlsx") as book, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as changed:
        for name in book.namelist():
            changed.writestr(name, book.read(name).replace(b'<dimension ref="A1:B3"', b'<dimension ref="A1:A1"'))
    assert [fields for _, fields in read(tmp_path / "b.xlsx")] == rows


def test_excel_cell_beside_the_header_is_refused(tmp_path: Path) -> None:
    write_excel(tmp_path / "a.xlsx", [{"text": "a"}, {"text": "b", "more": "c"}])
    with pytest.raises(DataError, match=r"a\.xlsx:3: 'c' stands in column 2, but the header has 1"):
        read(tmp_path / "a.xlsx")


def test_parquet_keeps_nested_values_and_numbers_records(tmp_path: Path) -> None:
    rows = [{"text": str(i), "entities": [{"start": i, "type": "人名"}]} for i in range(2500)]
    write_parquet(tmp_path / "a.parquet", rows)
    assert read(tmp_path / "a.parquet") == list(enumerate(rows, 1))


def test_parquet_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column 'text' is there twice"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("told", [{"bytes": b"\x89PNG\n" * 99, "path": None}, {"bytes": b"x", "path": "1.png"}])
def test_images_inside_parquet_are_refused_in_one_line(tmp_path: Path, told: dict[str, Any]) -> None:
    """The library `datasets` writes them so; weitiao reads files beside the table."""
    write_parquet(path := tmp_path / "a.parquet", [{"image": told, "caption": "x"}])
    (row,) = read_rows(path, DataSection(train=str(path)))
    wanted = "no such file" if told["path"] else "an image is dict .*; wanted the path of a file"
    with pytest.raises(DataError, match=rf"^[^\n]*a\.parquet:1: [^\n]*{wanted}[^\n]*$"):
        Generation(GenerationOptions()).example(row)


def test_parquet_string_that_is_not_utf8_is_a_data_error(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: is damaged or no Parquet file \('utf-8' codec"):
        read(tmp_path / "a.parquet")


def test_damage_inside_a_binary_file_is_a_data_error(tmp_path: Path) -> None:
    for extension in (".parquet", ".xlsx"):
        WRITERS[extension](
            path := tmp_path / f"a{extension}", [{"text": "好" * 50, "label": str(i)} for i in range(300)]
        )
        whole = path.read_bytes()
        for cut in (1, len(whole) // 2, len(whole) - 3):
            with pytest.raises(DataError, match=r"is damaged"):
                read(written(path, whole[:cut]))
        for at in range(0, len(whole), max(len(whole) // 40, 1)):
            written(path, whole[:at] + bytes(b ^ 0x5A for b in whole[at : at + 8]) + whole[at + 8 :])
            with suppress(DataError):
                read(path)


def test_zip_that_is_no_workbook_is_a_data_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(DataError, match=r"is no \.xlsx workbook"):
        read(written(tmp_path / "a.xlsx", buffer.getvalue()))
