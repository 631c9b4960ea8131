"""A GGUF file → a Hugging Face folder of float32 weights in the cache, written once per file content.

Reading a GGUF takes half a minute each time; the folder loads in a second, and everything else needs to know of
folders only.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from weitiao.errors import ModelError, first_line
from weitiao.hub.cache import cache_root
from weitiao.run_folder import whole_folder

MAGIC = b"GGUF"


def converted(path: Path, cache_dir: str | None) -> Path:
    """Folder with the file's weights and tokenizer. Raises ModelError when the file is no readable GGUF."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ModelError(f"{path}: is not a GGUF file (it does not start with 'GGUF'); fetch it again")
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_root(cache_dir) / "gguf" / f"{path.stem}-{digest[:16]}"
    if not folder.is_dir():
        print(f"converting {path.name} to a folder that loads fast (once, about half a minute)", file=sys.stderr)
        _convert(path, folder)
    return folder


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from weitiao.model.quiet import quiet

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
            )
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise ModelError(f"{path}: transformers cannot read this GGUF ({first_line(error)})") from None
        with whole_folder(folder) as draft:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
