"""Triton's kernels for a model, built in a process of its own while this one still reads rows and weights.

Triton builds a kernel when it is first called, in about half a second, and keeps it on disk. A step calls a dozen. The
first run of a model's dimensions on a machine would wait for them with its weights loaded; this one only starts a
process that calls each on small tensors: first those of a step, which training waits for, then those of answers, while
it trains. What goes wrong there costs time, not the run.

    python -m weitiao.engine.build DIMENSIONS MARK        the process; MARK is the file that says that a step's are done
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao.hub.cache import cache_root

if TYPE_CHECKING:
    import torch

PATIENCE = 30.0
"""Seconds that a run waits for the process when it needs the kernels: it is ahead, and two build no faster."""
CARD = Path("/dev/nvidiactl")
"""Where there is a card of NVIDIA's under Linux, the only place where Triton is on."""
KERNELS = "kernels/*.py"
"""Files that they are written in."""
TOKENS = 64
INTERLEAVED = ("glm", "glm4")


@dataclass(frozen=True)
class Dimensions:
    """What kernels are built for."""

    hidden: int
    inner: int
    query: int
    key: int
    size: int
    """Of a head."""
    turned: int
    """Of these, elements that are rotated."""
    interleaved: bool
    vocabulary: int
    rank: int
    fused: bool
    """Whether gate and up are one layer, with one adapter."""
    dropout: bool
    dtype: str = "bfloat16"
    """Of the weights."""

    @classmethod
    def of(cls, config: Mapping[str, Any], rank: int, dropout: bool, dtype: str = "bfloat16") -> Dimensions | None:
        """config: of a model's `config.json`. None where it speaks in other words."""
        text = {**config, **config.get("text_config", {})}
        kind = str(config.get("model_type"))
        try:
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            size = int(text.get("head_dim") or hidden // heads)
            rope = {**text, **(text.get("rope_parameters") or {})}
            turned = int(size * float(rope.get("partial_rotary_factor", 1)))
            return cls(
                *(hidden, int(text["intermediate_size"]), heads, int(text["num_key_value_heads"]), size, turned),
                *(kind in INTERLEAVED, int(text["vocab_size"]), rank, kind in INTERLEAVED, dropout, dtype),
            )
        except (KeyError, TypeError, ValueError):
            return None


class Building:
    """The process, if there is one."""

    def __init__(self, process: subprocess.Popen[bytes] | None = None, mark: Path | None = None) -> None:
        self.process, self.mark = process, mark

    def finish(self) -> None:
        """Wait until the kernels of a step are built."""
        process, self.process = self.process, None
        if process is None:
            return
        start = time.monotonic()
        while process.poll() is None and not self._done() and time.monotonic() - start < PATIENCE:
            time.sleep(0.02)
        if not self._done():
            process.kill()
        # It goes on by itself; somebody has to see it end.
        threading.Thread(target=process.wait, daemon=True).start()

    def _done(self) -> bool:
        return self.mark is not None and self.mark.exists()


def build_ahead(folder: Path, rank: int, dropout: bool, cache_dir: str | None = None, dtype: str = "auto") -> Building:
    """Start to build for the model in a folder, unless that was done before or there is no card.

    dtype: as `model.dtype`; on a card `auto` is bfloat16.
    """
    dtype = "bfloat16" if dtype == "auto" else dtype
    try:
        dimensions = Dimensions.of(json.loads((folder / "config.json").read_text("utf-8")), rank, dropout, dtype)
        triton = importlib.metadata.version("triton")
    except (OSError, ValueError, importlib.metadata.PackageNotFoundError):
        return Building()
    if dimensions is None or not CARD.exists():
        return Building()
    own = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob(KERNELS)))
    told = json.dumps(asdict(dimensions))
    name = hashlib.sha256(own + f"{told} {triton} {sys.version}".encode()).hexdigest()[:32]
    mark = cache_root(cache_dir) / "kernels" / name
    if mark.exists():
        return Building()
    command = [sys.executable, "-m", "weitiao.engine.build", told, str(mark)]
    silent = subprocess.DEVNULL
    return Building(subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent), mark)


def build(d: Dimensions, device: str = "cuda") -> None:
    """Call every kernel as a training step of such a model does."""
    import torch

    from weitiao.engine import kernels
    from weitiao.engine.room import SUMMED, padded
    from weitiao.engine.split_attention import split_layout

    dtype = getattr(torch, d.dtype)

    def some(*size: int) -> torch.Tensor:
        return torch.zeros(*size, device=device, dtype=dtype)

    def pad(adapters: int) -> int:
        return padded(d.rank * adapters)

    def adapters(widths: Mapping[int, int]) -> None:
        """B and dropout of inputs of a width, with so many columns behind."""
        for width, columns in widths.items():
            buffer, b = some(TOKENS, width + columns), torch.zeros(TOKENS, d.rank, device=device)
            kernels.row_copier([buffer[:, width : width + d.rank]], [b])()
            if d.dropout:
                seen = kernels.dropped(buffer[:, :width], *noise)
                kernels.add_dropped_(buffer[:, :width], seen, *noise)

    noise = (0.5 if d.dropout else 0.0, torch.zeros((), dtype=torch.long, device=device), 0)
    qkv, gate_up = pad(3), pad(1 if d.fused else 2)
    x, weight, width = some(TOKENS, d.hidden), some(d.hidden), d.query * d.size
    for columns, delta in ((qkv, None), (qkv, x), (gate_up, x), (0, x)):
        summed, normed, rstd = kernels.add_norm(x, delta, weight, 1e-6, columns)
        kernels.add_norm_backward(normed, None, summed, weight, rstd)
        kernels.add_norm_backward(normed, x, summed, weight, rstd)
    adapters({d.hidden: qkv, width: pad(1), d.inner: pad(1)})

    heads, table = some(TOKENS, (d.query + 2 * d.key) * d.size), some(TOKENS, d.turned)
    turned = heads.unflatten(1, (-1, d.size))[:, : d.query + d.key]
    for sign in (1, -1):
        kernels.rotate_(turned, table, table, d.interleaved, sign)
    prefix = 3
    told = (split_layout(prefix, (TOKENS - prefix,)).blocks.to(device), prefix, (d.query, d.key, d.size), 1.0)
    out, lse = kernels.row_attention.forward(heads, *told, pad(1))
    kernels.row_attention.backward(out, heads, out, lse, *told)

    both, behind = some(TOKENS, 2 * d.inner), pad(1)
    gated = kernels.swiglu(both, behind)
    if max(gate_up, behind) <= SUMMED:
        up = 0 if d.fused else d.rank
        kernels.mlp_backward(gated, both, some(behind, d.inner), some(TOKENS, gate_up), d.rank, up, noise)
    else:
        kernels.swiglu_backward(gated, both)
    kernels.cross_entropy_(some(2, d.vocabulary), torch.zeros(2, dtype=torch.long, device=device), -100)


def build_answers(d: Dimensions, device: str = "cuda") -> None:
    """Call every kernel that answers need besides."""
    import torch

    from weitiao.engine import kernels
    from weitiao.engine.room import padded
    from weitiao.engine.slot_prompts import PIECE
    from weitiao.engine.slot_steps import WIDE

    dtype, pad = getattr(torch, d.dtype), padded(d.rank)

    def some(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.zeros(*size, device=device, dtype=dtype)

    heads = some(TOKENS, (d.query + 2 * d.key) * d.size)
    keys, values = (some(TOKENS, TOKENS, d.key, d.size) for _ in range(2))
    table = some(TOKENS, d.turned)
    for new in {1, WIDE, PIECE, TOKENS}:
        places, slots = (some(*size, dtype=torch.long) for size in ((TOKENS // new, new), (TOKENS // new,)))
        kernels.slot_attention.keep(heads, table, table, d.interleaved, places, slots, keys, values)
        kernels.slot_attention.attend(heads, places, slots, keys, values, 1.0, pad)
    for columns in {pad, padded(3 * d.rank), padded((1 if d.fused else 2) * d.rank)}:
        kernels.low_rank_(some(2, d.hidden), some(columns, d.hidden), some(2, columns))
    _choose(d, dtype, device)


def build_exact_answers(d: Dimensions, device: str = "cuda") -> None:
    """Call every kernel that is called where near ties of a model of 16 bits are decided in float32."""
    import torch

    from weitiao.engine import kernels
    from weitiao.engine.split_attention import split_layout

    dtype = getattr(torch, d.dtype)

    def some(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(*size, device=device, dtype=dtype)

    x, weight = some(TOKENS, d.hidden), some(d.hidden, dtype=dtype)
    for delta in (None, x):
        kernels.add_norm(x, delta, weight, 1e-6, 0)
    for width in (d.hidden, d.rank, 2 * d.rank, 3 * d.rank):
        kernels.halves(some(TOKENS, width), dtype)
    heads, table = some(7, (d.query + 2 * d.key) * d.size), some(7, d.turned)
    kernels.rotate_(heads.unflatten(1, (-1, d.size))[:, : d.query + d.key], table, table, d.interleaved, 1)
    blocks = split_layout(3, (4,)).blocks.to(device)
    kernels.row_attention.forward(heads, blocks, 3, (d.query, d.key, d.size), 1.0, 0)
    kernels.swiglu(some(TOKENS, 2 * d.inner), 0)
    _choose(d, torch.float32, device)


def _choose(d: Dimensions, dtype: torch.dtype, device: str) -> None:
    """Trees of labels, and the tokens that are chosen, with states of this type."""
    import torch

    from weitiao.engine import kernels
    from weitiao.engine.room import padded
    from weitiao.engine.split_attention import split_layout

    tree = split_layout(3, (4,), parents=((-1, 0, 0, 1),)).to(torch.device(device))
    heads = torch.zeros(7, (d.query + 2 * d.key) * d.size, device=device, dtype=dtype)
    told = (tree.blocks, tree.prefix, (d.query, d.key, d.size), 1.0, padded(d.rank), tree.trees)
    kernels.row_attention.forward(heads, *told)
    logits = torch.zeros(2, d.vocabulary, device=device, dtype=dtype)
    kernels.log_sums(logits)
    kernels.chosen(logits, torch.zeros(2, -(-d.vocabulary // 32), device=device, dtype=torch.int32))


if __name__ == "__main__":
    dimensions, done = Dimensions(**json.loads(sys.argv[1])), Path(sys.argv[2])
    build(dimensions)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()
    build_answers(dimensions)
    if dimensions.dtype != "float32":
        build_exact_answers(dimensions)
