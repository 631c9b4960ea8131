"""A made-up tokenizer for a random model: as many ids as the model has, and a character of a random text is one token.

Texts are random Chinese characters. What a family's chat format writes (`system`, `assistant`) is one token each, as in
real vocabularies; the rest of the ids are words of two characters, for a grammar looks through a vocabulary of full
size. No id is a piece of a character, for a random model would write characters piece by piece. (So where a grammar has
a choice, it must be one between first bytes, too: llguidance asks for a token of the bytes that are certain.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path

ASCII = ["\t", "\n", *map(chr, range(32, 127))]
ROLES = ("system", "user", "assistant")
HEADINGS = "类型别候选文本无：、"
"""Characters that tasks write around a text."""
CONTROLS = {
    "glm4": ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    "qwen2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "llama": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
}
"""Control tokens of a family's chat format."""
IDEOGRAPHS = range(0x4E00, 0xA000)
SYLLABLES = range(0xAC00, 0xD7A4)
"""Of Hangul, which no text here has."""
MOST_CHARACTERS = 6_000
WORDS = 4
"""Words that begin with a character of the texts."""


def characters(size: int) -> list[str]:
    """Characters of texts, for a vocabulary of `size` ids: all of them where there is room, half of a small one."""
    count = min(MOST_CHARACTERS, (size - 2 * len(ASCII)) // 2)
    spread = IDEOGRAPHS[:: len(IDEOGRAPHS) // (count + len(HEADINGS))]
    return [chr(code) for code in spread if chr(code) not in HEADINGS][:count]


def write_tokenizer(folder: Path, family: str, size: int) -> None:
    """`tokenizer.json` of `size` ids for a model of `family`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    controls = CONTROLS[family]
    tokens = [*ASCII, *HEADINGS, *characters(size)]
    merges = [(role[:at], role[at]) for role in ROLES for at in range(1, len(role))]
    room = size - len(controls) - len(tokens) - len(merges)
    own = _words(characters(size))[:room]
    syllables = [chr(code) for code in SYLLABLES][: room - len(own)]
    merges += own + _words(syllables, 10)[: room - len(own) - len(syllables)]
    tokens += [*syllables, *map("".join, merges)]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    # llguidance reads a vocabulary of text, not of bytes, by this decoder.
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in controls])
    assert tokenizer.get_vocab_size() == size, "every id of the model is a token"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def draw_text(draw: random.Random, count: int, letters: Sequence[str]) -> str:
    """A text of `count` of the `letters`, each a token: no two neighbours are a word, or begin with the same byte."""
    places = [draw.randrange(len(letters))]
    while len(places) < count:
        place = draw.randrange(len(letters))
        word = 1 <= (place - places[-1]) % len(letters) <= WORDS
        if not word and first_byte(letters[place]) != first_byte(letters[places[-1]]):
            places.append(place)
    return "".join(letters[place] for place in places)


def first_byte(text: str) -> int:
    return text.encode()[0]


def _words(letters: Sequence[str], each: int = WORDS) -> list[tuple[str, str]]:
    """Each letter with each of the next ones, the last with the first again."""
    return [
        (letters[at], letters[(at + step) % len(letters)])
        for step, at in product(range(1, each + 1), range(len(letters)))
    ]
