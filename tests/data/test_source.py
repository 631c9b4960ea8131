"""What a user can do to a file ends in one line that says where, what and what to do."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from weitiao.config import DataSection
from weitiao.data.formats import formats
from weitiao.data.formats.text_file import encoding_like, sniffed
from weitiao.data.source import iter_rows, read_rows
from weitiao.data.splits import fingerprint, load, read_as
from weitiao.errors import DataError
from weitiao.tasks.base import task_class, task_options

CHINESE = "这个手机的续航让人满意，屏幕也很好。"
LINE = b'{"text": "a", "label": "x"}\n'
GOOD = b'{"text": "\xe5\xa5\xbd"}\n'


def section(encoding: str = "utf-8") -> DataSection:
    return DataSection(train="unused", encoding=encoding)


def error_of(path: Path, encoding: str = "utf-8") -> str:
    with pytest.raises(DataError) as caught:
        read_rows(path, section(encoding))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path)), message
    return message.removeprefix(str(path))


BROKEN = [
    (
        "a.jsonl",
        LINE * 2 + b'{"text" "a"}\n',
        r":3: broken JSON at column 9, near '\{\"text\" \"a\"\}' \(Expecting ':'",
    ),
    ("a.jsonl", b"\n" + LINE + b'{"text": "a"', r":3: broken JSON at column 13"),
    ("a.jsonl", b'{"text": "a"} {"text": "b"}\n', r":1: broken JSON at column 15, .*Extra data"),
    ("a.jsonl", LINE + b'["a", "x"]\n', r":2: wanted a JSON object, found list .*extension \.json"),
    ("a.jsonl", b'[\n{"text": "a"}\n]', r":1: broken JSON at column 2.*extension \.json"),
    ("a.jsonl", LINE + b"42\n", r":2: wanted a JSON object, found int 42"),
    ("a.jsonl", b'{"text": "a", "text": "b"}\n', r":1: .*key 'text' is there twice"),
    ("a.jsonl", b'{"text": "\\ud83d"}\n', r":1: a string holds half of a surrogate pair"),
    ("a.jsonl", b'{"n": ' + b"9" * 5000 + b"}\n", r":1: JSON cannot be used"),
    ("a.jsonl", b'{"n": ' + b"[" * 100_000 + b"\n", r":1: JSON is nested too deeply"),
    ("a.jsonl", LINE + b'{"text": "a\x00b"}\n', r":2: holds a NUL character"),
    ("a.jsonl", LINE * 3 + b'{"text": "\xff"}\n', r":4: byte 95 \(0xff\) is not valid UTF-8; save the file as UTF-8"),
    ("a.jsonl", GOOD + b'{"text": "\xe5\xa5', r":2: byte 27 \(0xe5\) is not valid UTF-8"),
    ("a.jsonl", '{"text": "élan, Müller"}'.encode("latin-1"), r":1: byte 11 \(0xe9\) is not valid UTF-8; save"),
    ("a.jsonl", (GOOD.decode() + CHINESE * 9).encode()[:-1], r":2: .* is not valid UTF-8; save"),
    (
        "a.csv",
        f"text,label\na,b\n{CHINESE},好评\n".encode("gb18030"),
        r":3: byte 16 .*gb18030: set data\.encoding=gb18030",
    ),
    (
        "a.jsonl",
        LINE.decode().encode("utf-16"),
        r":1: begins with the byte-order mark of UTF-16.*data\.encoding=utf-16, or leave it out",
    ),
    ("a.jsonl", LINE.decode().encode("utf-32"), r":1: begins with the byte-order mark of UTF-32"),
    ("a.jsonl", LINE.decode().encode("utf-16-le"), r":1: holds a NUL character.*data\.encoding=utf-16-le"),
    ("a.jsonl", b"", r": is empty; wanted"),
    ("a.jsonl", b"\n \n", r": holds no rows"),
    ("a.jsonl", codecs.BOM_UTF8, r": holds no rows"),
    ("a.json", b"[]", r": holds no rows"),
    ("a.json", b"  ", r": holds no rows"),
    ("a.json", b'[\n{"text": "a"},\n{"text": b}]', r":3: broken JSON at column 10, near"),
    (
        "a.json",
        b'[\n{"text": "a"}',
        r":2: wanted `,` or `\]` after an object of the array, found 'the end of the file'",
    ),
    ("a.json", b'[{"text": "a"}\n{"text": "b"}]', r":2: wanted `,` or `\]`.*found '\{\"text\""),
    ("a.json", b'[{"text": "a"},\n]', r":2: broken JSON at column 1"),
    ("a.json", b'[{"text": "a"}]\n[]', r":2: wanted nothing after the array's end"),
    ("a.json", b'[{"text": "a"},\n"b"]', r":2: wanted a JSON object, found str 'b'"),
    ("a.json", b'"text"', r":1: wanted a JSON object, found str"),
    ("a.json", b'[{"text": "a"},\n{"text": "\x00"}]', r":2: holds a NUL character"),
    ("a.json", b"[" * 100_000, r":1: JSON is nested too deeply"),
    ("a.csv", b"\n\n", r": holds no rows"),
    ("a.csv", b"text,label\n", r": holds no rows"),
    ("a.csv", b",\na,b\n", r":1: no header"),
    ("a.csv", b"text,,label\na,b,c\n", r":1: the header has no name for column 2"),
    ("a.csv", b"text,label,text\na,b,c\n", r":1: column 'text' is in the header twice"),
    ("a.csv", b"text;label\na;b\nc;d;e\n", r":3: 3 cells, but the header has 2"),
    ("a.csv", b"text,label\na,b\nc,d,e\n", r":3: 3 cells, but the header has 2"),
    ("a.tsv", b"text\tlabel\n\na\n", r":3: 1 cells, but the header has 2"),
    ("a.csv", b'text,label\na,b\n"open,\nc,d\n', r":3: quotes do not match in the row that starts here"),
    ("a.csv", b'text,label\n"a"b,c\n', r":2: quotes do not match"),
    ("a.csv", b"text,label\na,b\nc,\x00\n", r":3: holds a NUL character"),
    ("a.parquet", b"PAR1 no", r": is damaged or no Parquet file"),
    ("a.xlsx", b"PK no", r": is damaged, has a password or is no \.xlsx"),
    ("a.txt", b"x", r": extension '\.txt' is not known; wanted \.csv, \.json, \.jsonl, "),
    ("rows", b"x", r": has no extension; wanted \.csv"),
]


@pytest.mark.parametrize(("name", "content", "wanted"), BROKEN, ids=[case[2][:40] for case in BROKEN])
def test_broken_files_are_explained(tmp_path: Path, name: str, content: bytes, wanted: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = error_of(tmp_path / name)
    assert re.match(wanted, message), message


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(LINE)
    (tmp_path / "other.csv").write_bytes(LINE)
    assert error_of(tmp_path / "trian.jsonl").endswith(f"no such file; did you mean {str(tmp_path / 'train.jsonl')!r}?")
    assert error_of(tmp_path / "zzz").endswith(": no such file; check the path")
    assert "nor a folder" in error_of(tmp_path / "nowhere" / "train.jsonl")


def test_folder_and_impossible_names_are_explained(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text\na\n")
    assert error_of(tmp_path).endswith(": is a folder; name a file in it (rows.csv)")
    assert "cannot be read" in error_of(tmp_path / ("长" * 300 + ".csv"))


@pytest.mark.parametrize("encoding", ["nonsense", "hex", "", "utf-8\0", "undefined"])
def test_unknown_encoding_is_explained(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE)
    assert "is no known text encoding" in error_of(tmp_path / "a.jsonl", encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030", "gbk"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_encodings_are_read_with_and_without_a_mark(tmp_path: Path, encoding: str, name: str) -> None:
    content = f"text\n{CHINESE}\n" if name == "a.csv" else f'{{"text": "{CHINESE}"}}'
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert read_rows(tmp_path / name, section(encoding))[0].fields == {"text": CHINESE}


@pytest.mark.parametrize(("mark", "encoding"), [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")])
def test_mark_is_skipped(tmp_path: Path, mark: bytes, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(mark + f"text,label\n{CHINESE},x\n".encode(encoding))
    assert dict(read_rows(tmp_path / "a.csv", section(encoding))[0].fields) == {"text": CHINESE, "label": "x"}


@pytest.mark.parametrize(
    ("codec", "told"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("gbk", "gb18030"), ("gb18030", "gb18030"), ("utf-16", "utf-16")]
    + [(name, name) for name in ("utf-16-le", "utf-16-be")],
)
def test_the_encoding_is_found(tmp_path: Path, codec: str, told: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"text,label\n一{CHINESE},好评\n{CHINESE},差评\n".encode(codec))
    assert sniffed(path) == told
    assert [dict(row.fields)["label"] for row in read_rows(path, section(told))] == ["好评", "差评"]


def test_an_encoding_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n這個手機很好用，我們都喜歡,好評\n".encode("big5"))
    with pytest.raises(DataError, match=r"neither UTF-8, GB18030 nor UTF-16; save it as UTF-8, or say what it is"):
        sniffed(path)


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "gb2312"])
def test_utf8_is_not_read_as_chinese_of_another_kind(tmp_path: Path, encoding: str) -> None:
    """Much of UTF-8 decodes as GB18030, to other characters. Two of them tell nothing: 联通 in GBK is valid UTF-8."""
    path = tmp_path / "a.csv"
    path.write_text("text\n这个手机很好用我们都喜欢", "utf-8")
    assert f"is UTF-8, but data.encoding is {encoding}; set data.encoding=utf-8" in error_of(path, encoding)
    path.write_text("text\n联通", encoding)
    assert dict(read_rows(path, section(encoding))[0].fields) == {"text": "联通"}


@pytest.mark.parametrize(
    ("codec", "usual", "told"),
    [
        ("utf-8", "gb18030", "utf-8"),
        ("gb18030", "utf-8", "gb18030"),
        ("utf-16", "utf-8", "utf-16"),
        ("gbk", "gbk", "gbk"),
        ("big5", "big5", "big5"),
    ],
)
def test_a_file_that_comes_later_is_read_by_its_bytes(tmp_path: Path, codec: str, usual: str, told: str) -> None:
    (tmp_path / "a.csv").write_bytes("text\n這個手機很好用，我們都喜歡\n".encode(codec))
    if codec.startswith("gb"):
        (tmp_path / "a.csv").write_bytes("text\n这个手机很好用，我们都喜欢\n".encode(codec))
    assert encoding_like(tmp_path / "a.csv", usual) == told
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    assert encoding_like(tmp_path / "a.xlsx", usual) == usual


def test_each_file_is_read_in_its_own_encoding(tmp_path: Path) -> None:
    for name, codec in (("train", "gb18030"), ("test", "utf-8-sig"), ("validation", "utf-16")):
        rows = "".join(f"{name}{at}{CHINESE},{'好评' if at % 2 else '差评'}\n" for at in range(4))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}", codec)
    names = {name: str(tmp_path / f"{name}.csv") for name in ("train", "test", "validation")}
    _, splits = load(DataSection(**names), task_options({"name": "classification"}), seed=1)
    for name in names:
        assert [example.text for example in getattr(splits, name)] == [f"{name}{at}{CHINESE}" for at in range(4)]
    told = [line.removeprefix(str(tmp_path)) for line in read_as(DataSection(**names))]
    assert told == ["/train.csv: read as gb18030", "/validation.csv: read as utf-16"]
    one = DataSection(**names, encoding="gb18030")
    with pytest.raises(DataError, match=r"data\.encoding is gb18030; .*leave it out, so that each file"):
        load(one, task_options({"name": "classification"}), seed=1)
    assert read_as(one) == []


def test_what_is_no_known_encoding_is_told_by_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text\n這個手機很好用，我們都喜歡\n".encode("big5"))
    with pytest.raises(DataError, match=r"a\.csv:2: byte \d+ .* is not valid UTF-8; save the file as UTF-8 or set"):
        read_rows(tmp_path / "a.csv", DataSection(train="unused"))


def test_a_file_that_changes_is_looked_at_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for codec in ("gb18030", "utf-8", "utf-16"):
        path.write_text(f"text\n{CHINESE}\n", codec)
        assert dict(read_rows(path, DataSection(train="unused"))[0].fields) == {"text": CHINESE}


def test_other_encodings_than_utf8_are_strict_and_hint_at_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINE + '{"text": "€ 好"}\n'.encode())
    assert re.match(r":2: byte \d+ .*is not valid ASCII; the file reads as utf-8", error_of(path, "ascii"))
    path.write_bytes(codecs.BOM_UTF8 + LINE)
    assert "set data.encoding=utf-8" in error_of(path, "gb18030")
    path.write_bytes(LINE)
    assert "has no byte-order mark of UTF-16" in error_of(path, "utf-16")


@settings(max_examples=60, deadline=None)
@given(before=st.lists(st.sampled_from(["\n", "\r\n", "好", "a\n", "上" * 70_000]), max_size=6))
def test_position_of_a_bad_byte_is_exact(before: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    good = "".join(before)
    path.write_bytes(good.encode() + b"\xff\n" + b"a\n" * 100)
    line, byte = good.count("\n") + 1, len(good.encode()) + 1
    assert error_of(path).startswith(f":{line}: byte {byte} (0xff)")


def test_utf16_position_counts_characters_not_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    # U+4E0A holds the byte of a line feed; a lone surrogate is no UTF-16.
    path.write_bytes('{"text": "上上上"}\n'.encode("utf-16") + "a".encode("utf-16-le") + b"\x00\xdc\x00\x00")
    assert error_of(path, "utf-16").startswith(":2: byte 37 ")


def test_rows_say_their_place_and_columns(tmp_path: Path) -> None:
    (tmp_path / "a.JSONL").write_bytes(LINE + b"\n" + LINE)
    data = DataSection(train="unused", columns={"text": "内容"})
    rows = read_rows(str(tmp_path / "a.JSONL"), data)
    assert [row.place for row in rows] == [f"{tmp_path / 'a.JSONL'}:{line}" for line in (1, 3)]
    assert rows[0].columns == {"text": "内容"}


def test_rows_before_a_broken_one_are_given(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINE + b"broken\n")
    rows = iter_rows(tmp_path / "a.jsonl", section())
    assert next(rows).line == 1
    with pytest.raises(DataError, match=r":2: broken JSON at column 1"):
        next(rows)


@pytest.mark.parametrize("extension", sorted(formats()))
@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(min_size=1, max_size=200)
    | st.text('[]{}:,"\\ue\n\r\t 0a好', min_size=1).map(str.encode)
    | st.lists(st.sampled_from([LINE, GOOD, b'"', b",", b"[", b"]", b"\xff", b"\x00", b"text,label\n"])).map(b"".join),
    encoding=st.sampled_from(["utf-8", "gb18030", "utf-16", "latin-1", "utf-7", "idna"]),
)
@example(content=b"\xff\xfe", encoding="utf-8")
def test_no_content_causes_another_error(
    extension: str, content: bytes, encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{extension}"
    path.write_bytes(content)
    try:
        assert read_rows(path, section(encoding))
        message = str(path)
    except DataError as error:
        message = str(error)
    assert message.startswith(str(path))
    assert "\n" not in message


def test_a_file_of_a_hubs_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and hashed from the hub's cache under its name there; a local file of the same path comes first."""
    name = "modelscope:Org/Rows/part/a.jsonl"
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    cached = tmp_path / "cache/datasets/Org--Rows/snapshots/master/part/a.jsonl"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(LINE)
    data = DataSection(train=name)
    assert [row.place for row in read_rows(name, data)] == [f"{cached}:1"]
    assert fingerprint(data) == {name: hashlib.sha256(LINE).hexdigest()}
    local = tmp_path / name
    local.parent.mkdir(parents=True)
    local.write_bytes(LINE * 2)
    assert len(read_rows(name, data)) == 2


def photos(folder: Path, *names: str) -> Path:
    """A folder with images of these names, each of another colour."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number % 256, number, 0)).save(folder / name, "PNG")
    return folder


def folder_rows(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """(place in the folder, fields) of its rows, whose images are all there."""
    rows = read_rows(folder, section())
    for row in rows:
        assert row.image_root == str(folder)
        assert (folder / row.fields["image"]).is_file()
    return [(row.place.removeprefix(f"{folder}/"), dict(row.fields)) for row in rows]


def test_a_folder_of_classes(tmp_path: Path) -> None:
    """In the order of their paths, whatever lies deeper; hidden files, other files and empty folders are left out."""
    folder = photos(
        tmp_path / "p", "dog/b.PNG", "dog/a.jpg", "cat/deep/er/1.webp", "cat/2.png", ".x/1.png", "cat/._2.png"
    )
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / ".DS_Store").write_text("x")
    (folder / "bird").mkdir()
    assert folder_rows(folder) == [
        ("cat/2.png:1", {"image": "cat/2.png", "label": "cat"}),
        ("cat/deep/er/1.webp:1", {"image": "cat/deep/er/1.webp", "label": "cat"}),
        ("dog/a.jpg:1", {"image": "dog/a.jpg", "label": "dog"}),
        ("dog/b.PNG:1", {"image": "dog/b.PNG", "label": "dog"}),
    ]


def test_a_folder_of_images_alone(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "2.png", "1.jpeg", "图.gif")
    assert folder_rows(folder) == [(f"{name}:1", {"image": name}) for name in ("1.jpeg", "2.png", "图.gif")]
    data = DataSection(train="unused", images=str(tmp_path / "elsewhere"), columns={"text": "x"})
    assert read_rows(folder, data)[0].image_root == str(folder)
    assert read_rows(folder, data)[0].columns == {"text": "x"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "in/1.png", "caption": "狗"}\n\n{"file_name": "2.png", "caption": "猫"}\n'),
        ("metadata.csv", "file_name,caption\nin/1.png,狗\n\n2.png,猫\n"),
    ],
)
def test_a_folder_with_metadata(name: str, content: str, tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "in/1.png", "2.png", "not listed.png")
    (folder / "other.json").write_text("[]")
    (folder / name).write_text(content, "utf-8")
    first = 1 if name.endswith("jsonl") else 2
    assert folder_rows(folder) == [
        (f"{name}:{first}", {"image": "in/1.png", "caption": "狗"}),
        (f"{name}:{first + 2}", {"image": "2.png", "caption": "猫"}),
    ]
    (folder / name).write_bytes(content.encode("gb18030"))
    assert "set data.encoding=gb18030" in error_of(folder)
    assert dict(read_rows(folder, section("gb18030"))[0].fields) == {"image": "in/1.png", "caption": "狗"}


def test_folders_that_are_no_rows_are_explained(tmp_path: Path) -> None:
    (tmp_path / "empty" / "in").mkdir(parents=True)
    assert re.match(
        r": is a folder; name a file in it \(it has none\), or a folder of images", error_of(tmp_path / "empty")
    )
    (tmp_path / "empty" / "in" / ".1.png").write_bytes(b"x")
    assert "or a folder of images" in error_of(tmp_path / "empty")
    listed = photos(tmp_path / "listed", "in/1.png")
    (listed / "rows.json").write_bytes(b"[]")
    assert error_of(listed) == ": is a folder; name a file in it (rows.json)"
    mixed = error_of(photos(tmp_path / "mixed", "1.png", "cat/2.png"))
    assert re.match(r": holds images \(1\.png\) beside folders of them \(cat/2\.png\); wanted a folder for each", mixed)
    splits = photos(tmp_path / "splits", "train/cat/1.png", "Val/cat/2.png")
    assert error_of(splits).startswith(
        ": its folders are splits, not classes (Val, train); name each, such as data.train="
    )
    both = photos(tmp_path / "both", "1.png")
    for name in ("metadata.jsonl", "metadata.csv"):
        (both / name).write_bytes(b"x")
    assert error_of(both) == ": holds metadata.jsonl and metadata.csv; remove one of them"
    (both / "metadata.csv").unlink()
    (both / "metadata.jsonl").write_bytes(b'{"image": "1.png", "caption": "x"}\n')
    assert re.match(r"/metadata\.jsonl:1: no 'file_name'; wanted .* found image, caption", error_of(both))
    (both / "metadata.jsonl").write_bytes(b"\n")
    assert error_of(both) == ": holds no rows; wanted at least one"


def test_links_to_folders_and_impossible_names_are_explained(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "cat/1.png")
    (folder / "dog").symlink_to("cat")
    assert error_of(folder) == "/dog: is a link to a folder; put the folder itself there"
    (folder / "dog").unlink()
    os.rename(folder / "cat" / "1.png", os.fsencode(folder / "cat") + b"/\xff.png")
    with pytest.raises(DataError, match="not UTF-8; rename it"):
        read_rows(folder, section())
    with pytest.raises(DataError, match=r"'a;b\.png': .* holds `;`, .*; rename it"):
        read_rows(photos(tmp_path / "q", "a;b.png"), section())


def test_a_folders_fingerprint_is_its_names_and_contents(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "cat/1.png", "dog/2.png")
    data = DataSection(train=str(folder))
    seen = [fingerprint(data)]
    assert list(seen[0]) == [str(folder)]
    (folder / "cat" / "notes.txt").write_text("x")
    assert fingerprint(data) == seen[0]
    for change in (
        lambda: (folder / "cat" / "1.png").rename(folder / "dog" / "1.png"),
        lambda: Image.new("RGB", (9, 9)).save(folder / "dog" / "2.png"),
        lambda: (folder / "dog" / "1.png").unlink(),
        lambda: (folder / "metadata.jsonl").write_text('{"file_name": "dog/2.png", "label": "dog"}\n'),
        lambda: (folder / "metadata.jsonl").write_text('{"file_name": "dog/2.png", "label": "cat"}\n'),
    ):
        change()
        seen.append(fingerprint(data))
    assert len({str(found) for found in seen}) == len(seen)


def test_folders_are_splits(tmp_path: Path) -> None:
    """Trained, validated and tested on folders; an image that two of them hold is left out of the earlier one."""
    train = photos(tmp_path / "train", *(f"{name}/{n}.png" for name in ("cat", "dog") for n in range(3)))
    test = tmp_path / "test"
    (test / "dog").mkdir(parents=True)
    (test / "dog" / "same.png").write_bytes((train / "dog" / "0.png").read_bytes())
    options = task_options({"name": "classification"})
    data = DataSection(train=str(train), validation=1 / 3, test=str(test))
    task, splits = load(data, options, seed=1)
    assert isinstance(task, task_class("classification"))
    assert [len(rows) for rows in (splits.train, splits.validation, splits.test)] == [3, 2, 1]
    assert any("1 training row left out" in note for note in splits.notes)
    assert set(fingerprint(data)) == {str(train), str(test)}
