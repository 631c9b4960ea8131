"""The notebooks run from top to bottom as they are, with another model, other files and fewer steps; and as committed
they hold no outputs."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runs import lively_model
from tiny import old_glm, small_classification
from tutorial_files import ccfbdci, coco_caption, data_vl, fudan_news
from weitiao.config import RunConfig, load_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ABSOLUTE = re.compile(r"(?<![\w.:/])(?:/(?:home|root|work|tmp|usr|opt|mnt|Users)/|[A-Za-z]:\\)")
STEPS = ["training.max_steps=3", "training.logging_steps=1"]


@pytest.fixture
def folder(tmp_path: Path, qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's working directory with the tutorial's files and a tiny model; no key, no network."""
    for name in ("SWANLAB_API_KEY", "SWANLAB_MODE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # port 9 discards: what asks for the network fails at once
    work = tmp_path / "work"
    lively_model(work / "model", qwen2_folder)
    fudan_news(work / "train.jsonl", 40)
    fudan_news(work / "test.jsonl", 14, start=48)
    ccfbdci(work / "ccfbdci.jsonl", 40)
    return work


def test_classification(folder: Path) -> None:
    shown = executed("train_qwen2", folder, {"MODEL": "model", "OVERRIDES": STEPS})
    run = folder / "output" / "Qwen2-1.5B-Instruct"
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert f"{metrics['systems']['finetuned']['accuracy']:.3f}" in shown["metrics"]
    assert all(name in shown["metrics"] for name in ("finetuned", "untuned", "majority", "tfidf"))
    assert len(re.findall(r" [01]\.\d{3}$", shown["predict"], flags=re.MULTILINE)) == 10
    assert set(ast.literal_eval(shown["predict-one"])) == {"体育", "经济", "政治"}
    assert "Qwen2ForCausalLM, LoRA:" in shown["peft"]


def test_entities(folder: Path) -> None:
    shown = executed("train_qwen2_ner", folder, {"MODEL": "model", "OVERRIDES": STEPS})
    assert (folder / "output" / "Qwen2-NER" / "metrics.json").is_file()
    assert all(name in shown["metrics"] for name in ("finetuned", "untuned", "dictionary", "f1_low"))
    assert len(re.findall(r"^\d", shown["predict"], flags=re.MULTILINE)) == 4
    assert "类型" in shown["predict-one"]
    assert "Qwen2ForCausalLM, LoRA:" in shown["peft"]


@pytest.fixture
def glm4(folder: Path, glm4_folder: Path) -> Path:
    """The same with a tiny GLM-4 as its first checkpoints are."""
    old_glm(folder / "glm4", lively_model(folder.parent / "lively", glm4_folder))
    return folder


def test_classification_with_glm4(glm4: Path) -> None:
    shown = executed("train_glm4", glm4, {"MODEL": "glm4", "OVERRIDES": STEPS})
    run = glm4 / "output" / "glm-4-9b-chat"
    assert (run / "metrics.json").is_file()
    assert "adapter_model.safetensors" in shown["export"]
    assert "query_key_value" in (run / "chatglm-adapter" / "adapter_config.json").read_text("utf-8")


def test_entities_with_glm4(glm4: Path) -> None:
    shown = executed("train_glm4_ner", glm4, {"MODEL": "glm4", "OVERRIDES": STEPS})
    assert (glm4 / "output" / "GLM4-NER" / "metrics.json").is_file()
    assert "类型" in shown["predict-one"]


def test_captions(folder: Path, qwen2_vl_folder: Path) -> None:
    lively_model(folder / "qwen2-vl", qwen2_vl_folder)
    data_vl(coco_caption(folder))
    shown = executed("train_qwen2_vl", folder, {"MODEL": "qwen2-vl", "OVERRIDES": STEPS})
    assert (folder / "output" / "Qwen2-VL-2B" / "metrics.json").is_file()
    assert all(name in shown["metrics"] for name in ("finetuned", "untuned", "commonest", "nearest", "cider_low"))
    assert len(re.findall(r"^\d +identity_\d+ ", shown["predict"], flags=re.MULTILINE)) == 4
    assert shown["predict-one"].strip()
    assert "Qwen2VLForConditionalGeneration, LoRA:" in shown["peft"]


def executed(name: str, folder: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Id of each code cell → its outputs as text, after a run without an error; what every notebook shows is there."""
    book = _runner().run(ROOT / "notebooks" / f"{name}.ipynb", folder, parameters, timeout=300)
    outputs = {cell.id: cell.outputs for cell in book.cells if cell.cell_type == "code"}
    shown = {cell: "".join(map(_text, found)) for cell, found in outputs.items()}
    assert "answer, supervised" in shown["preview"]
    # One plain output: no box of an error's colour, no display of each line.
    assert [output.get("name") for output in outputs["train"]] == ["stdout"]
    assert "training 3/3" in shown["train"]
    assert "image/png" in outputs["curve"][0].data
    assert "report.html" in shown["report"]
    return shown


def test_quickstart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one's own, from init to the zip, with no network to ask."""
    small_classification(folder / "reviews.jsonl")
    monkeypatch.setenv("WEITIAO_OFFLINE", "1")
    given = {"FILE": "reviews.jsonl", "MODEL": "model", "OVERRIDES": [*STEPS, "data.test=0.25", "model.device=cpu"]}
    book = _runner().run(ROOT / "notebooks" / "quickstart.ipynb", folder, given, timeout=300)
    shown = {cell.id: "".join(map(_text, cell.outputs)) for cell in book.cells if cell.cell_type == "code"}
    assert "platform" in shown["install"]
    assert "task: classification, since" in shown["init"]
    assert "nothing found" in shown["check"]
    assert "training 3/3" in shown["train"]
    assert all(name in shown["metrics"] for name in ("finetuned", "untuned", "majority", "tfidf"))
    assert len(re.findall(r"^\d", shown["predict"], flags=re.MULTILINE)) == 5
    assert zipfile.is_zipfile(folder / "run.zip")


@pytest.mark.parametrize("name", ["weitiao-0.1.0-py3-none-any.whl", "weitiao-main.zip", "src", ""])
def test_what_quickstart_installs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside the page; where nothing does, a sentence says what to do."""
    cells = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4).cells
    (cell,) = [cell for cell in cells if cell.id == "install"]
    names: dict[str, Any] = {}
    exec(cell.source.partition("\nif importlib")[0], names)
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    if not name:
        with pytest.raises(SystemExit, match="upload weitiao-"):
            names["source"]()
        return
    if name == "src":
        (tmp_path / "src" / "weitiao").mkdir(parents=True)
        assert names["source"]() == str(tmp_path)
        return
    Path(name).touch()
    assert names["source"]() == name


TUTORIAL = [path for path in NOTEBOOKS if path.stem.startswith("train_")]


@pytest.mark.parametrize("path", TUTORIAL, ids=lambda path: path.stem)
def test_a_notebook_trains_as_its_script_does(path: Path) -> None:
    (cell,) = [cell for cell in nbformat.read(path, as_version=4).cells if cell.id == "config"]
    theirs = config_in(cell.source, _parameters(path))
    (script,) = (ROOT / "examples").rglob(f"{path.stem}.py")
    assert theirs == config_in(script.read_text("utf-8"), {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path: Path) -> None:
    text = path.read_text("utf-8")
    content = json.loads(text)
    assert text == json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    cells = content["cells"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids), "name cells: drawn ids make idle differences"
    assert not ABSOLUTE.search(text)


def config_in(source: str, names: Mapping[str, Any]) -> RunConfig:
    """What the assignment to CONFIG in a piece of Python says."""
    (value,) = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CONFIG"
    ]
    return load_config(eval(compile(ast.Expression(value), "CONFIG", "eval"), dict(names)))


def _parameters(path: Path) -> dict[str, Any]:
    """The parameters of a notebook as committed."""
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}  # type: ignore[attr-defined]


def _runner() -> Any:
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "notebooks" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text(output: Any) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))
