"""Weitiao (微调): a labelled file in, a fine-tuned, measured, usable language model out.

`weitiao.train(config)` and `weitiao.load(run).predict(rows)` are the command line's `train` and `predict`.
Names are imported on first use (PEP 562), so `import weitiao` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "train": "weitiao.check.first",
    "load": "weitiao.prediction.predictor",
    "evaluate": "weitiao.prediction.evaluate",
    "load_config": "weitiao.config",
    "RunConfig": "weitiao.config",
    "WeitiaoError": "weitiao.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'weitiao' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
