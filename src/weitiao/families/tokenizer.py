"""A model's tokenizer, read from `tokenizer.json` by the `tokenizers` library (0.04 s, where torch costs seconds).

Texts are encoded without its added tokens: whatever a text says, no control id comes out of it.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from weitiao.errors import ModelError
from weitiao.families.fast_lengths import Count, fast_lengths
from weitiao.families.tiktoken import converted

MANY = 2_000_000
"""Characters from which it pays to make ready for `fast_lengths`."""


class TextTokenizer:
    """Text to ids and back. Control tokens are reached by name only, through `control`."""

    def __init__(self, folder: str | Path, cache_dir: str | None = None) -> None:
        """folder: one that holds `tokenizer.json`, or tiktoken's `tokenizer.model`, which is converted into the cache.
        Raises ModelError when it does not or cannot be read."""
        path = Path(folder) / "tokenizer.json"
        if not path.is_file() and (Path(folder) / "tokenizer.model").is_file():
            path = converted(Path(folder), cache_dir)
        self._path = path
        try:
            raw = path.read_bytes()
            self._raw = raw.decode("utf-8")
            self._full = Tokenizer.from_str(self._raw)
        except FileNotFoundError:
            raise ModelError(f"{folder}: no tokenizer.json; a fast tokenizer is needed") from None
        except Exception as error:  # the library raises bare Exception for a file that it cannot read
            raise ModelError(f"{path}: unreadable tokenizer ({error})") from None
        self._controls = {token.content: id for id, token in self._full.get_added_tokens_decoder().items()}
        self._plain = _without_added_tokens(self._full)
        self.hash = hashlib.sha256(raw).hexdigest()
        self._counted = 0
        """Characters of which the length was asked."""

    def encode(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """What `encode` gives of each text; all at once, on all cores."""
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def lengths(self, texts: list[str]) -> list[int]:
        """How many tokens that are."""
        self._counted += sum(map(len, texts))
        if self._counted > MANY and self._fast is not None:
            return self._fast(texts)
        return list(map(len, self._plain.encode_batch_fast(texts, add_special_tokens=False)))

    @cached_property
    def _fast(self) -> Count | None:
        return fast_lengths(self._raw, self._plain)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Code-point span in `text` of each of its tokens."""
        return list(self._plain.encode(text, add_special_tokens=False).offsets)

    def decode(self, ids: list[int] | tuple[int, ...]) -> str:
        """Text of the ids, control tokens by their names."""
        return str(self._full.decode(list(ids), skip_special_tokens=False))

    def normalize(self, text: str) -> str:
        """The tokenizer's own normal form: what it can give back of a text."""
        normalizer = self._plain.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def control(self, name: str) -> int:
        """Id of a control token; ModelError when the vocabulary has none of that name."""
        if name not in self._controls:
            raise ModelError(
                f"{self._path}: no control token {name!r}, which the family's chat format needs; "
                "choose a model that was trained with it (an Instruct or Chat one)"
            )
        return self._controls[name]

    @property
    def controls(self) -> dict[str, int]:
        return dict(self._controls)

    @property
    def size(self) -> int:
        return int(self._full.get_vocab_size(with_added_tokens=True))

    def spec(self) -> str:
        """The whole `tokenizer.json`, for libraries that build their own tokenizer from it."""
        return self._raw


def _without_added_tokens(full: Tokenizer) -> Tokenizer:
    """Nor a post-processor, truncation or padding. Both share the vocabulary, which takes long to read."""
    plain = Tokenizer(full.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(full, part) is not None:
            setattr(plain, part, getattr(full, part))
    return plain
