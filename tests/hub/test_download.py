"""The hubs' own clients, unchanged, against a server on this machine that speaks their protocols.

Each call is a process of its own, as the clients read their variables when they are imported.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fake_hubs import FakeHubs, commit_of
from weitiao.hub import download

NAME = "Org/Tiny-1.5B"
WEIGHTS = os.urandom(400_000)
SMALL = {"config.json": b'{"model_type": "qwen2"}', "tokenizer.json": b"{}", "merges.txt": b"a b\n"}
MODEL = {**SMALL, "model.safetensors": WEIGHTS}
OTHERS = {
    "README.md": b"read me",
    "modeling_tiny.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "pytorch_model.bin.index.json": b"{}",
    "tiny.gguf": b"GGUF",
    "onnx/config.json": b"{}",
    "onnx/model.safetensors": b"0",
}
ROWS = b'{"text": "x", "label": "y"}\n' * 20_000
HUBS = ("modelscope", "hf")
DEFAULT = {"modelscope": "master", "hf": "main"}
CHUNK = 10 * 2**20
"""Bytes that Hugging Face's client takes at a time; it goes on behind the last whole chunk."""
CALL = """
import json, sys
from weitiao.errors import WeitiaoError
from weitiao.hub.cache import find_model, hub_file
call, *arguments = json.loads(sys.argv[1])
try:
    print({"model": find_model, "data": hub_file}[call](*arguments))
except WeitiaoError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(2)
print(sorted({"torch", "transformers", "modelscope_hub", "huggingface_hub"} & sys.modules.keys()))
"""


@dataclass
class Answer:
    path: Path | None
    error: str
    stderr: str
    heavy: str
    """Slow libraries that were imported."""


@pytest.fixture
def hubs() -> Iterator[FakeHubs]:
    with FakeHubs() as running:
        running.add(NAME, {**MODEL, **OTHERS})
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


Call = Callable[..., Answer]


@pytest.fixture
def ask(hubs: FakeHubs, home: Path) -> Call:
    """ask("model", name[, cache_dir]) or ask("data", name) in a user's process whose caches lie below `home`."""
    home.mkdir()
    ours = ("HF_", "WEITIAO_", "MODELSCOPE_", "XDG_", "TRANSFORMERS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def call(*arguments: str, **variables: str) -> Answer:
        environment = kept | hubs.environment | {"HOME": str(home), "USERPROFILE": str(home)} | variables
        done = subprocess.run(
            [sys.executable, "-c", CALL, json.dumps(arguments)], env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr, done.stderr
        lines = done.stdout.splitlines()
        if done.returncode:
            assert len(lines) == 1, done.stdout
            return Answer(None, lines[0], done.stderr, "")
        return Answer(Path(lines[0]), "", done.stderr, lines[1])

    return call


def cache(hub: str, home: Path) -> Path:
    return home / ".cache" / ("modelscope" if hub == "modelscope" else "huggingface/hub")


def snapshot(hub: str, home: Path, revision: str | None = None, root: Path | None = None) -> Path:
    root = root or cache(hub, home)
    if hub == "modelscope":
        return root / "models" / NAME.replace("/", "--") / "snapshots" / (revision or "master")
    return root / f"models--{NAME.replace('/', '--')}" / "snapshots" / commit_of(revision or "main")


def contents(folder: Path | None) -> dict[str, bytes]:
    assert folder is not None
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("hub", HUBS)
def test_a_model_is_downloaded_once_into_the_clients_own_cache(hub: str, hubs: FakeHubs, home: Path, ask: Call) -> None:
    first = ask("model", f"{hub}:{NAME}")
    assert first.path == snapshot(hub, home), first.error
    assert contents(first.path) == MODEL
    assert hubs.files_asked() == set(MODEL), "no code, no pickles, no other formats, nothing below a folder"
    label = "ModelScope" if hub == "modelscope" else "Hugging Face"
    root = "~/.cache/modelscope" if hub == "modelscope" else "~/.cache/huggingface/hub"
    assert first.stderr == f"downloading {NAME} from {label} ({hubs.endpoint}): 400 kB, 4 files, into {root}\n"
    assert "torch" not in first.heavy
    hubs.log.clear()
    again = ask("model", f"{hub}:{NAME}")
    assert (again.path, again.stderr, again.heavy) == (first.path, "", "[]")
    assert not hubs.log
    assert ask("model", NAME).path == first.path, "whichever hub a bare name comes from"
    assert not hubs.log


def test_a_bare_name_goes_to_modelscope(hubs: FakeHubs, home: Path, ask: Call) -> None:
    assert ask("model", NAME).path == snapshot("modelscope", home)


@pytest.mark.parametrize("hub", HUBS)
def test_weights_come_last(hub: str, hubs: FakeHubs, ask: Call) -> None:
    """So what has its weights is whole, however a download ended."""
    assert ask("model", f"{hub}:{NAME}").path
    asked = [request.file for request in hubs.log if request.file and request.method == "GET"]
    assert asked[-1] == "model.safetensors"
    assert set(asked[:-1]) == set(SMALL)


@pytest.mark.parametrize("hub", HUBS)
def test_a_revision_is_pinned(hub: str, hubs: FakeHubs, home: Path, ask: Call) -> None:
    hubs.add(NAME, {**MODEL, "model.safetensors": b"old"}, revision="v1.0")
    answer = ask("model", f"{hub}:{NAME}@v1.0")
    assert answer.path == snapshot(hub, home, "v1.0"), answer.error
    assert contents(answer.path)["model.safetensors"] == b"old"
    assert ask("model", f"{hub}:{NAME}@{DEFAULT[hub]}").path == snapshot(hub, home)
    assert ask("model", f"{hub}:{NAME}").path == snapshot(hub, home)


@pytest.mark.parametrize("hub", HUBS)
def test_cache_dir(hub: str, hubs: FakeHubs, home: Path, tmp_path: Path, ask: Call) -> None:
    own = tmp_path / "own"
    answer = ask("model", f"{hub}:{NAME}", str(own))
    assert answer.path == snapshot(hub, home, root=own)
    assert f"into {own}" in answer.stderr
    hubs.log.clear()
    assert ask("model", f"{hub}:{NAME}", str(own)).path == answer.path
    assert not hubs.log


@pytest.mark.parametrize(
    ("hub", "variable"), [("modelscope", "MODELSCOPE_CACHE"), ("hf", "HF_HUB_CACHE"), ("hf", "HUGGINGFACE_HUB_CACHE")]
)
def test_the_clients_variables(hub: str, variable: str, home: Path, tmp_path: Path, ask: Call) -> None:
    answer = ask("model", f"{hub}:{NAME}", **{variable: str(tmp_path / "elsewhere")})
    assert answer.path == snapshot(hub, home, root=tmp_path / "elsewhere"), answer.error


def test_modelscopes_older_variable(hubs: FakeHubs, home: Path, ask: Call) -> None:
    variables = {"MODELSCOPE_ENDPOINT": "", "MODELSCOPE_DOMAIN": hubs.endpoint}
    assert ask("model", NAME, **variables).path == snapshot("modelscope", home)


@pytest.mark.parametrize(("hub", "variable"), [("modelscope", "MODELSCOPE_API_TOKEN"), ("hf", "HF_TOKEN")])
def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub: str, variable: str, hubs: FakeHubs, ask: Call) -> None:
    assert ask("model", f"{hub}:{NAME}", **{variable: "secret"}).path
    listings = [request for request in hubs.log if "/api/" in request.path and "models" in request.path]
    assert {request.token for request in listings} == {"secret"}
    assert {request.token for request in hubs.log if request.path.startswith("/large/")} <= {""}


@pytest.mark.parametrize(("hub", "cut"), [("modelscope", 150_000), ("hf", CHUNK)])
def test_a_cut_connection_is_gone_on_with_in_the_same_call(hub: str, cut: int, hubs: FakeHubs, ask: Call) -> None:
    weights = os.urandom(cut + 250_000)
    hubs.add(NAME, {**SMALL, "model.safetensors": weights})
    hubs.cut["model.safetensors"] = cut
    answer = ask("model", f"{hub}:{NAME}")
    assert contents(answer.path)["model.safetensors"] == weights, answer.error
    first, second = hubs.asked("model.safetensors")
    assert (first.start, first.sent) == (0, cut)
    assert second.start == cut, "a Range header asked for the rest"
    assert first.sent + second.sent == len(weights), "no byte was fetched twice"


def test_a_broken_download_is_gone_on_with_by_the_next_call(hubs: FakeHubs, home: Path, ask: Call) -> None:
    hubs.cut["model.safetensors"] = 150_000
    broken = ask("model", NAME, MODELSCOPE_DOWNLOAD_MAX_RETRIES="0")
    assert f"the download of model '{NAME}' from ModelScope ({hubs.endpoint}) broke off (" in broken.error
    assert broken.error.endswith("; the same command goes on with it")
    assert not (snapshot("modelscope", home) / "model.safetensors").exists()
    answer = ask("model", NAME)
    assert contents(answer.path) == MODEL, answer.error
    assert "the missing 250 kB of 400 kB, 4 files" in answer.stderr
    first, second = hubs.asked("model.safetensors")
    assert (second.start, first.sent + second.sent) == (150_000, len(WEIGHTS))
    assert [len(hubs.asked(name)) for name in SMALL] == [1, 1, 1]


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json"])
def test_an_incomplete_snapshot_is_finished(hub: str, lost: str, hubs: FakeHubs, ask: Call) -> None:
    path = ask("model", f"{hub}:{NAME}").path
    assert path
    (path / lost).resolve().unlink()
    (path / lost).unlink(missing_ok=True)
    hubs.log.clear()
    answer = ask("model", NAME)
    assert answer.path == path, answer.error
    assert contents(path) == MODEL
    assert hubs.files_asked() == {lost}


def test_an_old_layout_is_finished_in_its_place(hubs: FakeHubs, home: Path, ask: Call) -> None:
    folder = cache("modelscope", home) / "hub" / NAME.replace(".", "___")
    folder.mkdir(parents=True)
    for name, content in SMALL.items():
        (folder / name).write_bytes(content)
    assert ask("model", NAME).path == folder
    assert contents(folder) == MODEL
    assert hubs.files_asked() == {"model.safetensors"}


@pytest.mark.parametrize("hub", HUBS)
def test_a_damaged_file_is_refused_and_fetched_again(hub: str, hubs: FakeHubs, ask: Call) -> None:
    hubs.corrupt.add("model.safetensors")
    answer = ask("model", f"{hub}:{NAME}")
    assert "sent a damaged file" in answer.error
    hubs.corrupt.clear()
    assert contents(ask("model", f"{hub}:{NAME}").path) == MODEL


@pytest.mark.parametrize(
    ("hub", "variable"), [("modelscope", "WEITIAO_OFFLINE"), ("hf", "WEITIAO_OFFLINE"), ("hf", "HF_HUB_OFFLINE")]
)
def test_offline(hub: str, variable: str, hubs: FakeHubs, ask: Call) -> None:
    refused = ask("model", f"{hub}:{NAME}", **{variable: "1"})
    assert refused.error.startswith(f"ModelError: no model '{NAME}' on this disk (looked in ~/.cache/")
    assert f"and {variable} is set; unset it, or fetch it where there is a network with `" in refused.error
    assert not hubs.log
    here = ask("model", f"{hub}:{NAME}").path
    hubs.log.clear()
    assert ask("model", f"{hub}:{NAME}", **{variable: "1"}).path == here
    assert not hubs.log


@pytest.mark.parametrize("hub", HUBS)
def test_a_full_disk(hub: str, hubs: FakeHubs, home: Path, ask: Call) -> None:
    hubs.claim["model.safetensors"] = 5 * 10**15
    answer = ask("model", f"{hub}:{NAME}")
    assert f"model '{NAME}' cannot be written into ~/.cache/" in answer.error
    assert "it needs 5.00 PB, and " in answer.error
    assert answer.error.endswith("B are free there; make room, or set model.cache_dir elsewhere")
    assert not hubs.files_asked()


@pytest.mark.parametrize("hub", HUBS)
def test_no_such_model(hub: str, ask: Call) -> None:
    answer = ask("model", f"{hub}:Org/Nothing")
    assert answer.error.startswith("ModelError: no model 'Org/Nothing' on ")
    other = "hf" if hub == "modelscope" else "modelscope"
    assert f"try {other}:Org/Nothing" in answer.error
    assert not answer.stderr


@pytest.mark.parametrize("hub", HUBS)
def test_no_such_revision(hub: str, ask: Call) -> None:
    answer = ask("model", f"{hub}:{NAME}@v9")
    assert f"model '{NAME}@v9' has no revision 'v9' on " in answer.error


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("hub", HUBS)
def test_a_gated_model(hub: str, status: int, hubs: FakeHubs, ask: Call) -> None:
    hubs.refuse[NAME] = status
    answer = ask("model", f"{hub}:{NAME}")
    assert f"does not give model '{NAME}' (HTTP status {status}); ask for access on its page" in answer.error
    assert ("MODELSCOPE_API_TOKEN" if hub == "modelscope" else "HF_TOKEN") in answer.error


@pytest.mark.parametrize("hub", HUBS)
def test_a_hub_that_cannot_be_reached(hub: str, hubs: FakeHubs, ask: Call) -> None:
    nowhere = "http://127.0.0.1:9"
    answer = ask("model", f"{hub}:{NAME}", MODELSCOPE_ENDPOINT=nowhere, HF_ENDPOINT=nowhere)
    assert answer.error.startswith(f"ModelError: no model '{NAME}' on this disk (looked in ~/.cache/")
    assert f"({nowhere}) cannot be reached (" in answer.error
    assert f"try {'hf' if hub == 'modelscope' else 'modelscope'}:{NAME}" in answer.error
    assert "pypi:smollm2-135m-instruct" in answer.error


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({**SMALL, "pytorch_model.bin": b"x"}, "has no *.safetensors on {}, only pytorch_model.bin; name a repository"),
        ({"x.gguf": b"x"}, "has no *.safetensors on {}, only x.gguf; name a repository with safetensors (or the path"),
        ({"README.md": b"x"}, "has no *.safetensors on {}, no weights at all"),
        ({"adapter_model.safetensors": b"x"}, "has no config.json on {}; name a whole model, not an adapter"),
    ],
)
def test_what_is_no_model_for_us(hub: str, files: dict[str, bytes], words: str, hubs: FakeHubs, ask: Call) -> None:
    hubs.add("Org/Other", files)
    answer = ask("model", f"{hub}:Org/Other")
    assert words.format("ModelScope" if hub == "modelscope" else "Hugging Face") in answer.error
    assert not hubs.files_asked()


@pytest.mark.parametrize("hub", HUBS)
def test_a_data_sets_file(hub: str, hubs: FakeHubs, home: Path, ask: Call) -> None:
    hubs.add("Org/Rows", {"data/a.jsonl": ROWS, "data/b.jsonl": b"{}\n"}, kind="dataset")
    hubs.add("Org/Rows", {"data/a.jsonl": b"{}\n"}, kind="dataset", revision="v1")
    answer = ask("data", f"{hub}:Org/Rows/data/a.jsonl")
    assert answer.path, answer.error
    assert answer.path.read_bytes() == ROWS
    assert answer.path.is_relative_to(cache(hub, home))
    assert "downloading Org/Rows from " in answer.stderr
    assert "560 kB, data/a.jsonl, into ~/.cache/" in answer.stderr
    assert hubs.files_asked() == {"data/a.jsonl"}
    hubs.log.clear()
    assert ask("data", f"{hub}:Org/Rows/data/a.jsonl").path == answer.path
    assert not hubs.log
    pinned = ask("data", f"{hub}:Org/Rows@v1/data/a.jsonl")
    assert pinned.path
    assert pinned.path.read_bytes() == b"{}\n"


@pytest.mark.parametrize("hub", HUBS)
def test_a_data_sets_file_that_is_not_there(hub: str, hubs: FakeHubs, ask: Call) -> None:
    hubs.add("Org/Rows", {"data/train.jsonl": ROWS}, kind="dataset")
    answer = ask("data", f"{hub}:Org/Rows/train.jsonl")
    assert answer.error.startswith("DataError: data set 'Org/Rows' has no file train.jsonl on ")
    assert answer.error.endswith("; did you mean data/train.jsonl?")
    assert "no data set 'Org/Row' on" in ask("data", f"{hub}:Org/Row/train.jsonl").error


def test_lines_now_and_then_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(download, "LINE_EVERY", 0.01)
    (tmp_path / "old").write_bytes(b"x" * 1000)
    with download._progress(tmp_path, "Org/Name", 4000):
        (tmp_path / "new").write_bytes(b"x" * 3000)
        print("a client's torn bar", file=sys.stderr)
        while "Org/Name: 3.00 kB of 4.00 kB\n" not in screen.getvalue():
            time.sleep(0.01)
    assert "torn" not in screen.getvalue()


def test_sizes() -> None:
    counts = {
        0: "0 B",
        999: "999 B",
        1000: "1.00 kB",
        54_321: "54.3 kB",
        3_101_230_000: "3.10 GB",
        5 * 10**18: "5000 PB",
    }
    assert {count: download.size(count) for count in counts} == counts
