"""Libraries imported by a thread while there is other work: torch and transformers take seconds."""

from __future__ import annotations

import contextlib
import gc
import importlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from weitiao.families.base import model_config

FOR_TRAINING = ("weitiao.training.parts", "weitiao.model.load", "weitiao.prediction.evaluate")
FOR_PREDICTION = ("weitiao.prediction.predictor",)
FOR_A_MODEL = ("transformers.models.auto.modeling_auto", "transformers.models.{0}.modeling_{0}")
FOR_THE_REPORT = ("weitiao.report.page", "matplotlib.figure", "matplotlib.backends.backend_svg")


def libraries_ahead(modules: tuple[str, ...], folder: Path, device: str) -> threading.Thread:
    """These modules, and what a model needs; and a card is woken. Join the thread before any of them is imported: two
    threads that import modules in a circle may see half of one.

    folder: of the model. device: `model.device`.
    """
    kind = str(model_config(folder).get("model_type"))
    return import_ahead((*modules, *(name.format(kind) for name in FOR_A_MODEL)), device in ("auto", "cuda"))


def import_ahead(modules: tuple[str, ...], card: bool = False) -> threading.Thread:
    """A thread that is on its way."""

    def work() -> None:
        with nothing_collected():
            for name in modules:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        if card:
            import torch

            torch.zeros((), device="cuda")

    return beside(work)


def beside(work: Callable[[], object]) -> threading.Thread:
    """A thread that does it. What goes wrong there goes wrong again, and is told, where it is needed."""

    def quietly() -> None:
        with contextlib.suppress(Exception):
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """Without looking for cycles of garbage: imports, and answers to rows, leave none. During imports it takes a
    quarter of the time; with torch in memory, each look takes tenths of a second, in which a card has nothing to do."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
