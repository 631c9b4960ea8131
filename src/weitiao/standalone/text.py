"""This folder's settings and tokenizer: what needs no torch, which takes seconds to import."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "settings.json").read_text("utf-8"))
STOP = SETTINGS["stop_ids"][0]
CUT_MARK = "…"


class Text:
    """Text to ids and back. The tokenizer is rebuilt without its added tokens, so that no text becomes a control id:
    only those that `prompt.txt` itself names are put in, by `settings.json`."""

    def __init__(self):
        self.full = Tokenizer.from_file(str(HERE / SETTINGS["tokenizer"]))
        self.plain = Tokenizer(self.full.model)
        for part in ("normalizer", "pre_tokenizer", "decoder"):
            if getattr(self.full, part) is not None:
                setattr(self.plain, part, getattr(self.full, part))
        controls = sorted(SETTINGS["controls"], key=len, reverse=True)
        # Bytes, since reading as text would change line ends.
        prompt = (HERE / "prompt.txt").read_bytes().decode("utf-8")
        self.pieces = [p for p in re.split(f"({'|'.join(map(re.escape, controls))})", prompt) if p]

    def encode(self, text):
        return self.plain.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.full.decode(list(ids), skip_special_tokens=False)

    def normalize(self, text):
        return self.plain.normalizer.normalize_str(text) if self.plain.normalizer else text

    def prompt(self, values):
        """Ids of the prompt. values: placeholder → what stands there."""
        holes = "|".join(map(re.escape, values))
        ids = []
        for piece in self.pieces:
            if piece in SETTINGS["controls"]:
                ids.append(SETTINGS["controls"][piece])
            else:  # one stretch: tokens reach over the ends of what is put in
                ids += self.encode(re.sub(holes, lambda found: values[found[0]], piece))
        return ids

    def shortened(self, text, room):
        """Head and tail of a text of more than `room` tokens, as in training."""
        spans = self.plain.encode(text, add_special_tokens=False).offsets
        keep = len(spans) if len(spans) <= room else room - len(self.encode(CUT_MARK))
        if keep == len(spans):
            return text
        while keep > 1:
            short = text[: spans[keep - keep // 2 - 1][1]] + CUT_MARK + text[spans[-(keep // 2)][0] :]
            over = len(self.encode(short)) - room
            if over <= 0:
                return short
            keep -= over
        return CUT_MARK


def softmax(logs):
    weights = [math.exp((one - max(logs)) / SETTINGS["temperature"]) for one in logs]
    return [weight / sum(weights) for weight in weights]


def calibrated(log_probability):
    """Probability of an answer that is held against its complement alone."""
    chance = min(math.exp(log_probability), 1.0)
    return softmax([math.log(max(p, 1e-300)) for p in (chance, 1 - chance)])[0]
