"""A text that a model cannot take whole, in overlapping windows.

window     as many tokens as there is room for; it ends at a line or sentence border in its last eighth, if there
           is one, else between any two tokens
overlap    64 tokens, in small windows a quarter of the room: more than an entity has. The next window begins that
           far before the end of the last one, or at a border up to an eighth of the room farther back
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from weitiao.tasks.spans import clusters
from weitiao.types import Span

OVERLAP = 64
"""Tokens that two windows share, at least."""
SENTENCE_ENDS = "。！？；…"
WESTERN_ENDS = ".!?;"
"""They end a sentence where white space follows."""


def overlap_of(room: int) -> int:
    return min(OVERLAP, room // 4)


def windows(text: str, room: int, spans: Callable[[str], Sequence[Span]]) -> list[Span]:
    """Where the windows of a text stand in it, in order; together they cover it.

    room: tokens of a window. It has more only where no cut is possible: characters stay whole, with their marks.
    spans: the tokenizer's span in a text of each of its tokens.
    """
    cuts = _Cuts(text, spans(text))
    found, first = [], 0
    while True:
        last = _end(cuts, first, room, lambda window: len(spans(window)))
        found.append((cuts.places[first], cuts.places[last]))
        if last == len(cuts.places) - 1:
            return found
        back = cuts.at_most(cuts.tokens[last] - overlap_of(room))
        first = max(cuts.near(back, room // 8), first + 1)


class _Cuts:
    """Where a text may be cut: `places`, code points, and `tokens`, how many of the whole text's stand before each."""

    def __init__(self, text: str, spans: Sequence[Span]) -> None:
        self.text = text
        whole, at = {0}, 0
        for cluster in clusters(text):
            at += len(cluster)
            whole.add(at)
        self.places, self.tokens = [0], [0]
        reached = 0
        for token, (start, end) in enumerate(spans):
            # A character of several tokens is the span of each.
            if reached <= start and start > self.places[-1] and start in whole:
                self.places.append(start)
                self.tokens.append(token)
            reached = max(reached, end)
        self.places.append(len(text))
        self.tokens.append(len(spans))

    def at_most(self, tokens: int) -> int:
        """The last cut with so many tokens before it."""
        return bisect_right(self.tokens, tokens) - 1

    def near(self, cut: int, reach: int) -> int:
        """The best border of those up to `reach` tokens before a cut: the last line's, else the last sentence's, else
        the cut itself."""
        sentence = None
        for other in range(cut, bisect_left(self.tokens, self.tokens[cut] - reach) - 1, -1):
            place = self.places[other]
            if place in (0, len(self.text)) or self.text[place - 1] == "\n":
                return other
            before, behind = self.text[place - 1], self.text[place]
            if sentence is None and (before in SENTENCE_ENDS or (before in WESTERN_ENDS and behind.isspace())):
                sentence = other
        return cut if sentence is None else sentence


def _end(cuts: _Cuts, first: int, room: int, count: Callable[[str], int]) -> int:
    """The cut at which a window that begins at the cut `first` ends."""
    keep = room
    while True:
        last = cuts.at_most(cuts.tokens[first] + keep)
        last = max(cuts.near(last, room // 8), first + 1)
        over = count(cuts.text[cuts.places[first] : cuts.places[last]]) - room
        if over <= 0 or last == first + 1:
            return last
        # Tokens merge differently at the window's ends than in the whole text.
        keep = cuts.tokens[last] - cuts.tokens[first] - over
