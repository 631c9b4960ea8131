"""Speaks the simple package index (PEP 691 JSON, else PEP 503 HTML) and downloads files, resuming where it can.

Imports httpx: import this module only where the network is needed.
"""

from __future__ import annotations

import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import httpx

from weitiao.hub.pip_settings import PipSettings, without_password

TRIES = 5
PAUSE = 0.5
"""Seconds before the second try; doubled before each further one."""
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the whole size, None where the server does not say."""


@dataclass(frozen=True, slots=True)
class Link:
    filename: str
    url: str
    sha256: str | None


class IndexClient:
    """One package index, with the user's certificate, proxy and password. Raises httpx.HTTPError and OSError."""

    def __init__(self, index: str, settings: PipSettings) -> None:
        self.index, self._auth = without_password(index)
        self._host = urlsplit(self.index).netloc
        trusted = urlsplit(self.index).hostname in settings.trusted_hosts
        self._client = httpx.Client(
            verify=False if trusted else _context(settings),
            proxy=settings.proxy or None,
            timeout=settings.timeout,
            follow_redirects=True,
        )

    def __enter__(self) -> IndexClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def links(self, project: str) -> list[Link]:
        """The files of `project`; none when the index does not know it."""
        url = f"{self.index.rstrip('/')}/{re.sub(r'[-_.]+', '-', project).lower()}/"
        if url.startswith("file:"):
            page = _local(url) / "index.html"
            return html_links(page.read_text("utf-8"), url) if page.is_file() else []
        response = _persistently(lambda: self._page(url))
        if response.status_code == httpx.codes.NOT_FOUND:
            return []
        if "json" in response.headers.get("content-type", ""):
            return json_links(response.json(), str(response.url))
        return html_links(response.text, str(response.url))

    def status(self, project: str) -> int:
        """The HTTP status of the page of `project`, asked for once."""
        url = f"{self.index.rstrip('/')}/{project}/"
        with self._client.stream("GET", url, headers={"Accept": _ACCEPT}, auth=self._auth) as response:
            return response.status_code

    def download(self, url: str, part: Path, progress: Progress) -> None:
        """Write the file to `part`, going on behind the bytes that `part` already holds where the server can."""
        if url.startswith("file:"):
            shutil.copyfile(_local(url), part)
        else:
            _persistently(lambda: self._continue(url, part, progress))

    def _page(self, url: str) -> httpx.Response:
        response = self._client.get(url, headers={"Accept": _ACCEPT}, auth=self._auth)
        if response.status_code != httpx.codes.NOT_FOUND:
            response.raise_for_status()
        return response

    def _continue(self, url: str, part: Path, progress: Progress) -> None:
        done = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        auth = self._auth if urlsplit(url).netloc == self._host else None
        with self._client.stream("GET", url, headers=headers, auth=auth) as response:
            if done and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # Nothing follows: the part is whole, or its hash will tell.
            response.raise_for_status()
            done = done if _continues(response, done) else 0
            length = response.headers.get("content-length")
            with part.open("ab" if done else "wb") as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    progress(file.tell(), done + int(length) if length else None)


def json_links(page: dict[str, Any], base: str) -> list[Link]:
    return [
        Link(file["filename"], urljoin(base, file["url"]), (file.get("hashes") or {}).get("sha256"))
        for file in page["files"]
    ]


def html_links(page: str, base: str) -> list[Link]:
    anchors = _Anchors(base)
    anchors.feed(page)
    return anchors.links


class _Anchors(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.base, self.links = base, list[Link]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "base" and href:
            self.base = urljoin(self.base, href)
        elif tag == "a" and href:
            url, fragment = urldefrag(urljoin(self.base, href))
            sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
            self.links.append(Link(unquote(urlsplit(url).path.rpartition("/")[2]), url, sha256))


@contextmanager
def shown_progress(what: str) -> Iterator[Progress]:
    """A progress bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _persistently(action: Callable[[], Any]) -> Any:
    """`action` again after a broken connection or a server's passing error, `TRIES` times in all."""
    for attempt in range(TRIES):
        try:
            return action()
        except httpx.HTTPError as error:
            if attempt + 1 == TRIES or not _passing(error):
                raise
        time.sleep(PAUSE * 2**attempt)
    return None


def _passing(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 425, 429) or error.response.is_server_error
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _continues(response: httpx.Response, done: int) -> bool:
    start = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return response.status_code == httpx.codes.PARTIAL_CONTENT and start is not None and int(start[1]) == done


def _context(settings: PipSettings) -> ssl.SSLContext:
    if not settings.cert:
        context = httpx.create_ssl_context()
    elif Path(settings.cert).is_dir():
        context = ssl.create_default_context(capath=settings.cert)
    else:
        context = ssl.create_default_context(cafile=settings.cert)
    if settings.client_cert:
        context.load_cert_chain(settings.client_cert)
    return context


def _local(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))
