"""Commands as a person types them: in quotes stands only what a shell would take apart."""

from __future__ import annotations

import re
import shlex

PLAIN = re.compile(r"[\w@%+=:,./-]+")
"""`shlex` quotes all letters beyond ASCII, too."""


def typed(*words: object) -> str:
    """`weitiao check 评论.yaml`, `weitiao check 'my reviews.yaml'`."""
    return " ".join(word if PLAIN.fullmatch(word) else shlex.quote(word) for word in map(str, words))
