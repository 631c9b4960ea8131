"""The data sets' parsers on samples of their sources' formats, and (slow) the real files by their hashes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from fake_hubs import FakeHubs
from weitiao.config import DataSection
from weitiao.data import fetch as data_sets
from weitiao.data.fetch import coco_caption as coco
from weitiao.data.fetch import movie_reviews as movies
from weitiao.data.fetch import peoples_daily_ner as ner
from weitiao.data.fetch import product_reviews as reviews
from weitiao.data.source import read_rows
from weitiao.errors import DataError
from weitiao.images import MOST_BYTES
from weitiao.tasks.generation import Generation, GenerationOptions

SAMPLE = (
    "中共中央/nt  总书记/n  、/w  国家/n  主席/n  江/nr  泽民/nr  在/p  安徽省/ns  合肥市/ns  ３/m  ／/w  ４/m  处/q"
)


def parsed(line: str) -> list[list[tuple[str, str]]]:
    return [tokens for paragraph in ner.paragraphs([line]) for tokens in ner.sentences(paragraph)]


def texts(line: str) -> list[str]:
    return ["".join(word for word, _ in tokens) for tokens in parsed(line)]


def test_a_tagged_line_becomes_text_and_entities() -> None:
    (tokens,) = parsed(SAMPLE)
    row = ner.sentence(tokens)
    assert row == {
        "text": "中共中央总书记、国家主席江泽民在安徽省合肥市３／４处",
        "entities": [
            {"start": 0, "end": 4, "type": "组织", "text": "中共中央"},
            {"start": 12, "end": 15, "type": "人名", "text": "江泽民"},
            {"start": 16, "end": 19, "type": "地点", "text": "安徽省"},
            {"start": 19, "end": 22, "type": "地点", "text": "合肥市"},
        ],
    }


def test_offsets_are_code_points() -> None:
    (row,) = [ner.sentence(tokens) for tokens in parsed("𠀀𠀁/n  江/nr  泽民/nr  e\u0301/n  北京/ns")]
    text = str(row["text"])
    assert [text[e["start"] : e["end"]] for e in row["entities"]] == ["江泽民", "北京"]  # type: ignore[index, attr-defined]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("好/a  。/w  ”/w  他/r  说/v  ？/w  ！/w  ”/w  完/v", ["好。”", "他说？！”", "完"]),
        ("“/w  好/a  ！/w  ”/w  ）/w  。/w", ["“好！”）。"]),
        ("无/v  标点/n", ["无标点"]),
        ("一/m  ，/w  二/m  ；/w  三/m  。/w", ["一，二；三。"]),
        ("  ", []),
    ],
)
def test_sentences_end_behind_closing_marks(line: str, expected: list[str]) -> None:
    assert texts(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("周/nr  恩来/nr  邓/nr  颖超/nr", ["周恩来", "邓颖超"]),
        ("乔/nr  石/nr  朱/nr  镕基/nr  胡/nr  锦涛/nr", ["乔石", "朱镕基", "胡锦涛"]),
        ("欧阳/nr  修/nr", ["欧阳修"]),
        ("陈/nr  方/nr  安生/nr", ["陈方安生"]),
        ("马克思/nr  恩格斯/nr", ["马克思", "恩格斯"]),
        ("克林顿/nr  、/w  叶/nr  利钦/nr", ["克林顿", "叶利钦"]),
        ("江/nr  主席/n", ["江"]),
    ],
)
def test_surname_and_given_name_are_one_person(line: str, expected: list[str]) -> None:
    (tokens,) = parsed(line)
    assert [entity["text"] for entity in ner.sentence(tokens)["entities"]] == expected  # type: ignore[attr-defined]


def test_a_later_split_has_no_sentence_of_an_earlier_one() -> None:
    first, second, third = sorted(ner.SPLITS.values())
    lines = [f"{number}/m" for number in range(third + 3)]
    lines[second] = lines[first]
    lines[second + 1] = "新/a  。/w  旧/a  。/w"
    lines[third] = "旧/a  。/w  又/d  。/w"
    splits = ner.split(ner.paragraphs(lines))
    assert len(splits["train"]) == second
    assert [row["text"] for row in splits["validation"]][:2] == ["新。", "旧。"]
    assert [row["text"] for row in splits["test"]] == ["又。", str(third + 1), str(third + 2)]


def test_reviews_once_and_without_contradictions() -> None:
    lines = {"好评": ["很好。", "很好！", " 不错呢 ", "一 般 般", "优点:", ""], "差评": ["太差了", "一般般", "太差了"]}
    assert reviews.distinct(lines) == {"好评": ["不错呢"], "差评": ["太差了"]}


def test_reviews_are_split_by_label_at_any_order_of_the_lines() -> None:
    some = {"好评": [f"好{n}" for n in range(200)], "差评": [f"差{n}" for n in range(50)]}
    splits = reviews.split(some)
    counts = {name: Counter(label for _, label in rows) for name, rows in splits.items()}
    assert counts == {
        "train": {"好评": 160, "差评": 40},
        "validation": {"好评": 20, "差评": 5},
        "test": {"好评": 20, "差评": 5},
    }
    assert len({text for rows in splits.values() for text, _ in rows}) == 250
    assert reviews.split({label: texts[::-1] for label, texts in reversed(some.items())}) == splits
    assert reviews.split(some, seed=1) != splits


class Source(ModuleType):
    """A data set of one file."""

    NOTICE = "made up\n"
    content = "一\n"

    def build(self, root: Path) -> dict[str, str]:
        return {"train.jsonl": self.content}


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    made_up = Source("made_up")
    monkeypatch.setattr(data_sets, "names", lambda: ["made-up"])
    monkeypatch.setattr(data_sets.importlib, "import_module", lambda name: made_up)
    return made_up


def test_files_are_written_kept_refused_and_overwritten(source: Source, tmp_path: Path) -> None:
    dest = tmp_path / "data"
    paths = data_sets.fetch("made_up", dest)
    assert paths == [dest / "train.jsonl", dest / "NOTICE-made-up.txt"]
    assert paths[0].read_bytes() == "一\n".encode()
    before = paths[0].stat().st_mtime_ns
    assert data_sets.fetch("made-up", dest) == paths
    assert paths[0].stat().st_mtime_ns == before
    source.content = "二\n"
    (dest / "NOTICE-made-up.txt").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl: there already, with other content"):
        data_sets.fetch("made-up", dest)
    assert [path.name for path in dest.iterdir()] == ["train.jsonl"]
    assert data_sets.fetch("made-up", dest, overwrite=True) == paths
    assert paths[0].read_text("utf-8") == "二\n"


def test_large_files_are_copied_from_the_cache(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "cached.bin"
    cached.write_bytes(b"one")
    monkeypatch.setattr(source, "build", lambda root: {"in/a.bin": cached})
    path = data_sets.fetch("made-up", tmp_path / "data")[0]
    assert path == tmp_path / "data" / "in" / "a.bin"
    assert path.read_bytes() == b"one"
    before = path.stat().st_mtime_ns
    data_sets.fetch("made-up", tmp_path / "data")
    assert path.stat().st_mtime_ns == before
    cached.write_bytes(b"other")
    with pytest.raises(DataError, match=r"a\.bin: there already, with other content"):
        data_sets.fetch("made-up", tmp_path / "data")
    data_sets.fetch("made-up", tmp_path / "data", overwrite=True)
    assert path.read_bytes() == b"other"
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.bin"]


def test_a_limit_is_for_data_sets_that_know_it(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="data set 'made-up' has no --limit; it is built whole"):
        data_sets.fetch("made-up", tmp_path / "data", limit=3)
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(source, "LIMIT", 500, raising=False)
    monkeypatch.setattr(source, "build", lambda root, limit: {"a": str(limit)})
    for limit, wanted in ((None, "500"), (3, "3")):
        assert data_sets.fetch("made-up", tmp_path / wanted, limit=limit)[0].read_text() == wanted


def test_clear_ratings_become_labels() -> None:
    text = "1\t2.25\tA joy.\r\n2\t-0.5\tToo tepid\ta biopic\r\n3\t0.49\tIt is a film.\r\n"
    assert movies.labelled(text) == {"negative": ["Too tepid\ta biopic"], "positive": ["A joy."]}


def test_names_and_unknown_names(tmp_path: Path) -> None:
    assert data_sets.names() == [
        *("ccfbdci", "coco-caption", "fudan-news", "movie-reviews", "peoples-daily-ner", "product-reviews")
    ]
    with pytest.raises(DataError, match="did you mean 'product-reviews'"):
        data_sets.fetch("product-review", tmp_path)
    with pytest.raises(DataError, match=f"choose {', '.join(data_sets.names())}"):
        data_sets.fetch("xyz", tmp_path)


FILES = {
    "movie-reviews": {
        "train.jsonl": (8_055, "4090e6161bde738ec8675526d2a5b1e30c0a288e8894da30a7cb033870d3d1c8"),
        "validation.jsonl": (1_008, "aed5290967bdc91455396520b676041682ee900b4b594fbdc0e61684dabb7333"),
        "test.jsonl": (1_006, "3e81b13571bbdf307641c05054c6f003740bbe6601068e765492cf8f3f313732"),
    },
    "peoples-daily-ner": {
        "train.jsonl": (36_918, "d945c037b9135b5b6d3d56471388ef29765ba0c0d186456ab5ff122e6b1d23fa"),
        "validation.jsonl": (3_575, "f6c3faa323cd40cad57eb690c92557cc54c2193e8cd955c95b1542c67e30f960"),
        "test.jsonl": (3_874, "d98bfbb80f20a7d2219c6394b75a74dddeed227d9395330c65806edc5c6bb57a"),
    },
    "product-reviews": {
        "train.jsonl": (13_838, "be9573a27d44a60d4d5297a9019429def264aab81ce87763429576623f9e4bb5"),
        "validation.jsonl": (1_729, "88e2f5d1ed564c8a84f471ce40987e6c1be682496191fae3b86ef327a655b96f"),
        "test.jsonl": (1_730, "b07e5778bde369b36585cbdddee7b51aa1596080005c5391f850ad82c0c84b21"),
    },
}


@pytest.mark.parametrize(
    ("name", "kind", "files"),
    [
        ("fudan-news", "swift/zh_cls_fudan-news", {"train.jsonl": "train.jsonl", "test.jsonl": "test.jsonl"}),
        ("ccfbdci", "qgyd2021/chinese_ner_sft", {"data/ccfbdci.jsonl": "ccfbdci.jsonl"}),
    ],
)
def test_the_tutorials_data_comes_from_its_hub(name: str, kind: str, files: dict[str, str], tmp_path: Path) -> None:
    """`weitiao data fetch` with the hub's own client, against a server on this machine."""
    there = {path: f'{{"text": "{path}"}}\r\n'.encode() for path in files}
    with FakeHubs() as hubs:
        hubs.add(kind, {**there, "README.md": b"read me"}, kind="dataset")
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
        environment |= hubs.environment | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
        arguments = [sys.executable, "-m", "weitiao.cli", "data", "fetch", name, "--dest", "."]
        for asked in (set(files), set[str]()):
            hubs.log.clear()
            done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert done.stdout.split() == [*files.values(), f"NOTICE-{name}.txt"]
            assert hubs.files_asked() == asked, "once, and nothing else"
    assert {path: (tmp_path / file).read_bytes() for path, file in files.items()} == there
    assert "Apache License 2.0" in (tmp_path / f"NOTICE-{name}.txt").read_text("utf-8")


class Storage:
    """A server on 127.0.0.1 with files by path; counts what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        storage = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                storage.asked[self.path] += 1
                content = storage.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def table(self, rows: list[tuple[str, str, str, str]]) -> None:
        text = io.StringIO()
        csv.writer(text).writerows([("uniq_id", "image_id", "caption", "image"), *rows])
        with zipfile.ZipFile(whole := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train.csv", text.getvalue())
        self.files["/train.csv.zip"] = whole.getvalue()


CAPTIONS = ["A dog, in the grass.", '"Hi" says\na sign.', "草地上的狗。", "Two cats.", "A bus."]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """What the script in ModelScope's repository names: five rows on four images, the first two on the same."""
    served = Storage()
    rows = []
    for number, caption in enumerate(CAPTIONS):
        identity = str(max(number, 1))
        rows.append((str(number), identity, caption, f"{served.address}/{identity}.jpg"))
        Image.new("RGB", (40, 30), (50 * number, 0, 0)).save(made := io.BytesIO(), "JPEG")
        served.files[f"/{identity}.jpg"] = made.getvalue()
    served.table(rows)
    script = tmp_path / "hub/datasets/modelscope--coco_2014_caption/snapshots/master/coco_2014_caption.py"
    script.parent.mkdir(parents=True)
    urls = f'_URLS = {{\n    "train": "{served.address}/train.csv.zip",\n    "valid": ""}}\n'
    script.write_text(f'raise SystemExit("not to be run")\n{urls}')
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("WEITIAO_OFFLINE")
    monkeypatch.setattr("weitiao.hub.index_client.TRIES", 1)
    monkeypatch.chdir(tmp_path)
    yield served
    served.server.shutdown()
    served.server.server_close()


def fetch_coco(limit: int | None = None, **more: bool) -> list[str]:
    return [path.as_posix() for path in data_sets.fetch("coco-caption", Path("data"), "cache", limit=limit, **more)]


def test_coco_rows_become_the_tutorials_files(storage: Storage) -> None:
    images = [f"data/coco_2014_caption/{identity}.jpg" for identity in (1, 2, 3)]
    assert fetch_coco(4) == [*images, "data/coco-2024-dataset.csv", "data/data_vl.json", "data/NOTICE-coco-caption.txt"]
    for path in images:
        assert Path(path).read_bytes() == storage.files[f"/{Path(path).name}"]
    assert storage.asked == Counter(["/train.csv.zip", "/1.jpg", "/2.jpg", "/3.jpg"])
    with open("data/coco-2024-dataset.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["caption"] for row in table] == CAPTIONS[:4]
    assert [row["image_path"] for row in table] == [f"coco_2014_caption/{identity}.jpg" for identity in (1, 1, 2, 3)]
    told = json.loads(Path("data/data_vl.json").read_text("utf-8"))
    assert told[1] == {
        "id": "identity_2",
        "conversations": [
            {"from": "user", "value": "COCO Yes: <|vision_start|>coco_2014_caption/1.jpg<|vision_end|>"},
            {"from": "assistant", "value": CAPTIONS[1]},
        ],
    }
    assert [row["id"] for row in told] == [f"identity_{number}" for number in (1, 2, 3, 4)]
    assert "Flickr" in Path("data/NOTICE-coco-caption.txt").read_text("utf-8")


def test_coco_files_are_rows_of_the_task(storage: Storage) -> None:
    fetch_coco(4)
    task = Generation(GenerationOptions(language="en", question="COCO Yes:", metrics=["cider"]))
    for file in ("data/coco-2024-dataset.csv", "data/data_vl.json"):
        examples = [task.example(row) for row in read_rows(file, DataSection(train=file))]
        assert [example.answer for example in examples] == CAPTIONS[:4]
        assert [example.text for example in examples] == ["COCO Yes:"] * 4
        assert examples[3].images == (str(Path("data/coco_2014_caption/3.jpg").resolve()),)


def test_coco_is_downloaded_once_and_more_rows_are_added(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert coco.LIMIT == 500
    fetch_coco(2)
    storage.asked.clear()
    fetch_coco(2)
    assert not storage.asked
    with pytest.raises(DataError, match=r"data_vl\.json: there already, with other content"):
        fetch_coco(4)
    assert storage.asked == Counter(["/2.jpg", "/3.jpg"])
    monkeypatch.setenv("WEITIAO_OFFLINE", "1")
    fetch_coco(4, overwrite=True)
    with pytest.raises(DataError, match=r"no cache.*4\.jpg on this disk, and WEITIAO_OFFLINE is set"):
        fetch_coco(overwrite=True)


def test_coco_offline_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "hub"))
    with pytest.raises(DataError, match=r"coco_2014_caption\.py on this disk .* WEITIAO_OFFLINE is set") as caught:
        data_sets.fetch("coco-caption", tmp_path / "data", str(tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_what_coco_cannot_be_fetched_for_is_one_line(storage: Storage) -> None:
    def refused(words: str) -> None:
        with pytest.raises(DataError, match=words) as caught:
            fetch_coco(4)
        assert "\n" not in str(caught.value)
        assert not Path("data").exists()

    good, image = dict(storage.files), storage.files["/2.jpg"]
    del storage.files["/2.jpg"]
    refused(r"cannot fetch http.*/2\.jpg: HTTP status 404")
    storage.files["/2.jpg"] = b"<html>moved</html>"
    refused(r"cannot fetch http.*/2\.jpg: image .* is none that can be read")
    storage.files["/2.jpg"] = bytes(MOST_BYTES + 1)
    refused(r"cannot fetch http.*/2\.jpg: 104,857,601 bytes; wanted an image of at most 104,857,600")
    assert not list(Path("cache").rglob("*.part"))
    storage.files["/2.jpg"] = image
    table = Path("cache/downloads/coco-caption/train.csv.zip")
    for content in (b"", b"<html>", good["/train.csv.zip"][:-40]):
        storage.files["/train.csv.zip"] = content
        table.unlink(missing_ok=True)
        refused(r"train\.csv\.zip: is damaged \(.*\) and was removed; fetch again")
    for row in (
        ("0", "../1", "x", f"{storage.address}/1.jpg"),
        ("0", "1", "x", "file:///etc/hostname"),
        ("0", "1", "", ""),
    ):
        storage.table([row])
        table.unlink(missing_ok=True)
        refused(r"train\.csv\.zip: its row 1 is .*; wanted image_id, image, caption")
    table.unlink()
    storage.files = good
    assert len(fetch_coco(4)) == 6


def test_another_script_of_coco_is_told(storage: Storage, tmp_path: Path) -> None:
    (script,) = (tmp_path / "hub").rglob("coco_2014_caption.py")
    script.write_text("_URLS = read()\n")
    with pytest.raises(DataError, match=r"coco_2014_caption\.py: names no table of the training split"):
        fetch_coco(4)


def test_coco_comes_from_its_hub(storage: Storage, tmp_path: Path) -> None:
    """`weitiao data fetch coco-caption --limit 2` with ModelScope's own client, against servers on this machine."""
    (script,) = (tmp_path / "hub").rglob("coco_2014_caption.py")
    with FakeHubs() as hubs:
        files = {"coco_2014_caption.py": script.read_bytes(), "README.md": b"read me"}
        hubs.add("modelscope/coco_2014_caption", files, kind="dataset")
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
        environment |= hubs.environment | {"HOME": str(tmp_path), "MODELSCOPE_CACHE": str(tmp_path / "empty")}
        arguments = [sys.executable, "-m", "weitiao.cli", "data", "fetch", "coco-caption", "--limit", "2"]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert hubs.files_asked() == {"coco_2014_caption.py"}
    assert done.stdout.split()[0] == "data/coco-caption/coco_2014_caption/1.jpg"
    assert len(json.loads((tmp_path / "data/coco-caption/data_vl.json").read_text("utf-8"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_real_data(name: str, tmp_path: Path) -> None:
    paths = data_sets.fetch(name, tmp_path / "data", str(tmp_path / "cache"))
    assert paths[-1].read_text("utf-8") == (tmp_path / "data" / f"NOTICE-{name}.txt").read_text("utf-8")
    found = {path.name: path.read_bytes() for path in paths[:-1]}
    rows = {file: [json.loads(line) for line in content.decode().splitlines()] for file, content in found.items()}
    assert {file: (len(rows[file]), hashlib.sha256(content).hexdigest()) for file, content in found.items()} == FILES[
        name
    ]
    later: set[str] = set()
    for file in ("test.jsonl", "validation.jsonl", "train.jsonl"):
        here = {row["text"] for row in rows[file]}
        assert not here & later
        later |= here
        for row in rows[file]:
            assert all(row["text"][e["start"] : e["end"]] == e["text"] for e in row.get("entities", []))
