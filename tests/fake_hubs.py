"""A server on 127.0.0.1 that speaks ModelScope's and Hugging Face's protocols as far as their clients ask for files.

    with FakeHubs() as hubs:
        hubs.add("ORG/NAME", {"config.json": b"{}", …})            one revision: `master` and `main`
        hubs.add("ORG/NAME", {…}, revision="v1")                    another one
        hubs.add("ORG/ROWS", {"data/a.jsonl": b"…"}, kind="dataset")
        subprocess.run(…, env=os.environ | hubs.environment)
        hubs.log                                                    what was asked for, and how many bytes went out

Files that end in .safetensors, .bin or .jsonl are large files there: on Hugging Face behind a redirect to another host,
with their SHA-256. What a test sets to misbehave: `hubs.cut` (path → bytes after which the connection breaks, once),
`hubs.corrupt` (paths whose content is wrong), `hubs.refuse` (id → HTTP status of its files), `hubs.claim` (path → size
that the listings tell).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

DEFAULTS = ("master", "main")
LARGE = (".safetensors", ".bin", ".jsonl")
Files = dict[str, bytes]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    file: str | None
    """Path in the repository where content was asked for."""
    start: int
    """First byte that a Range header asked for, else 0."""
    sent: int
    """Bytes of the content that went out."""
    token: str


@dataclass
class FakeHubs:
    repositories: dict[tuple[str, str], dict[str, Files]] = field(default_factory=dict)
    """(kind, id) → revision → path → content."""
    cut: dict[str, int] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    refuse: dict[str, int] = field(default_factory=dict)
    claim: dict[str, int] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)

    def add(self, name: str, files: Mapping[str, bytes], kind: str = "model", revision: str | None = None) -> None:
        revisions = self.repositories.setdefault((kind, name), {})
        for known in [revision] if revision else DEFAULTS:
            revisions[known] = dict(files)

    def __enter__(self) -> FakeHubs:
        hubs = self

        class Bound(_Handler):
            pass

        Bound.hubs = hubs
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self) -> str:
        """Where Hugging Face's large files are; another host, which must not see a token."""
        return f"http://localhost:{self._server.server_port}/large"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send both clients here, and make them give up soon."""
        return {
            "MODELSCOPE_ENDPOINT": self.endpoint,
            "HF_ENDPOINT": self.endpoint,
            "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
            "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1",
        }

    def asked(self, file: str) -> list[Request]:
        return [request for request in self.log if request.file == file and request.method == "GET"]

    def files_asked(self) -> set[str]:
        return {request.file for request in self.log if request.file}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hubs: FakeHubs

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        for pattern, answer in self.ROUTES:
            if match := re.fullmatch(pattern, path):
                kind, name = match["kind"].rstrip("s/") or "model", match["name"]
                return answer(self, kind, name, match.groupdict(), query)
        return self._json(404, {"Code": 404, "Message": "no such page"})

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    # -- ModelScope

    def _ms_info(self, kind: str, name: str, match: dict[str, str], query: dict[str, str]) -> None:
        if (kind, name) not in self.hubs.repositories:
            return self._json(404, {"Code": 10010205001, "Message": "模型不存在", "Success": False})
        return self._json(200, {"Code": 200, "Success": True, "Data": {"Name": name.partition("/")[2]}, "data": {}})

    def _ms_list(self, kind: str, name: str, match: dict[str, str], query: dict[str, str]) -> None:
        files = self.hubs.repositories.get((kind, name), {}).get(query["Revision"])
        if files is None:
            return self._json(404, {"Code": 10010205001, "Message": "模型不存在", "Success": False})
        root = f"{query['Root']}/" if query.get("Root") else ""
        listed: list[dict[str, Any]] = [
            {"Path": path, "Name": path, "Type": "blob", "Size": self._size(path, content), "Sha256": _sha256(content)}
            for path, content in files.items()
            if path.startswith(root)
        ]
        listed += [{"Path": folder, "Name": folder, "Type": "tree", "Size": 0} for folder in {*_folders(files)}]
        return self._json(200, {"Code": 200, "Success": True, "Data": {"Files": listed}})

    def _ms_file(self, kind: str, name: str, match: dict[str, str], query: dict[str, str]) -> None:
        path = query["FilePath"]
        files = self.hubs.repositories.get((kind, name), {}).get(query["Revision"], {})
        if name in self.hubs.refuse:
            return self._json(self.hubs.refuse[name], {"Code": 403, "Message": "access denied", "Success": False})
        if path not in files:
            return self._json(404, {"Code": 404, "Message": "no such file"})
        return self._content(path, files[path])

    # -- Hugging Face

    def _hf_info(self, kind: str, name: str, match: dict[str, str], query: dict[str, str]) -> None:
        files = self._hf_files(kind, name, match.get("revision") or "main")
        if files is None:
            return None
        siblings: list[dict[str, Any]] = []
        for path, content in files.items():
            size, sha256 = self._size(path, content), _sha256(content)
            siblings.append({"rfilename": path, "size": size, "blobId": _blob(content)})
            if path.endswith(LARGE):
                siblings[-1]["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 130}
        commit = commit_of(match.get("revision") or "main")
        return self._json(200, {"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False})

    def _hf_tree(self, kind: str, name: str, match: dict[str, str], query: dict[str, str]) -> None:
        files = self._hf_files(kind, name, match["revision"])
        if files is None:
            return None
        entries: list[dict[str, Any]] = []
        for path, content in files.items():
            size = self._size(path, content)
            entries.append({"type": "file", "path": path, "size": size, "oid": _blob(content)})
            if path.endswith(LARGE):
                entries[-1]["lfs"] = {"oid": _sha256(content), "size": size, "pointerSize": 130}
        return self._json(200, entries)

    def _hf_file(self, kind: str, name: str, match: dict[str, str], query: dict[str, str]) -> None:
        files = self._hf_files(kind, name, match["revision"])
        if files is None:
            return None
        if name in self.hubs.refuse:
            return self._json(self.hubs.refuse[name], {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        path = match["path"]
        if path not in files:
            return self._json(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": commit_of(match["revision"])}
        if not path.endswith(LARGE):
            return self._content(path, files[path], headers | {"ETag": f'"{_blob(files[path])}"'})
        headers |= {
            "X-Linked-Etag": f'"{_sha256(files[path])}"',
            "X-Linked-Size": str(len(files[path])),
            "Location": f"{self.hubs.storage}/{kind}s/{name}/{match['revision']}/{quote(path)}",
        }
        return self._json(302, {}, headers)

    def _hf_large(self, kind: str, name: str, match: dict[str, str], query: dict[str, str]) -> None:
        files = self._hf_files(kind, name, match["revision"])
        return None if files is None else self._content(match["path"], files[match["path"]])

    def _hf_files(self, kind: str, name: str, revision: str) -> Files | None:
        """Files of a branch, tag or commit, or None after the refusal has been sent."""
        revisions = self.hubs.repositories.get((kind, name))
        if revisions is None:
            self._json(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        files = next((files for known, files in revisions.items() if revision in (known, commit_of(known))), None)
        if files is None:
            self._json(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        return files

    # -- both

    def _size(self, path: str, content: bytes) -> int:
        return self.hubs.claim.get(path, len(content))

    def _json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._note()
        self.send_response(status)
        for key, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _content(self, path: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if path in self.hubs.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        body = content[start:]
        cut = self.hubs.cut.pop(path, None) if self.command == "GET" else None
        sent = body if cut is None else body[:cut]
        self._note(path, start, len(sent))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        if cut is not None:
            self.close_connection = True

    def _note(self, file: str | None = None, start: int = 0, sent: int = 0) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hubs.log.append(Request(self.command, self.path, file, start, sent if self.command == "GET" else 0, token))

    _ID = r"(?P<name>[^/]+/[^/]+)"
    ROUTES = (
        (rf"/(?:api/v1|openapi/v1)/(?P<kind>models|datasets)/{_ID}", _ms_info),
        (rf"/api/v1/(?P<kind>models|datasets)/{_ID}/repo/(?:files|tree)", _ms_list),
        (rf"/api/v1/(?P<kind>models|datasets)/{_ID}/repo", _ms_file),
        (rf"/api/(?P<kind>models|datasets)/{_ID}(?:/revision/(?P<revision>.+))?", _hf_info),
        (rf"/api/(?P<kind>models|datasets)/{_ID}/tree/(?P<revision>[^/]+)", _hf_tree),
        (rf"/large/(?P<kind>models|datasets)/{_ID}/(?P<revision>[^/]+)/(?P<path>.+)", _hf_large),
        (rf"/(?P<kind>datasets/|){_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _hf_file),
    )


def commit_of(revision: str) -> str:
    """Commit that a branch or tag stands for; a commit stands for itself."""
    return revision if re.fullmatch("[0-9a-f]{40}", revision) else hashlib.sha1(revision.encode()).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _folders(files: Files) -> list[str]:
    return [path.rpartition("/")[0] for path in files if "/" in path]
