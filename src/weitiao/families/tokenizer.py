"""A model's tokenizer, read from `tokenizer.json` by the `tokenizers` library (0.04 s, where torch costs seconds).

The tokenizer is rebuilt without its added tokens: whatever a text says, no control id comes out of it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from weitiao.errors import ModelError
from weitiao.families.tiktoken import converted


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
            spec = json.loads(raw)
            self._controls = {token["content"]: int(token["id"]) for token in spec.get("added_tokens") or ()}
            self._plain = Tokenizer.from_str(json.dumps({**spec, "added_tokens": [], "post_processor": None}))
            self._raw = raw.decode("utf-8")
        except FileNotFoundError:
            raise ModelError(f"{folder}: no tokenizer.json; a fast tokenizer is needed") from None
        except Exception as error:  # the library raises bare Exception for a file that it cannot read
            raise ModelError(f"{path}: unreadable tokenizer ({error})") from None
        self._plain.no_truncation()
        self._plain.no_padding()
        self.hash = hashlib.sha256(raw).hexdigest()

    @cached_property
    def _full(self) -> Tokenizer:
        """With its added tokens. A vocabulary takes half a second to build, and training needs this one late."""
        return Tokenizer.from_str(self._raw)

    def encode(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)

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
        return str(self._full.to_str())
