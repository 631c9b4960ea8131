"""Answers texts with the fine-tuned model of this folder. It needs what `requirements.txt` lists, and nothing else.

    python predict.py rows.jsonl > answers.jsonl       each row with "prediction" and "probability"
    python predict.py rows.csv > answers.csv           the same as a table
    echo "a text" | python predict.py -

A line of .jsonl, .txt or standard input is a JSON object or a bare text; a .csv is UTF-8, parted by commas, and its
first row names the columns. `--help` says which of them are read. `prompt.txt` is what the model sees, `labels.json` or
`grammar.lark` what it may answer, `settings.json` the rest. All rows are read and checked before the
first one is answered, one at a time.
"""

from __future__ import annotations

import argparse
import json
import sys

from rows import is_table, rows_of, show
from text import HERE, SETTINGS, STOP, Text, calibrated, softmax


class Labels:
    """One label of a list: every one is scored as a whole, its end included."""

    def __init__(self, text, model):
        self.text, self.model = text, model

    def answer(self, row, prompt):
        labels = labels_of(row)
        scores = self.model.scores(prompt, [[*self.text.encode(label), STOP] for label in labels])
        best = scores.index(max(scores))
        return {"prediction": labels[best], "probability": softmax(scores)[best]}


class FreeText:
    """Any text: no control token but the one that ends it."""

    def __init__(self, text, model):
        self.text, self.model = text, model
        known = range(min(text.full.get_vocab_size(), model.vocabulary))
        self.mask = model.mask([*{*known}.difference(text.full.get_added_tokens_decoder()), STOP])

    def answer(self, row, prompt):
        ids, chances, complete = self.model.write(prompt, lambda ids: self.mask)
        told = self.text.decode(ids).strip() or None
        return {"prediction": told, "probability": calibrated(sum(chances)) if complete else None}


def labels_of(row):
    if SETTINGS["options"] is None:
        return json.loads((HERE / "labels.json").read_text("utf-8"))
    value = next((row[name] for name in SETTINGS["options"]["fields"] if name in row), None)
    options = value.split(";") if isinstance(value, str) else value or []
    return list(dict.fromkeys(str(option).strip() for option in options if str(option).strip()))


def columns(fields):
    return " or ".join(repr(name) for names in fields for name in names)


def prompt_of(text, place, row):
    """Ids of a row's prompt."""
    for name in SETTINGS["refused_fields"]:
        if row.get(name) not in (None, ""):
            sys.exit(f"{place}: field {name!r} would change the prompt, and predict.py cannot show it; remove it")
    fields = [next((row[name] for name in names if name in row), None) for names in SETTINGS["fields"]]
    parts = [part for part in fields if part] or [SETTINGS["question"]]
    if not all(isinstance(part, str) for part in parts) or not any(part.strip() for part in parts):
        sys.exit(f"{place}: no text; wanted a string in {columns(SETTINGS['fields'])}, found {', '.join(row)}")
    longest = max(range(len(parts)), key=lambda at: (len(parts[at]), at))
    whole, parts[longest] = parts[longest], text.shortened(parts[longest], SETTINGS["max_text_tokens"])
    if parts[longest] != whole and not SETTINGS["may_shorten"]:
        sys.exit(f"{place}: the text has more than {SETTINGS['max_text_tokens']} tokens; cut it into several rows")
    values = {SETTINGS["placeholders"]["text"]: "\n".join(parts)}
    if SETTINGS["options"]:
        if not (options := labels_of(row)):
            sys.exit(f"{place}: no options; wanted a list in {columns([SETTINGS['options']['fields']])}")
        values[SETTINGS["placeholders"]["options"]] = SETTINGS["options"]["separator"].join(options)
    ids = text.prompt(values)
    if len(ids) > SETTINGS["context_length"]:
        sys.exit(f"{place}: {len(ids)} tokens, but the model takes {SETTINGS['context_length']}")
    return ids


def main():
    parser = argparse.ArgumentParser(description="Answer texts with the fine-tuned model of this folder.")
    told = f"the text in {columns(SETTINGS['fields'])}"
    if SETTINGS["options"]:
        told += f", its labels (in a table joined by `;`) in {columns([SETTINGS['options']['fields']])}"
    told = f".jsonl, .txt or .csv; - reads standard input. Of a row is read {told}"
    parser.add_argument("input", help=told.replace("%", "%%"))
    own = HERE / "model"
    base = str(own) if own.is_dir() else SETTINGS["base_model"]
    parser.add_argument("--base", default=base, help=f"folder or name of the base model (default: {base})")
    arguments = parser.parse_args()
    text = Text()
    rows = [(row, prompt_of(text, place, row)) for place, row in rows_of(arguments.input)]
    from language_model import Model  # it imports torch, for which no bad row has to wait

    model = Model(arguments.base)
    if SETTINGS["task"] == "ner":
        from entities import Entities as Task
    else:
        Task = Labels if SETTINGS["task"] == "classification" else FreeText
    task = Task(text, model)
    show(({**row, **task.answer(row, prompt)} for row, prompt in rows), is_table(arguments.input))


if __name__ == "__main__":
    main()
