"""Images of the rows that a report shows: inside the page, bounded, and a name where they cannot be read."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from report.made import caption_rows, classification_rows, made_run, ner_rows
from report.pages import checked
from weitiao.report import thumbnails
from weitiao.report.page import page
from weitiao.report.run import read_run
from weitiao.types import Prediction


def picture(path: Path, size: tuple[int, int] = (400, 100), colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def shown(html: str) -> list[tuple[str, Image.Image]]:
    """(alternative text, image) of each image of a page."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)" alt="([^"]*)"', html)
    assert len(found) == html.count("<img")
    return [(name, Image.open(io.BytesIO(base64.b64decode(data)))) for data, name in found]


def with_image(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{**row, "images": list(names)} for row in rows]


def made(tmp_path: Path, kind: str, rows: list[dict[str, Any]], *overrides: str) -> str:
    """The page of a run whose data file lies in `tmp_path / "data"`, every answer of which is wrong."""
    options = {"labels": ["好评", "差评", "中评"]} if kind == "classification" else {}
    told = (f"data.train={tmp_path}/data/rows.jsonl", *overrides)
    wrong = {"classification": Prediction("别的", probability=0.9), "ner": Prediction((), probability=0.9)}
    answer = {"answer": lambda t, e, d: wrong[kind]} if kind in wrong else {}
    return page(read_run(made_run(tmp_path / "run", kind, rows, overrides=told, **options, **answer)), "en")


ROWS = {"classification": classification_rows, "ner": ner_rows, "generation": caption_rows}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_all_tasks_show_their_images(tmp_path: Path, kind: str) -> None:
    picture(tmp_path / "data" / "a.png")
    rows = ROWS[kind](5)
    if kind != "generation":
        rows = with_image(rows, "a.png")
    html = made(tmp_path, kind, rows)
    checked(html)
    found = shown(html)
    assert len(found) == 5
    for name, image in found:
        assert (name, image.format, image.size) == ("a.png", "JPEG", (160, 40))
        assert image.getpixel((80, 20)) == pytest.approx((254, 0, 0), abs=3)


def test_at_most_four_in_a_row(tmp_path: Path) -> None:
    names = [picture(tmp_path / "data" / f"{i}.png").name for i in range(6)]
    html = made(tmp_path, "classification", with_image(classification_rows(1), *names))
    assert [name for name, _ in shown(html)] == names[:4]
    assert "<span>+2</span>" in html


def test_what_cannot_be_read_is_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    picture(tmp_path / "data" / "good.png", size=(10, 10))
    (tmp_path / "data" / "broken<b>.png").write_text("no image", "utf-8")
    names = ["in/moved.png", "broken<b>.png", "../secret.png", "good.png"]
    html = made(tmp_path, "classification", with_image(classification_rows(1), *names))
    text = checked(html).text
    assert [name for name, _ in shown(html)] == ["good.png"]
    for name in ("moved.png", "broken<b>.png", "secret.png"):
        assert f" {name} " in text
    assert shown(html)[0][1].size == (10, 10), "small ones are not enlarged"


def test_root_is_that_of_the_measured_file(tmp_path: Path) -> None:
    rows = with_image(classification_rows(1), "a.png")
    picture(tmp_path / "data" / "a.png", colour="red")
    picture(tmp_path / "test" / "a.png", colour="blue")
    picture(tmp_path / "images" / "a.png", colour="lime")

    def colour(*overrides: str) -> int:
        pixel = shown(made(tmp_path / str(len(overrides)), "classification", rows, *overrides))[0][1].getpixel((9, 9))
        return max(range(3), key=lambda channel: pixel[channel])

    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "data").symlink_to(tmp_path / "data")
    test = f"data.test={tmp_path}/test/rows.jsonl"
    assert colour() == 0
    assert colour(test) == 2
    assert colour(test, f"data.images={tmp_path}/images") == 1
    # A field of the rows chooses the split: then there is one file.
    train = f"data.train={tmp_path}/data/rows.jsonl"
    assert colour(test, "data.split_field=part", train) == 0


def test_a_hub_has_no_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(picture(tmp_path / "a.png").parent)
    rows = with_image(classification_rows(1), "a.png")
    html = made(tmp_path, "classification", rows, "data.train=hf:org/name/rows.jsonl")
    assert shown(html) == []
    assert "a.png" in checked(html).text


def test_the_page_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "data" / "a.png")
    rows = with_image(classification_rows(30), *["a.png"] * 4)
    sizes = [len(data) for data in re.findall(r'base64,([^"]*)', made(tmp_path, "classification", rows))]
    assert len(sizes) == 120
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 4 * sizes[0] - 1)
    html = page(read_run(tmp_path / "run"), "en")
    checked(html)
    assert (html.count("<img"), html.count('class="lost"')) == (3, 117)


def test_no_torch(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    run = made_run(tmp_path / "run", "generation", caption_rows(5), overrides=[f"data.train={tmp_path}/rows.jsonl"])
    script = (
        "import sys; from pathlib import Path; from weitiao.report.page import write_report\n"
        f"print(write_report({str(run)!r}).read_text('utf-8').count('<img'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "False"]
