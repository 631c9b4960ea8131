"""Which servers answer: all are asked at once, and none is waited for longer than a few seconds."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from weitiao.doctor.facts import Site
from weitiao.hub.download import offline
from weitiao.hub.pip_settings import PYPI, PipSettings, read_settings, without_password

SECONDS = 3.0
HUBS = (
    ("modelscope", "ModelScope", "https://modelscope.cn", "MODELSCOPE_ENDPOINT"),
    ("hf", "Hugging Face", "https://huggingface.co", "HF_ENDPOINT"),
    ("hf", "its mirror", "https://hf-mirror.com", ""),
)
"""Hub, name, address, and the variable that names another address."""
Ask = Callable[[], int]
"""Gives an HTTP status, or raises."""


def sites(skip: str | None = None) -> tuple[Site, ...]:
    """The hubs, and pip's index. skip: why none is asked, such as `--offline`."""
    asked: list[tuple[Site, Ask | None]] = []
    for hub, name, address, variable in HUBS:
        reason, url = skip or offline(hub), os.environ.get(variable) or address
        asked.append((Site(name, _host(url), told=reason or ""), None if reason else partial(_status, url)))
    reason = skip or offline("modelscope")
    settings = PipSettings() if reason else read_settings()
    index = next(iter(settings.indexes), PYPI)
    site = Site("pip's index", _host(index), told=reason or "")
    asked.append((site, None if reason else partial(_index_status, index, settings)))
    return answers(asked, SECONDS)


def answers(asked: Sequence[tuple[Site, Ask | None]], seconds: float) -> tuple[Site, ...]:
    """Each site with what became of it. Threads that a name server keeps waiting are left behind."""
    told: queue.SimpleQueue[tuple[int, Site]] = queue.SimpleQueue()
    found = {at: site for at, (site, _) in enumerate(asked)}
    waited = {at for at, (_, ask) in enumerate(asked) if ask}
    for at in waited:
        threading.Thread(target=_put, args=(told, at, *asked[at]), daemon=True).start()
        found[at] = replace(found[at], reachable=False, told=f"no answer in {seconds:g} s")
    end = time.monotonic() + seconds
    while waited and (left := end - time.monotonic()) > 0:
        try:
            at, site = told.get(timeout=left)
        except queue.Empty:
            break
        found[at] = site
        waited.discard(at)
    return tuple(found.values())


def _put(told: queue.SimpleQueue[tuple[int, Site]], at: int, site: Site, ask: Ask) -> None:
    told.put((at, _answer(site, ask)))


def _answer(site: Site, ask: Ask) -> Site:
    try:
        status = ask()
    except Exception as error:  # a URL, and so a password, may stand in its text
        return replace(site, reachable=False, told=f"no connection ({type(error).__name__})")
    return replace(site, reachable=status < 400, told="" if status < 400 else f"HTTP status {status}")


def _status(url: str) -> int:
    import httpx

    with httpx.Client(timeout=SECONDS, follow_redirects=True) as client, client.stream("GET", url) as response:
        return response.status_code


def _index_status(index: str, settings: PipSettings) -> int:
    from weitiao.hub.index_client import IndexClient

    if index.startswith("file:"):
        return 200
    with IndexClient(index, replace(settings, timeout=SECONDS)) as client:
        return client.status("pip")


def _host(url: str) -> str:
    """Of an index, as little as names it: a token may stand in its path, too."""
    return urlsplit(without_password(url)[0]).hostname or os.path.basename(url)
