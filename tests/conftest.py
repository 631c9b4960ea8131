"""What all tests share: no network, no deadline for generated examples, and tiny models made once a session.

A test that asks for `qwen2_folder` gets a Hugging Face folder with random weights; see tiny.py for what is in it.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WEITIAO_OFFLINE", "1")
# Tiny models gain nothing from threads, and lose a hundredfold where other processes have the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tiny import small_classification, small_ner, tiny_model

if not torch.cuda.is_available():
    # Read when Triton is imported: its kernels run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("weitiao", deadline=None)
settings.load_profile("weitiao")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: the quick ones then fill what is left of each process's time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _model(factory: pytest.TempPathFactory, family: str) -> Path:
    return tiny_model(factory.mktemp("models") / f"tiny-{family}", family)


@pytest.fixture(scope="session")
def qwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory, "qwen2")


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory, "qwen3")


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory, "llama")


@pytest.fixture(scope="session")
def qwen2_vl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory, "qwen2_vl")


@pytest.fixture(scope="session")
def qwen2_5_vl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory, "qwen2_5_vl")


@pytest.fixture(scope="session")
def glm4_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory, "glm4")


@pytest.fixture(scope="session")
def glm4_0414_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory, "glm4-0414")


@pytest.fixture
def classification_file(tmp_path: Path) -> Path:
    return small_classification(tmp_path / "classification.jsonl")


@pytest.fixture
def ner_file(tmp_path: Path) -> Path:
    return small_ner(tmp_path / "ner.jsonl")
