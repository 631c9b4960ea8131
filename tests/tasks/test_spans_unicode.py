"""That `spans` looks at all of Unicode's compositions."""

from __future__ import annotations

import sys
import unicodedata

from weitiao.tasks.spans import _composing


def test_no_composition_lies_beyond_the_planes_looked_through() -> None:
    """Of whatever Unicode this Python has: a second half that NFC merges and that is no combining mark is known."""
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(sys.maxunicode + 1))
    seconds = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    assert len(seconds) > 20
    assert {char for char in seconds if not unicodedata.combining(char)} <= _composing()
