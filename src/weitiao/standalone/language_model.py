"""The model of this folder, with transformers and PEFT."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from typing import Any

import torch
from text import HERE, SETTINGS, STOP
from transformers import AutoModelForCausalLM
from transformers.utils import logging

LABELS_AT_ONCE = 64

# Loading draws a bar and gives notices for who writes such programs: nothing of the answers.
logging.disable_progress_bar()
logging.set_verbosity_error()
warnings.simplefilter("ignore", FutureWarning)


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

    def mask(self, ids):
        """Of the vocabulary: these ids."""
        mask = torch.zeros(self.vocabulary, dtype=torch.bool)
        mask[ids] = True
        return mask

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
