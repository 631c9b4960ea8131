"""The tutorial's scripts for images, one after another in an empty folder; the download alone is made up."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runs import checkpoints, lines
from tutorial_files import coco_caption, data_vl
from weitiao.data import fetch as data_sets
from weitiao.data.fetch.coco_caption import _conversations

pytestmark = pytest.mark.slow

Script = Callable[..., "subprocess.CompletedProcess[str]"]
FOLDER = Path(__file__).parents[2] / "examples" / "qwen2_vl"
TRAIN, PREDICT = "qwen2_vl/train_qwen2_vl.py", "qwen2_vl/predict_qwen2_vl.py"
RUN = Path("output/Qwen2-VL-2B")


@pytest.fixture(scope="module")
def trained(script: Script, qwen2_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which train_qwen2_vl.py has run, and what it printed."""
    folder = tmp_path_factory.mktemp("captions")
    coco_caption(folder)
    done = script(folder, "qwen2_vl/csv2json.py")
    assert (done.returncode, done.stdout) == (0, "40 rows in data_vl.json\n"), done.stderr
    overrides = ["model.device=cpu", "training.max_steps=3", "training.save_steps=2"]
    done = script(folder, TRAIN, f"model.name={qwen2_vl}", *overrides)
    assert done.returncode == 0, done.stderr
    assert "looking at 40/40" in done.stderr, "each image once"
    assert "SwanLab: offline" in done.stderr
    return folder, done.stdout


@pytest.fixture
def captions(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the folder in which train_qwen2_vl.py has run."""
    return Path(shutil.copytree(trained[0], tmp_path / "captions"))


def test_captions_leave_the_tutorials_folders(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    assert sorted(path.name for path in folder.iterdir()) == [
        *("coco-2024-dataset.csv", "coco_2014_caption", "data_vl.json", "output")
    ]
    assert checkpoints(folder / RUN) == ["checkpoint-2", "checkpoint-3"]
    metrics = json.loads((folder / RUN / "metrics.json").read_text("utf-8"))
    assert metrics["rows"] == 4
    cider, bleu = (metrics["systems"]["nearest"][name] for name in ("cider", "bleu_4"))
    assert f"nearest: CIDEr {cider:.3f}, BLEU-4 {bleu:.3f} on 4 test rows" in printed
    assert len(re.findall(r"^identity_\d+: .*, wanted 'A ", printed, flags=re.MULTILINE)) == 4


def test_the_adapter_is_pefts_own_and_keeps_the_size(captions: Path) -> None:
    for folder in ("checkpoint-3", "adapter"):
        names = {path.name for path in (captions / RUN / folder).iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json"} <= names
        assert json.loads((captions / RUN / folder / "task.json").read_text("utf-8"))["images"]["size"] == [280, 280]


def test_the_first_test_row_is_answered(script: Script, captions: Path) -> None:
    first = lines(captions / RUN / "predictions.jsonl")[0]
    done = script(captions, PREDICT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{first['id']}: {first['prediction']!r}, wanted {first['reference']!r}\n"


def test_images_are_answered_wherever_they_are(script: Script, captions: Path) -> None:
    elsewhere = shutil.copy(captions / "coco_2014_caption" / "3.png", captions.parent / "mine.png")
    done = script(captions, PREDICT, "coco_2014_caption/4.jpg", elsewhere, "--run", f"{RUN}/checkpoint-2")
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == ["4.jpg", "mine.png"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.png"], "image 'none.png': no such file in "),
        (["data_vl.json"], "is none that can be read; wanted JPEG, PNG"),
        (["--run", "nowhere"], "no run folder 'nowhere'"),
        (["--run", f"{RUN}/adapter/copy"], "has no predictions.jsonl, whose first row would be answered"),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_line(
    script: Script, captions: Path, arguments: list[str], told: str
) -> None:
    shutil.copytree(captions / RUN / "adapter", captions / RUN / "adapter" / "copy")
    done = script(captions, PREDICT, *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_conversations_are_those_that_are_fetched(script: Script, tmp_path: Path) -> None:
    """So the fetched file and the script's can take each other's place."""
    table = 'image_path,caption\ncoco_2014_caption/1.jpg,"A ""dog"", é."\ncoco_2014_caption/2.jpg,B\n'
    (tmp_path / "coco-2024-dataset.csv").write_text(table, "utf-8")
    assert script(tmp_path, "qwen2_vl/csv2json.py").returncode == 0
    fetched = _conversations([{"image_id": "1", "caption": 'A "dog", é.'}, {"image_id": "2", "caption": "B"}])
    assert (tmp_path / "data_vl.json").read_text("utf-8") == fetched


def test_a_csv_of_other_columns_is_told_in_one_line(script: Script, tmp_path: Path) -> None:
    (tmp_path / "coco-2024-dataset.csv").write_text("image,text\n1.jpg,A dog.\n", "utf-8")
    done = script(tmp_path, "qwen2_vl/csv2json.py")
    assert done.returncode != 0
    assert done.stderr == "coco-2024-dataset.csv: wanted columns image_path and caption, found image, text\n"
    assert not (tmp_path / "data_vl.json").exists()


@pytest.mark.parametrize(("arguments", "rows"), [([], 500), (["12"], 12)])
def test_the_download_is_that_of_the_command_line(
    arguments: list[str],
    rows: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fetch(name: str, dest: Path, limit: int) -> list[Path]:
        assert (name, limit) == ("coco-caption", rows)
        table = coco_caption(dest, 12)
        return [*sorted(table.parent.glob("coco_2014_caption/*")), table, data_vl(table)]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_sets, "fetch", fetch)
    monkeypatch.setattr("sys.argv", ["data2csv.py", *arguments])
    runpy.run_path(str(FOLDER / "data2csv.py"), run_name="__main__")
    assert capsys.readouterr().out == "12 images in coco_2014_caption; coco-2024-dataset.csv, data_vl.json\n"
    assert (tmp_path / "coco-2024-dataset.csv").is_file()


def test_a_download_that_cannot_be_is_told_in_one_line(script: Script, tmp_path: Path) -> None:
    for arguments, told in ((["0"], "0 rows: wanted at least 1"), ([], "WEITIAO_OFFLINE is set")):
        done = script(tmp_path, "qwen2_vl/data2csv.py", *arguments)
        assert done.returncode != 0
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
