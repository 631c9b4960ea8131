"""The tutorial's scripts under their own names: the same files in, the same folders out, in an empty folder."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runs import checkpoints
from tutorial_files import ccfbdci, fudan_news
from weitiao.config import load_config

pytestmark = pytest.mark.slow

Script = Callable[..., "subprocess.CompletedProcess[str]"]
EXAMPLES = Path(__file__).parents[2] / "examples"
NEWS, ENTITIES = Path("output/Qwen2-1.5B-Instruct"), Path("output/Qwen2-NER")


def overrides(model: Path) -> list[str]:
    """What makes a run short: the model and the number of steps."""
    return [f"model.name={model}", "model.device=cpu", "training.max_steps=3", "training.save_steps=2"]


@pytest.fixture(scope="module")
def trained(script: Script, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which train_qwen2.py has run, and what it printed."""
    folder = tmp_path_factory.mktemp("news")
    fudan_news(folder / "train.jsonl", 40)
    fudan_news(folder / "test.jsonl", 14, start=48)
    done = script(folder, "train_qwen2.py", *overrides(model))
    assert done.returncode == 0, done.stderr
    assert "SwanLab: offline" in done.stderr  # for want of a key
    return folder, done.stdout


@pytest.fixture
def news(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the folder in which train_qwen2.py has run."""
    return Path(shutil.copytree(trained[0], tmp_path / "news"))


def test_news_leave_the_tutorials_folders(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    assert sorted(path.name for path in folder.iterdir()) == ["output", "test.jsonl", "train.jsonl"]
    assert checkpoints(folder / NEWS) == ["checkpoint-2", "checkpoint-3"]
    metrics = json.loads((folder / NEWS / "metrics.json").read_text("utf-8"))
    assert metrics["rows"] == 14
    assert f"finetuned: accuracy {metrics['systems']['finetuned']['accuracy']:.3f} on 14 test rows" in printed
    answers = re.findall(r"^(\S+) \(\d\.\d\d\), wanted (\S+): '", printed, flags=re.MULTILINE)
    assert len(answers) == 10
    assert {label for pair in answers for label in pair} <= {"体育", "经济", "教育"}


def test_the_adapter_is_pefts_own(news: Path) -> None:
    names = {path.name for path in (news / NEWS / "checkpoint-3").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= names


@pytest.mark.parametrize("run", [[], [f"{NEWS}/checkpoint-2"]], ids=["run", "checkpoint"])
def test_a_trained_run_answers_the_test_rows(script: Script, news: Path, run: list[str]) -> None:
    done = script(news, "predict_qwen2.py", *run, "--rows", "4")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\S+ \(\d\.\d\d\), wanted \S+: '", done.stdout, flags=re.MULTILINE)) == 4


def test_a_trained_run_answers_a_text(script: Script, news: Path) -> None:
    (news / "test.jsonl").unlink()
    done = script(news, "predict_qwen2.py", "--text", "南京的股市今天上涨。", "--category", "体育", "经济")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(体育|经济) \(\d\.\d\d\): '南京的股市今天上涨。'\n", done.stdout)


def test_the_same_command_shows_a_finished_run(
    script: Script, news: Path, model: Path, trained: tuple[Path, str]
) -> None:
    done = script(news, "train_qwen2.py", *overrides(model))
    assert done.returncode == 0, done.stderr
    assert done.stdout == trained[1]
    assert "finished" in done.stderr


def test_entities_leave_the_tutorials_folders(script: Script, model: Path, tmp_path: Path) -> None:
    ccfbdci(tmp_path / "ccfbdci.jsonl", 40)
    done = script(tmp_path, "train_qwen2_ner.py", *overrides(model))
    assert done.returncode == 0, done.stderr
    assert checkpoints(tmp_path / ENTITIES) == ["checkpoint-2", "checkpoint-3"]
    metrics = json.loads((tmp_path / ENTITIES / "metrics.json").read_text("utf-8"))
    assert metrics["rows"] == 4
    assert {"finetuned", "untuned", "dictionary"} <= metrics["systems"].keys()
    assert f"finetuned: F1 {metrics['systems']['finetuned']['f1']:.3f} on 4 test rows" in done.stdout
    assert len([line for line in done.stdout.splitlines() if "; wanted " in line]) == 4


def test_glm4(script: Script, glm4: Path, tmp_path: Path) -> None:
    """The first checkpoints' layout, with the tutorial's own names for the adapted layers."""
    fudan_news(tmp_path / "train.jsonl", 40)
    fudan_news(tmp_path / "test.jsonl", 14, start=48)
    targets = "lora.target_modules=[query_key_value, dense, dense_h_to_4h, dense_4h_to_h]"
    done = script(tmp_path, "train_glm4.py", *overrides(glm4), targets)
    assert done.returncode == 0, done.stderr
    assert "query_key_value is q_proj, k_proj, v_proj" in done.stderr
    assert checkpoints(tmp_path / "output/glm-4-9b-chat") == ["checkpoint-2", "checkpoint-3"]
    answered = script(tmp_path, "predict_glm4.py", "--rows", "4")
    assert answered.returncode == 0, answered.stderr
    assert len(re.findall(r"^\S+ \(\d\.\d\d\), wanted \S+: '", answered.stdout, flags=re.MULTILINE)) == 4
    refused = script(tmp_path, "train_glm4.py", *overrides(glm4), "run.name=x", "lora.target_modules=[activation_func]")
    assert refused.returncode != 0
    assert "'activation_func' matches no layer" in refused.stderr.splitlines()[-1]


def test_glm4_entities(script: Script, glm4: Path, tmp_path: Path) -> None:
    ccfbdci(tmp_path / "ccfbdci.jsonl", 40)
    done = script(tmp_path, "train_glm4_ner.py", *overrides(glm4))
    assert done.returncode == 0, done.stderr
    assert checkpoints(tmp_path / "output/GLM4-NER") == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize(
    ("name", "file", "data_set"),
    [
        ("train_qwen2.py", "train.jsonl", "fudan-news"),
        ("train_qwen2_ner.py", "ccfbdci.jsonl", "ccfbdci"),
        ("predict_qwen2.py", "test.jsonl", "fudan-news"),
        ("train_glm4.py", "train.jsonl", "fudan-news"),
        ("train_glm4_ner.py", "ccfbdci.jsonl", "ccfbdci"),
        ("predict_glm4.py", "test.jsonl", "fudan-news"),
        ("plain_loop.py", "train.jsonl", "fudan-news"),
        ("qwen2_vl/csv2json.py", "coco-2024-dataset.csv", "coco-caption"),
        ("qwen2_vl/train_qwen2_vl.py", "data_vl.json", "coco-caption"),
    ],
)
def test_a_missing_file_is_told_in_one_line(
    script: Script, tmp_path: Path, name: str, file: str, data_set: str
) -> None:
    done = script(tmp_path, name)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == f"{file} is not here; fetch it with: weitiao data fetch {data_set} --dest .\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["training.lerning_rate=1"], ["data.train=other.jsonl", "lora.r=0"]])
def test_a_wrong_override_is_told_in_one_line(script: Script, tmp_path: Path, arguments: list[str]) -> None:
    done = script(tmp_path, "train_qwen2.py", *arguments)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "shipped"),
    [
        ("train_qwen2", "qwen2-1.5b-fudan-news"),
        ("train_qwen2_ner", "qwen2-1.5b-ccfbdci-ner"),
        ("train_glm4", "glm4-9b-chat-fudan-news"),
        ("train_glm4_ner", "glm4-9b-chat-ccfbdci-ner"),
        ("qwen2_vl/train_qwen2_vl", "qwen2-vl-2b-coco-caption"),
    ],
)
def test_a_script_trains_as_its_shipped_config_does(name: str, shipped: str) -> None:
    """But for the run's name and the trackers."""
    module = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    theirs, ours = (load_config(source).model_dump() for source in (module["CONFIG"], shipped))
    for config in (theirs, ours):
        del config["run"]["name"], config["tracking"]
    assert theirs == ours
