"""A stand-in for SwanLab's server on a loopback port: it answers as far as the SDK asks, and keeps what it is sent.

with SwanLabServer() as server:
    server.environment      variables that lead the SDK here, with a key
    server.points           {"train/loss": [(step, value), …]}
    server.texts            [(content, caption), …] of "Prediction"
    server.config           the run's config
    server.states           states that it was told, such as "FINISHED"
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER, KEY = "tester", "a-key"


class SwanLabServer:
    def __init__(self, answers_metrics: bool = True) -> None:
        """answers_metrics: false refuses every figure with 503, as a server that is overloaded."""
        self.answers_metrics = answers_metrics
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.texts: list[tuple[str, str]] = []
        self.config: dict[str, Any] = {}
        self.states: list[str] = []
        self.files: dict[str, str] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kept": self}))
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self.environment = {"SWANLAB_API_HOST": self.address, "SWANLAB_API_KEY": KEY}

    def __enter__(self) -> SwanLabServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """(status, JSON) for a request below /api."""
        if path == "/login/api_key":
            return 200, {"sid": "s", "expiredAt": "2099-01-01T00:00:00.000Z", "userInfo": {"username": USER}}
        if path == "/house/metrics":
            return self._metrics(body)
        if path == "/resources/presigned/put":
            return 200, {"urls": [f"{self.address}/files/{name}" for name in body["paths"]]}
        if path.endswith("/experiment"):
            return 201, {"cuid": "e1", "slug": "r1", "name": body["name"]}
        if path.endswith("/profile"):
            self.config |= {key: entry["value"] for key, entry in body.get("config", {}).items()}
        if path.endswith("/state"):
            self.states.append(body["state"])
        if method == "GET" and path.startswith("/project/"):
            name = path.rpartition("/")[2]
            counts = {"experiments": 0, "contributors": 1, "collaborators": 0, "clones": 0}
            project = {"cuid": "p1", "name": name, "path": f"/{USER}/{name}", "visibility": "PRIVATE"}
            return 200, {**project, "group": {"username": USER}, "_count": counts}
        return 200, {}

    def _metrics(self, body: Any) -> tuple[int, Any]:
        if not self.answers_metrics:
            return 503, {"code": "busy", "message": "busy"}
        for metric in body["metrics"]:
            if body["type"] == "scalar":
                self.points.setdefault(metric["key"], []).append((metric["index"], metric["data"]))
            elif body["type"] == "media":
                captions = [more["caption"] for more in metric["more"]]
                contents = [next(text for path, text in self.files.items() if path.endswith(f)) for f in metric["data"]]
                self.texts += zip(contents, captions, strict=True)
        return 200, {}


class _Handler(BaseHTTPRequestHandler):
    kept: SwanLabServer

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if path.startswith("/files/"):
            self.kept.files[path] = raw.decode("utf-8")
            status, answer = 200, {}
        else:
            status, answer = self.kept.answer(self.command, path.removeprefix("/api"), json.loads(raw or b"{}"))
        sent = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, *_: object) -> None:
        """Quiet."""
