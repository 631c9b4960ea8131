"""The checks, one file a subject. To add one, write `checks/<name>.py` with a subclass of `check.base.Check` named
`CHECK`; the file's name is the registry. Each finding's name has a line in `docs/check.md`, which a test looks for.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from weitiao.check.base import Check


@cache
def checks() -> dict[str, type[Check]]:
    """Every check by the name of its file."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").CHECK for name in names}
