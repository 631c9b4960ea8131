"""The model card of an exported adapter or model: README.md in its folder, made of what the run folder says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weitiao import __version__
from weitiao.errors import WeitiaoError
from weitiao.prediction.adapter_folder import AdapterFolder
from weitiao.report.run import Run, read_run
from weitiao.report.table import NAMES
from weitiao.types import Row

MOST_NAMES = 20
"""Labels that are listed."""
HUB_NAME = re.compile(r"(?:hf:|modelscope:)?([\w.-]+/[\w.-]+)(?:@.*)?")


ELSEWHERE = (
    "Only Weitiao scores the labels, or admits nothing but valid answers. Other programs generate text with the same "
    "prompt: check what they answer, and let them pick the likeliest token (temperature 0)."
)
ALONE = (
    "`predict.py` answers as Weitiao does, one row at a time; `prompt.txt`, `settings.json` and the files beside them "
    "are what it goes by. It takes .jsonl, .txt and .csv; `--help` says which columns."
)


def card(
    folder: AdapterFolder, whole: bool, commands: Sequence[str], checked: str | None, standalone: bool = False
) -> str:
    """Markdown. whole: a merged model, else an adapter. commands: how it is used. checked: how it was compared.
    standalone: with a program that answers."""
    run = _run(folder)
    name = run.name if run else folder.path.resolve().name
    task, base = folder.task.name, folder.told.base.name
    what = "The base model with a LoRA adapter folded into its weights" if whole else "A LoRA adapter"
    lines = [
        *_front_matter(folder, whole),
        f"# {name}: {task}",
        "",
        f"{what}, for {task} with {base}; written by Weitiao {__version__}.",
        "",
        "## Task",
        "",
        *_task(folder),
        "## Data",
        "",
        *(_data(run) if run else ["The run folder was not at hand."]),
        "",
        "## Metrics",
        "",
        *(_metrics(run.metrics) if run and run.metrics else ["Not measured."]),
        "",
        "## Limits",
        "",
        "- The figures hold for rows like those above; others were not measured.",
        f"- {_alone(folder, whole) if standalone else ELSEWHERE}",
        f"- A text of more than {folder.told.max_length} tokens was shortened in training.",
        *([f"- {'`predict.py` and Weitiao' if standalone else 'Merged and apart'}: {checked}."] if checked else []),
        "- Licence and limits of the base model hold for this one, too.",
        "",
    ]
    if commands:
        lines += ["## Commands", "", "```", *commands, "```", ""]
    return "\n".join(lines)


def _alone(folder: AdapterFolder, whole: bool) -> str:
    if whole:
        return f"{ALONE} The model is in `model/`, its base was `{folder.told.base.name}`."
    return f"{ALONE} It loads the base model, `{folder.told.base.name}`, or the folder that `--base` names."


def _run(folder: AdapterFolder) -> Run | None:
    try:
        return read_run(folder.path.parent)
    except WeitiaoError:
        return None


def _front_matter(folder: AdapterFolder, whole: bool) -> list[str]:
    found = HUB_NAME.fullmatch(folder.told.base.name)
    language = folder.task.options.language
    values = {
        "base_model": found[1] if found else None,
        "base_model_relation": ("finetune" if whole else "adapter") if found else None,
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "image-text-to-text" if folder.base.vision else "text-generation",
        "language": language,
        "tags": ["weitiao", "lora", folder.task.name],
    }
    # JSON is YAML.
    told = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value)
    return ["---", *told, "---", ""]


def _task(folder: AdapterFolder) -> list[str]:
    options = folder.task.options
    names = list(getattr(options, "labels", None) or getattr(options, "types", None) or ())
    lines = []
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        kind = "Types" if folder.task.name == "ner" else "Labels"
        lines += [f"{kind}: {', '.join(map(str, names[:MOST_NAMES]))}{more}.", ""]
    try:
        field = folder.told.columns.get("text", "text")
        messages = folder.task.prompt(
            folder.task.example(Row({field: "{text}"}, "card", 1, folder.told.columns, None), labelled=False)
        )
    except WeitiaoError:  # rows bring more than a text
        return lines
    lines += ["Prompt:", "", "```"]
    lines += [f"[{message.role}]\n{message.text}" for message in messages if not message.empty]
    return [*lines, "```", ""]


def _data(run: Run) -> Iterator[str]:
    rows = run.facts.get("rows", {})
    yield ", ".join(f"{count} {split} rows" for split, count in rows.items() if count) + ", from:"
    yield ""
    for path, digest in run.facts.get("files", {}).items():
        yield f"- `{path}` (SHA-256 {digest[:16]}…)"


def _metrics(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The headline with its interval, and the other figures that have one, for each system."""
    systems, headline = metrics["systems"], metrics["headline"]
    own = systems.get("finetuned", {})
    columns = [headline, *(key for key in own if key != headline and f"{key}_low" in own)]
    yield f"On {metrics['rows']} {metrics['split']} rows, with 95 % bootstrap intervals:"
    yield ""
    yield f"| system | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, figures in sorted(systems.items(), key=lambda item: -item[1][headline]):
        yield f"| {NAMES.get(name, name)} | {' | '.join(_figure(figures, column) for column in columns)} |"


def _figure(figures: Mapping[str, Any], name: str) -> str:
    if not isinstance(figures.get(name), float | int):
        return "—"
    ends = [figures.get(f"{name}_{end}") for end in ("low", "high")]
    told = "" if None in ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return f"{figures[name]:.3f}{told}"
