"""Which tokens may come next, where a tokenizer or several threads make it hard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weitiao.bench.vocabulary import characters, first_byte, write_tokenizer
from weitiao.errors import ModelError
from weitiao.families.tokenizer import TextTokenizer
from weitiao.prediction.grammar import GrammarCompiler, News, words
from weitiao.types import Grammar

SIZE = 512


@pytest.fixture
def compiler(tmp_path: Path) -> GrammarCompiler:
    write_tokenizer(tmp_path, "qwen2", SIZE)
    tokenizer = TextTokenizer(tmp_path)
    return GrammarCompiler(tokenizer, SIZE, tokenizer.control("<|im_end|>"))


def test_a_tokenizer_without_the_tokens_is_named_as_the_cause(compiler: GrammarCompiler) -> None:
    """Both answers begin with the same byte, and no token is a piece of a character."""
    first, second = characters(SIZE)[:2]
    assert first_byte(first) == first_byte(second)
    guide = compiler.guide(lambda _: Grammar(f'start: "{first}" | "{second}"'))
    bits = np.zeros((1, words(SIZE)), np.int32)
    guide.fill([(0, 0, ())], bits)
    with pytest.raises(ModelError, match="no token for what its grammar asks next"):
        guide.take(News([[(0, 0)]], []))


def test_several_threads_read_the_vocabulary_once(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    import llguidance

    made, real = [], llguidance.LLTokenizer

    def reading(*args: Any, **names: Any) -> Any:
        # Until Python 3.12 a cached property has a lock of its own.
        assert compiler._reading.locked()
        made.append(real(*args, **names))
        return made[-1]

    monkeypatch.setattr(llguidance, "LLTokenizer", reading)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(compiler._matcher, [Grammar('start: "a"')] * 8))
    assert len(made) == 1
