"""Named entities: the answer is written under `grammar.lark`, which admits nothing but pieces of the text and types.

`spans.py`, `entity_formats.py` and `token_places.py` are Weitiao's own files, as they are.
"""

from __future__ import annotations

import json
import math
from itertools import compress

import llguidance.numpy
import numpy as np
import torch
from entity_formats import FORMATS
from llguidance import LLMatcher, LLTokenizer
from spans import Source, chunks, nfc, places
from text import HERE, SETTINGS, STOP, calibrated
from token_places import TokenPlaces

NOTHING = SETTINGS["nothing"]
FORMAT = FORMATS[SETTINGS["format"]]
TYPES = {nfc(kind): kind for kind in SETTINGS["types"]}
PIECES = '["{text}"]'
"""Stands in the grammar for the list of the text's pieces."""


class Entities:
    def __init__(self, text, model):
        self.text, self.model = text, model
        self.grammar = (HERE / "grammar.lark").read_text("utf-8")
        spec = (HERE / SETTINGS["tokenizer"]).read_text("utf-8")
        self.vocabulary = LLTokenizer(spec, n_vocab=model.vocabulary, eos_token=STOP)
        self.places = TokenPlaces(text.decode)

    def answer(self, row, prompt):
        told = next(row[name] for name in SETTINGS["fields"][0] if name in row)
        ids, chances, complete = self.model.write(prompt, self._guide(told), lambda ids: self._spent(ids, told))
        whole = self.text.decode(ids)
        written = whole if complete else self._complete_part(whole)
        answer = self._read(written, told, list(zip(self.places.starts(ids, whole), chances, strict=False)))
        return {"prediction": answer, "probability": calibrated(sum(chances)) if complete else None}

    def _guide(self, told):
        """The mask behind the ids so far; those but the last one are known from the times before."""
        pieces = [FORMAT.escaped(piece) for piece in chunks(told, self.text.normalize)]
        matcher = LLMatcher(self.vocabulary, self.grammar.replace(PIECES, json.dumps(pieces)), log_level=0)
        if matcher.is_error():
            raise ValueError(f"grammar.lark cannot be compiled: {matcher.get_error()}")
        bits = llguidance.numpy.allocate_token_bitmask(1, self.model.vocabulary)

        def allowed(ids):
            if ids:
                matcher.consume_token(ids[-1])
            llguidance.numpy.fill_next_token_bitmask(matcher, bits, 0)
            mask = np.unpackbits(bits[0].view(np.uint8), bitorder="little")[: self.model.vocabulary]
            return torch.from_numpy(mask).bool()

        return allowed

    def _complete_part(self, written):
        return FORMAT.complete_part(written) or FORMAT.write((), NOTHING)

    def _spent(self, ids, told):
        """Whether an answer names something more often than the text does, so that nothing more can come of it."""
        pairs = FORMAT.read(self._complete_part(self.text.decode(ids)), NOTHING) or ()
        return None in places(pairs, told)

    def _read(self, written, told, tokens):
        """tokens: where each begins in the answer, and its log-probability."""
        pairs = FORMAT.read(written, NOTHING)
        if pairs is None or any(nfc(kind) not in TYPES for _, kind in pairs):
            return None
        pairs = [(name, TYPES[nfc(kind)]) for name, kind in pairs]
        found, source, ends = places(pairs, told), Source(told), FORMAT.ends(written, NOTHING)
        # What is named more often than it occurs is dropped; what does not occur at all stays.
        kept = [place is not None or source.find(name) is None for place, (name, _) in zip(found, pairs, strict=True)]
        rows = zip(pairs, found, [0, *ends], ends, strict=False)
        return [self._record(*row, told, tokens) for row in compress(rows, kept)]

    def _record(self, pair, place, begin, end, told, tokens):
        start, stop = place or (-1, -1)
        chance = calibrated(math.fsum(chance for at, chance in tokens if begin <= at < end))
        name = told[start:stop] if place else pair[0]
        return {"start": start, "end": stop, "type": pair[1], "text": name, "probability": chance}
