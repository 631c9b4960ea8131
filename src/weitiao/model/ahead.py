"""Libraries imported by a thread while there is other work: torch and transformers take seconds."""

from __future__ import annotations

import contextlib
import gc
import importlib
import threading
from collections.abc import Iterator

FOR_TRAINING = ("weitiao.training.parts", "weitiao.model.load", "weitiao.prediction.evaluate")
FOR_A_MODEL = ("transformers.models.auto.modeling_auto", "transformers.models.{0}.modeling_{0}")
FOR_THE_REPORT = ("weitiao.report.page", "matplotlib.figure", "matplotlib.backends.backend_svg")


def libraries_ahead(model_type: str, card: bool) -> threading.Thread:
    """What a run needs behind its rows. Join the thread before these are imported: two threads that import modules in a
    circle may see half of one.

    model_type: as in `config.json`. card: also wake the graphics card, if there is one.
    """
    return import_ahead((*FOR_TRAINING, *(name.format(model_type) for name in FOR_A_MODEL)), card)


def import_ahead(modules: tuple[str, ...], card: bool = False) -> threading.Thread:
    """A thread that is on its way. What goes wrong there goes wrong again, and is told, where it is needed."""

    def work() -> None:
        with _nothing_collected():
            for name in modules:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        if card:
            with contextlib.suppress(Exception):
                import torch

                torch.zeros((), device="cuda")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Of what an import makes, nothing is garbage, and to look for it again and again takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
