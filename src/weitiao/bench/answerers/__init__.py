"""Ways to answer the same rows, one a file with an `ANSWERER`."""

from __future__ import annotations

import pkgutil


def answerer_names() -> tuple[str, ...]:
    """Every way, our own first. Imports none of them."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(names, key=lambda name: (name != "weitiao", name)))
