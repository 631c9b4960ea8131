"""Text files, decoded strictly and in blocks. Not a format itself: the text formats read through it."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from weitiao.errors import DataError

TEXT_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
"""Extensions of the formats that are read as text."""
BLOCK = 1 << 16
"""Characters or bytes read at once."""
# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
GB2312_SHARE = 0.9
"""Share of the characters beyond ASCII that GB2312 holds in ordinary Chinese text; other bytes read as GB18030 give
rarer ones."""
GB_NAMES = ("gb18030", "gbk", "gb2312")
UTF_8_CHARACTERS = 8
"""Chinese characters from which on a text that is valid UTF-8 is no GB18030: of few, both may be true."""
AUTO = "auto"
"""The encoding that a file's own bytes tell."""
EACH_ITS_OWN = "or leave it out, so that each file is read in its own encoding"
UTF_16_ZEROS = 0.005
"""Share of the characters of UTF-16 that are ASCII, and so half zero: separators and line breaks, at the least."""


@contextmanager
def opened(path: Path, encoding: str, newline: str | None = None) -> Iterator[TextIO]:
    """The file as text, without a byte-order mark; `newline` as for `open`.

    Raises DataError for an unknown encoding, another encoding's mark, and, while reading, bytes that do not decode.
    """
    codec = _codec(path, text_encoding(path, encoding))
    with path.open("rb") as raw:
        try:
            yield io.TextIOWrapper(raw, encoding=codec, newline=newline)
        except UnicodeDecodeError as error:
            # The decoder was given what it had kept back and the last block, up to where `raw` stands.
            raise _undecodable(path, codec, raw.tell() - len(error.object) + error.start) from None
        except UnicodeError as error:
            raise DataError(f"{path}: is not {encoding} ({error}); set data.encoding to what it is") from None


def lines(path: Path, encoding: str, newline: str | None = None) -> Iterator[tuple[int, str]]:
    """(1-based number, line with its end) of each line; DataError as `opened`, and for NUL characters."""
    with opened(path, encoding, newline) as text:
        for number, line in enumerate(text, 1):
            if "\0" in line:
                raise nul_error(f"{path}:{number}")
            yield number, line


def sniffed(path: Path) -> str:
    """Encoding that reads a file: that of its byte-order mark, else UTF-8, GB18030 or UTF-16, the first that fits.

    DataError when none does.
    """
    with path.open("rb") as raw:
        start = raw.read(BLOCK)
    marked = next((name for mark, name in MARKS if start.startswith(mark)), None)
    for name in filter(None, [marked or _utf_16(start), "utf-8", "gb18030"]):
        if _reads_as(path, name):
            return name
    raise DataError(
        f"{path}: its text is neither UTF-8, GB18030 nor UTF-16; save it as UTF-8, or say what it is (such as big5)"
    )


def text_encoding(path: Path, encoding: str) -> str:
    """The encoding that a file is read with: what `data.encoding` says, or, with `auto`, what its bytes tell. UTF-8
    where they tell nothing: then it says which byte is wrong."""
    if encoding != AUTO:
        return encoding
    facts = path.stat()
    return _found(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=64)
def _found(path: Path, changed: int, size: int) -> str:
    """Kept, for a file is opened several times."""
    return encoding_like(path, "utf-8")


def encoding_like(path: Path, usual: str) -> str:
    """Encoding of a file that comes to a run whose own rows were read as `usual`: that of its bytes, which may differ,
    and `usual` where they do not tell."""
    if not path.is_file() or path.suffix.lower() not in TEXT_FILES:
        return usual
    try:
        found = sniffed(path)
    except DataError:
        return usual
    kept = found == "gb18030" and not usual.startswith("utf") and _reads_as(path, usual)
    return usual if kept else found


def _utf_16(start: bytes) -> str | None:
    """The UTF-16 of a text without a mark, if it looks like one."""
    low, high = start[::2].count(0), start[1::2].count(0)
    if max(low, high) < UTF_16_ZEROS * len(start) / 2:
        return None
    return "utf-16-le" if high > low else "utf-16-be"


def nul_error(place: str) -> DataError:
    return DataError(
        f"{place}: holds a NUL character, which text files do not; restore the file if it is damaged, "
        "or set data.encoding=utf-16-le if it is UTF-16"
    )


def _codec(path: Path, encoding: str) -> str:
    """Name of the codec to read with: one that skips the mark when there is one."""
    name = _known(path, encoding)
    with path.open("rb") as raw:
        start = raw.read(BLOCK)
    for mark, marked in MARKS:
        if start.startswith(mark):
            if not name.startswith(marked):
                raise DataError(
                    f"{path}:1: begins with the byte-order mark of {marked.upper()}, but data.encoding is {encoding}; "
                    f"set data.encoding={marked}, {EACH_ITS_OWN}"
                )
            return "utf-8-sig" if marked == "utf-8" else marked
    if name in ("utf-16", "utf-32"):
        raise DataError(f"{path}:1: has no byte-order mark of {name.upper()}; set data.encoding={name}-le (or -be)")
    if name in GB_NAMES and _is_utf_8(start):
        raise DataError(f"{path}:1: is UTF-8, but data.encoding is {encoding}; set data.encoding=utf-8, {EACH_ITS_OWN}")
    return name


def _is_utf_8(start: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return sum(character > "\u07ff" for character in text) >= UTF_8_CHARACTERS


def _known(path: Path, encoding: str) -> str:
    try:
        # The bytes-to-bytes codecs (`hex`, `zlib`) are refused here, which `codecs.lookup` lets through.
        b"a".decode(encoding, "replace")
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise DataError(
            f"{path}: data.encoding={encoding!r} is no known text encoding; set utf-8, gb18030, utf-16 or another "
            "of Python's names"
        ) from None


def _undecodable(path: Path, codec: str, offset: int) -> DataError:
    place = f"{path}:{_line_at(path, codec, offset)}"
    with path.open("rb") as raw:
        raw.seek(offset)
        byte = raw.read(1).hex() or "end of file"
    came = f"byte {offset + 1} (0x{byte}) is not valid {codec.removesuffix('-sig').upper()}"
    for other in ("utf-8", "gb18030"):
        if not codec.startswith(other) and _reads_as(path, other):
            return DataError(f"{place}: {came}; the file reads as {other}: set data.encoding={other}, {EACH_ITS_OWN}")
    return DataError(f"{place}: {came}; save the file as UTF-8 or set data.encoding to what it is")


def _line_at(path: Path, codec: str, offset: int) -> int:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(codec)("replace"), translate=True)
    line = 1
    # A codec with a state may refuse a text that ends here; the line so far is then the nearest that is known.
    with path.open("rb") as raw, suppress(UnicodeError):
        while block := raw.read(min(BLOCK, offset)):
            offset -= len(block)
            line += decoder.decode(block, final=not offset).count("\n")
    return line


def _reads_as(path: Path, encoding: str) -> bool:
    """Whether the file decodes, and, as GB18030, looks like Chinese."""
    decoder = codecs.getincrementaldecoder(encoding)()
    beyond_ascii = in_gb2312 = 0
    with path.open("rb") as raw:
        try:
            while block := raw.read(BLOCK):
                text = decoder.decode(block)
                if encoding != "gb18030":
                    continue
                ascii_only = len(text.encode("ascii", "ignore"))
                beyond_ascii += len(text) - ascii_only
                in_gb2312 += (len(text.encode("gb2312", "ignore")) - ascii_only) // 2
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return encoding != "gb18030" or in_gb2312 >= GB2312_SHARE * beyond_ascii
