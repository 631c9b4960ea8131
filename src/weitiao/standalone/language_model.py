"""The tokenizer and the model of this folder, with transformers and PEFT."""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import logging

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "settings.json").read_text("utf-8"))
STOP = SETTINGS["stop_ids"][0]
CUT_MARK = "…"
LABELS_AT_ONCE = 64

# Loading draws a bar and gives notices for who writes such programs: nothing of the answers.
logging.disable_progress_bar()
logging.set_verbosity_error()
warnings.simplefilter("ignore", FutureWarning)


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


class Model:
    def __init__(self, base):
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32
        if device.type == "cuda":  # cards before compute capability 8.0 imitate bfloat16, slowly
            dtype = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
        revision = SETTINGS["base_revision"] if base == SETTINGS["base_model"] else None
        options = {"revision": revision, "dtype": dtype, "attn_implementation": "sdpa"}
        model: Any = AutoModelForCausalLM.from_pretrained(base, **options)
        # Newer versions of transformers say `cache`, and will drop the other name.
        known = inspect.signature(model.forward).parameters
        self.cache = "cache" if "cache" in known else "past_key_values"
        if (HERE / "adapter").is_dir():
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, HERE / "adapter")
        self.model, self.device = model.to(device).eval(), device
        self.vocabulary = model.get_output_embeddings().weight.shape[0]

    def _read(self, ids, cache=None, **options):
        """Logits, and what the next ids go on from."""
        ids = torch.tensor(ids, device=self.device)
        read = self.model(ids, use_cache=True, **{self.cache: cache}, **options)
        return read.logits, read[self.cache]

    @torch.inference_mode()
    def scores(self, prompt, paths):
        """Log-probability of each of `paths` (token ids, the stop last) behind the prompt, which is read once."""
        logits, behind = self._read([prompt], logits_to_keep=1)
        first = logits[0, -1].double().log_softmax(-1)
        scores = []
        for start in range(0, len(paths), LABELS_AT_ONCE):
            some = paths[start : start + LABELS_AT_ONCE]
            found = [first[path[0]] for path in some]
            width = max(map(len, some)) - 1
            if width:
                cache = copy.deepcopy(behind)
                cache.batch_repeat_interleave(len(some))
                # What pads on the right comes later, so nothing that is read here sees it.
                logits, _ = self._read([path[:-1] + [STOP] * (width + 1 - len(path)) for path in some], cache)
                for row, path in enumerate(some):
                    table = logits[row, : len(path) - 1].double().log_softmax(-1)
                    found[row] = found[row] + sum(table[at, token] for at, token in enumerate(path[1:]))
            scores += [float(score) for score in found]
        return scores

    @torch.inference_mode()
    def write(self, prompt, allowed, spent=lambda ids: False):
        """The likeliest allowed token each time: ids, log-probability of each among the allowed ones and of the stop,
        whether the stop came within the budget. allowed: told of the ids so far, gives a mask of the vocabulary."""
        ids: list[int] = []
        chances: list[float] = []
        cache, step = None, prompt
        while True:
            logits, cache = self._read([step], cache, logits_to_keep=1)
            logits = logits[0, -1].float().masked_fill(~allowed(ids).to(self.device), -math.inf)
            token = int(logits.argmax())
            chance = float(logits.log_softmax(-1)[token])
            if token == STOP:
                return ids, [*chances, chance], True
            if len(ids) == SETTINGS["max_answer_tokens"]:
                return ids, chances, False
            ids, chances, step = [*ids, token], [*chances, chance], [token]
            if len(ids) % 16 == 0 and spent(ids):
                return ids, chances, False


def softmax(logs):
    weights = [math.exp((one - max(logs)) / SETTINGS["temperature"]) for one in logs]
    return [weight / sum(weights) for weight in weights]


def calibrated(log_probability):
    """Probability of an answer that is held against its complement alone."""
    chance = min(math.exp(log_probability), 1.0)
    return softmax([math.log(max(p, 1e-300)) for p in (chance, 1 - chance)])[0]
