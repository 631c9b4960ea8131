"""One training example as the model sees it: which tokens all rows share, which are its own, which are supervised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from weitiao.config import RunConfig
from weitiao.data.prefix import common_prefix
from weitiao.data.splits import load
from weitiao.errors import ConfigError
from weitiao.families.tokenizer import TextTokenizer
from weitiao.model.base import open_base
from weitiao.tasks.base import task_options

MANY = 4
"""Equal tokens one after another from which on they are counted."""
SHARED, OWN, SUPERVISED = "cyan", "default", "bold black on green"


def preview(config: RunConfig, row: int) -> None:
    """Print training example `row` (counted from 0). Raises ConfigError when there are fewer."""
    console = Console(highlight=False)
    task, splits = load(config.data, task_options(config.task), config.run.seed)
    if row >= len(splits.train):
        raise ConfigError(f"--row {row}: there are {len(splits.train)} training rows, counted from 0")
    base = open_base(config.model)
    encoder = base.encoder(task, config.data.max_length, base.image_limits(config.data))
    prefix = len(common_prefix(encoder.prompts(splits.train)))
    example = splits.train[row]
    encoded = encoder.training(example)
    console.print(f"{example.row.place}, training row {row} of {len(splits.train)}", markup=False)
    parts = (
        ("shared by all rows", encoded.ids[:prefix], SHARED),
        ("the row's own prompt", encoded.ids[prefix : encoded.prompt_length], OWN),
        ("answer, supervised", encoded.answer, SUPERVISED),
    )
    for title, ids, style in parts:
        console.print(Text(f"── {title}: {len(ids)} tokens", style="bold"))
        console.print(_coloured(base.tokenizer, ids, style))
    if encoded.removed:
        console.print(f"{encoded.removed} tokens of the text were left out (data.max_length)", markup=False)


def _coloured(tokenizer: TextTokenizer, ids: Sequence[int], style: str) -> Text:
    """Tokens divided by thin bars; line breaks are shown and kept, and an image's tokens are counted."""
    text = Text()
    for piece, same in groupby(_pieces(tokenizer, ids)):
        count = len(list(same))
        for shown in [piece] * count if count < MANY else [f"{piece} × {count}"]:
            if text:
                text.append("·", style="dim")
            text.append(shown.replace("\n", "↵\n").replace("\t", "⇥"), style=style)
    return text


def _pieces(tokenizer: TextTokenizer, ids: Sequence[int]) -> Iterator[str]:
    """Text of each token; tokens that hold only part of a character are joined."""
    held: list[int] = []
    for token in ids:
        held.append(token)
        text = tokenizer.decode(held)
        if "\ufffd" not in text or len(held) >= 8:
            yield text
            held = []
    if held:
        yield tokenizer.decode(held)
