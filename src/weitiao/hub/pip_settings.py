"""Where the user's pip looks for packages: its configuration files and PIP_* variables, read through pip itself."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

PYPI = "https://pypi.org/simple"
_SECTIONS = ("global", "download", ":env:")
"""Of `pip config list`, the later ones first obeyed."""


@dataclass(frozen=True, slots=True)
class PipSettings:
    indexes: tuple[str, ...] = (PYPI,)
    """URLs of simple indexes; a user name and password may stand in them."""
    folders: tuple[Path, ...] = ()
    """Local folders of `find-links`."""
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout: float = 15.0
    """Seconds without a byte."""
    trusted_hosts: frozenset[str] = frozenset()
    """Hosts whose certificate is not checked."""


def read_settings() -> PipSettings:
    """The settings that `pip download` would use here; where pip does not run, those of the PIP_* variables."""
    environment = frozenset((key, value) for key, value in os.environ.items() if key.startswith("PIP_") and value)
    listing = _listing(environment)
    if listing is None:
        return settings_of({key[4:].lower().replace("_", "-"): value for key, value in environment})
    return settings_of(parse_listing(listing))


@cache
def _listing(environment: frozenset[tuple[str, str]]) -> str | None:
    """What `pip config list` prints in this environment; None where pip does not run."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def parse_listing(text: str) -> dict[str, str]:
    """`global.index-url='https://…'` lines of `pip config list` → {"index-url": "https://…"}."""
    values: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in values:
            values[section][name] = _literal(value)
    return {name: value for section in _SECTIONS for name, value in values[section].items()}


def settings_of(values: Mapping[str, str]) -> PipSettings:
    indexes = [values.get("index-url") or PYPI, *values.get("extra-index-url", "").split()]
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = []
    links = values.get("find-links", "").split()
    cert = values.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return PipSettings(
        indexes=tuple(indexes),
        folders=tuple(path for path in map(_path, links) if path.is_dir()),
        cert=cert,
        client_cert=values.get("client-cert"),
        proxy=values.get("proxy"),
        timeout=float(values.get("timeout") or values.get("default-timeout") or 15),
        trusted_hosts=frozenset(host.partition(":")[0] for host in values.get("trusted-host", "").split()),
    )


def without_password(url: str) -> tuple[str, tuple[str, str] | None]:
    """(URL without user name and password, those two or None)."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return bare, (unquote(parts.username), unquote(parts.password or ""))


def _path(link: str) -> Path:
    return Path(url2pathname(urlsplit(link).path) if link.startswith("file:") else link)


def _literal(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value
