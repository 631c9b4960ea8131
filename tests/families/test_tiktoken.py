"""The converted tokenizer is tiktoken's own, id for id."""

from __future__ import annotations

import base64
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings

from texts import PIECES, texts
from tiny import old_glm
from weitiao.errors import ModelError
from weitiao.families.base import families
from weitiao.families.tiktoken import WORDS
from weitiao.families.tokenizer import TextTokenizer
from weitiao.types import Message

REAL = Path(__file__).parents[3] / "shared" / "data" / "glm-4-9b-chat"
"""The publisher's own files, which lie beside a checkout where they are to be had."""
SCRIPTS = (
    *("abcXYZ 'll 're", "的一是在不了有和人这中大为上个国我以要他时来用们", "0123456789", " \t\n\r\u3000\u00a0"),
    *("éüñ\u0301\u0323", "العربيةहिन्दीไทย日本語かな한국어", ".,!?;:()[]{}<>|", "😀👩\u200d👧🇨🇳"),
    *("<|user|>", "[gMASK]", "<sop>", "<|endoftext|>", "<|assistant|>"),
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEITIAO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def old(glm4_folder: Path, tmp_path: Path, cache: Path) -> Path:
    return old_glm(tmp_path / "old", glm4_folder)


def theirs(path: Path):
    import tiktoken

    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding("glm4", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})


def test_ids_are_tiktokens(old: Path) -> None:
    ours, reference = TextTokenizer(old), theirs(old / "tokenizer.model")

    @settings(max_examples=300)
    @given(texts(20))
    def same(text: str) -> None:
        assert ours.encode(text) == reference.encode(text, disallowed_special=())

    same()


def test_it_is_written_once_and_the_bytes_depend_on_the_files_alone(old: Path, cache: Path) -> None:
    first = TextTokenizer(old)
    (written,) = cache.rglob("tokenizer.json")
    stamp = written.stat().st_mtime_ns
    assert TextTokenizer(old).hash == first.hash
    assert written.stat().st_mtime_ns == stamp
    written.unlink()
    assert TextTokenizer(old).hash == first.hash
    with (old / "tokenizer.model").open("a") as file:
        file.write(f"{base64.b64encode('南京北京上海'.encode()).decode()} 5000\n")
    assert TextTokenizer(old).hash != first.hash
    assert len(list(cache.rglob("tokenizer.json"))) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.model", "abc", "is no tiktoken file"),
        ("tokenizer.model", "!!!! 1", "is no tiktoken file"),
        ("tokenizer.model", "YQ== 0\n", "no token for byte 0x00"),
        ("tokenizer_config.json", "{}", "lists no added_tokens_decoder"),
        ("tokenizer_config.json", None, "fetch the model again"),
    ],
)
def test_broken_files_are_told(old: Path, name: str, content: str | None, message: str) -> None:
    if content is None:
        (old / name).unlink()
    else:
        (old / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        TextTokenizer(old)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    if not REAL.is_dir():
        pytest.skip(f"no {REAL.name} beside the checkout")
    return TextTokenizer(REAL, str(tmp_path_factory.mktemp("cache")))


def test_the_real_vocabulary_on_ten_thousand_strings(real: TextTokenizer) -> None:
    reference = theirs(REAL / "tokenizer.model")
    draw = random.Random(0)
    for _ in range(10_000):
        pieces = draw.choices((*SCRIPTS, *PIECES), k=draw.randint(1, 30))
        text = "".join(piece if draw.random() < 0.3 else draw.choice(piece) for piece in pieces)
        if draw.random() < 0.2:
            text += "".join(chr(draw.randrange(1, 0xD800)) + chr(draw.randrange(0xE000, 0x11000)) for _ in range(3))
        assert real.encode(text) == reference.encode(text, disallowed_special=()), repr(text)
        spans = real.spans(text)
        assert spans[0][0] == 0
        assert spans[-1][1] == len(text)
        assert all(first[0] <= second[0] <= first[1] <= second[1] for first, second in pairwise(spans))


def test_prompts_on_the_real_vocabulary(real: TextTokenizer) -> None:
    """The template of the real files, rendered by jinja and encoded by tiktoken, its control tokens by name."""
    import json

    from jinja2 import Environment

    config = json.loads((REAL / "tokenizer_config.json").read_text("utf-8"))
    template = Environment().from_string(config["chat_template"])
    controls = {token["content"]: int(id) for id, token in config["added_tokens_decoder"].items()}
    import tiktoken

    plain = theirs(REAL / "tokenizer.model")
    reference = tiktoken.Encoding(
        "glm4", pat_str=WORDS, mergeable_ranks=plain._mergeable_ranks, special_tokens=controls
    )
    chat = families()["glm4"].chat_format(real)
    assert chat.stops == (151336, 151329, 151338)
    assert chat.lead == tuple(plain.encode("\n"))

    @settings(max_examples=300)
    @given(texts(20), texts(6))
    def same(user: str, system: str) -> None:
        if any(name in user + system for name in controls):
            return
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        wanted = reference.encode(template.render(messages=turns, add_generation_prompt=True), allowed_special="all")
        found = chat.prompt_ids([Message.of("system", system), Message.of("user", user)])
        assert found == wanted
        assert found[:2] == [151331, 151333]
        assert found.count(151331) == 1

    same()
