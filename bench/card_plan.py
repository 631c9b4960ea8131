"""What `on_a_card.py` measures, in order of worth.

Seconds are expected on an H100 whose host launches kernels slowly: sums of what parts of them took before; Unsloth's
are guessed. The measurements with random weights need nothing but the package; the others a model and data.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = sys.executable
BOTH = ("ner", "classification")
MINUTES = "MINUTES"
"""In a command: what is left for it."""
DEFAULTS = (
    ("defaults-reviews-few", "product-reviews", (200, 1000), 140),
    ("defaults-daily-few", "peoples-daily-ner", (200, 1000), 180),
    ("defaults-reviews-5000", "product-reviews", (5000,), 200),
    ("defaults-daily-5000", "peoples-daily-ner", (5000,), 280),
)
"""Names, sets and training rows of sweeps, and their seconds."""
HELD_BACK = (("held-back-reviews", "product-reviews", 3459, 120), ("held-back-daily", "peoples-daily-ner", 9229, 180))
"""Names of curves, each with the number of its case behind, their sets, a quarter of the sets' rows, and seconds."""
CASES = 5


@dataclass(frozen=True)
class Measurement:
    name: str
    command: tuple[str, ...]
    seconds: int
    """Expected."""
    limit: int
    """Seconds after which it is ended."""
    bar: str
    """What it serves: number of the issue, and words."""
    parts: bool = False
    """Whether it goes on where it stopped, and says with {"left": 0} that it is done."""
    after: str | None = None
    """Measurement without whose result it cannot be."""
    alone: bool = False
    """Whether nothing else may be at work: it times the start of processes, which share the disk and the host."""
    shared: bool = False
    """Whether others may be on the same card, for its seconds tell nothing."""


def measurements(asked: Namespace) -> list[Measurement]:
    """asked: the options of `on_a_card.py`."""
    random = [*_training(asked), *_prediction(asked), *_rest_of_random(asked)]
    real = [*_real_weights(asked), *_rest_of_real(asked)]
    chosen: dict[str, list[Measurement]] = {"random": random, "real": real, "all": random + real}
    return chosen[asked.weights]


def _training(asked: Namespace) -> Iterable[Measurement]:
    beside = _train(asked, "weitiao", "tutorial", "unsloth")
    yield Measurement("train-16", beside, 220, 400, "6: 16 a step, beside the others")
    best = _train(asked, "weitiao", "unsloth", "hf_liger", at=[256])
    yield Measurement("train-256", best, 230, 420, "6: best throughput, beside the others")
    # Of five steps some have half as many tokens again as others.
    long = _train(asked, "weitiao", "unsloth", profiles=["documents"], more=["--seconds", "8"])
    yield Measurement("documents", long, 150, 240, "6: long documents, beside Unsloth")
    glm = _train(asked, "weitiao", profiles=["ner"], at=[248], more=["--shape", "glm4-9b"])
    yield Measurement("glm4-9b", glm, 90, 180, "6: GLM4-9B's shape")
    yield _curve(asked, "ner")


def _prediction(asked: Namespace) -> Iterable[Measurement]:
    # `hf_generate_batch` makes half as many rows as `hf_batch`.
    some = ("weitiao", "weitiao_merged", "hf_batch")
    classes = _predict(asked, "classification", *some, rows=4096, checked=128)
    yield Measurement("predict-classification", classes, 300, 480, "7: classification, equal answers")
    entities = _predict(asked, "ner", "weitiao", "hf_generate_batch", rows=4096, checked=32)
    yield Measurement("predict-ner", entities, 230, 380, "7: entities, equal answers")
    # With 512 rows of two sizes of a batch it did not end within 140 s.
    few = _predict(asked, "ner", "weitiao", "hf_batch", rows=256, checked=8, repeats=2, seconds=1)
    yield Measurement("predict-ner-hf-batch", few, 130, 240, "7: entities, beside generate in batches")
    papers = _predict(asked, "documents", "weitiao", "hf_batch", rows=256, checked=16)
    yield Measurement("predict-documents", papers, 120, 240, "7: labels of long documents")
    how = ["--shape", "tiny", "--runs", "1"] if asked.tiny else ["--runs", "3"]
    first = (PYTHON, str(HERE / "first_answer.py"), str(asked.work / "first"), *how)
    yield Measurement("first-answer", first, 150, 280, "7: start to first answer", alone=True)


def _rest_of_random(asked: Namespace) -> Iterable[Measurement]:
    """What has been measured before, or tells less."""
    large = _train(asked, "weitiao", at=[1024])
    yield Measurement("train-1024", large, 75, 150, "6: best throughput, share of the products")
    dropout = _train(asked, "weitiao", at=[16, 256], more=["--dropout", "0.1"])
    yield Measurement("dropout", dropout, 90, 180, "6: the tutorial's dropout")
    if not asked.tiny:  # it limits a card's memory
        yield Measurement("small-memory", (PYTHON, str(HERE / "small_memory.py")), 40, 90, "6: within 5 GiB")
    yield _curve(asked, "classification")
    how = ["--device", "cpu", "--tokens", "256", "--prefix", "0", "35"] if asked.tiny else []
    ways = (PYTHON, str(HERE / "attention_ways.py"), *how)
    yield Measurement("attention-ways", ways, 160, 280, "6: attention plan")
    how = (
        ["--device", "cpu", "--tokens", "256", "--prefix", "0"]
        if asked.tiny
        else ["--tokens", "16384", "--prefix", "0", "104"]
    )
    long = (PYTHON, str(HERE / "attention_ways.py"), "--long", *how)
    yield Measurement("attention-long", long, 70, 150, "6: attention of long rows")
    how = ["--device", "cpu", "--shape", "tiny", "--rows", "32"] if asked.tiny else []
    waits = (PYTHON, str(HERE / "decode_waits.py"), *how)
    yield Measurement("decode-waits", waits, 90, 180, "7: entities, what the host waits for")
    how = ["--device", "cpu", "--rows", "256"] if asked.tiny else []
    bits = (PYTHON, str(HERE / "same_bits.py"), *how)
    yield Measurement("same-bits", bits, 15, 60, "7: one row against a batch, where bits change")


def _real_weights(asked: Namespace) -> Iterable[Measurement]:
    how = ["--test-rows", "6" if asked.tiny else "500", "--sets", str(asked.data)]
    yield Measurement("data", _daily(asked, "data", *how), 10, 60, "", shared=True)
    made = _daily(asked, "model", "--source", asked.model)
    yield Measurement("model", made, 60, 150, "", after="data", shared=True)
    some = ["--rows", "32", "--epochs", "1"] if asked.tiny else ["--rows", "1500", "--epochs", "2"]
    ours = _daily(asked, "weitiao", *some)
    yield Measurement("weitiao-1500", ours, 45, 150, "6: real weights, ours", after="model")
    yield _alike(asked, "same-answers", "auto", 90)
    yield from _defaults(asked)
    whole = ["--rows", "48", "--epochs", "1", "data.train_rows=32"] if asked.tiny else ["--epochs", "2"]
    every = _daily(asked, "weitiao", *whole, "run.name=weitiao-all")
    yield Measurement("weitiao-all", every, 160, 300, "6: real weights, all 35,000 rows", after="model")
    begun = _daily(asked, "tutorial", *some, "--steps", "2" if asked.tiny else "20")
    yield Measurement("tutorial-20-steps", begun, 90, 180, "6: real weights, the tutorial's seconds", after="model")
    how = ["--rows", "60", "training.max_steps=2", "data.test_rows=4", "data.validation_rows=4"] if asked.tiny else []
    walk = (PYTHON, str(HERE / "first_hour.py"), str(asked.work / "first-hour"), *_model(asked), *how)
    yield Measurement("first-hour", walk, 300, 580, "8: the first hour with real weights", after="model", shared=True)


def _rest_of_real(asked: Namespace) -> Iterable[Measurement]:
    """What takes long: the tutorial's F1 needs its whole run, and a curve seven."""
    yield _alike(asked, "same-answers-float32", "float32", 150)
    some = ["--rows", "32", "--epochs", "1"] if asked.tiny else ["--rows", "1500", "--epochs", "2"]
    theirs = _daily(asked, "tutorial", *some)
    bar = "6: real weights, the tutorial's F1"
    yield Measurement("tutorial-1500", theirs, 450, 590, bar, after="model", shared=True)
    answers = _daily(asked, "answers", "--alone", "1" if asked.tiny else "20")
    yield Measurement("tutorial-answers", answers, 110, 300, bar, after="tutorial-1500", shared=True)
    for case, (called, name, rows, seconds) in product(range(1, CASES + 1), HELD_BACK):
        yield _held_back(asked, f"{called}-{case}", name, case, rows, seconds)


def _train(
    asked: Namespace, *systems: str, profiles: Sequence[str] = BOTH, at: Sequence[int] = (16,), more: Sequence[str] = ()
) -> tuple[str, ...]:
    """Of options that are given twice the last counts."""
    how = ["--repeats", "3", "--seconds", "3", *more]
    if asked.tiny:
        how += ["--device", "cpu", "--repeats", "1", "--seconds", "0", "--shape", "tiny"]
    names = [*_each("--profile", profiles), *_each("--samples-per-step", map(str, at)), *_each("--system", systems)]
    return (PYTHON, "-m", "weitiao", "bench", "train", "--json", *names, *how)


def _curve(asked: Namespace, profile: str) -> Measurement:
    how = ["--curve", "4" if asked.tiny else "200", "--repeats", "1", "--seconds", "2"]
    command = _train(asked, "weitiao", profiles=[profile], more=how)
    return Measurement(f"curve-{profile}", command, 170, 300, "6: equality, curves")


def _predict(
    asked: Namespace, profile: str, *systems: str, rows: int, checked: int, repeats: int = 3, seconds: int = 4
) -> tuple[str, ...]:
    how = ["--rows", str(rows), "--checked", str(checked), "--repeats", str(repeats), "--seconds", str(seconds)]
    if asked.tiny:
        how += ["--device", "cpu", "--shape", "tiny", "--rows", "8", "--checked", "4", "--repeats", "1"]
        how += ["--seconds", "0"]
    names = _each("--system", systems)
    return (PYTHON, "-m", "weitiao", "bench", "predict", "--json", "--profile", profile, *names, *how)


def _daily(asked: Namespace, command: str, *more: str) -> tuple[str, ...]:
    return (PYTHON, str(HERE / "peoples_daily.py"), command, str(asked.work / "peoples-daily"), *more)


def _alike(asked: Namespace, name: str, dtype: str, seconds: int) -> Measurement:
    folder = asked.work / "peoples-daily"
    few = ["--rows", "6", "--alone", "4", "--plain", "4"] if asked.tiny else []
    how = (str(folder / "weitiao"), str(folder / "test.jsonl"), "--dtype", dtype, *few)
    command = (PYTHON, str(HERE / "same_answers.py"), *how)
    return Measurement(
        name, command, seconds, 2 * seconds, "7: equal answers, real weights", after="weitiao-1500", shared=True
    )


def _defaults(asked: Namespace) -> Iterable[Measurement]:
    """In parts that several cards can share, each with a file of its own."""
    few = ["--test-rows", "6", "--validation-rows", "4", "--runs", "2"] if asked.tiny else []
    for called, name, sizes, seconds in DEFAULTS:
        rows = ["60"] if asked.tiny else list(map(str, sizes))
        which = ["--sets", name, "--rows", *rows, "--minutes", MINUTES, *few]
        command = (PYTHON, str(HERE / "defaults.py"), str(asked.folder / f"{called}.jsonl"), *_model(asked), *which)
        yield Measurement(
            called, command, seconds, 590, "8: defaults within 1 point", parts=True, after="model", shared=True
        )


def _held_back(asked: Namespace, called: str, name: str, case: int, rows: int, seconds: int) -> Measurement:
    """A curve whose score at twice the rows was held back."""
    few = ["--rows", "40", "--test-rows", "20"] if asked.tiny else ["--rows", str(rows), "--times", "2"]
    how = ["--model", str(asked.work / "peoples-daily" / "model"), "--keep", str(asked.work / "curves"), *few]
    case_of = ["--learner", "model", "--cases", "1", "--first-case", str(case)]
    command = (PYTHON, str(HERE / "curve_held_back.py"), str(asked.data / name), *case_of, *how)
    return Measurement(called, command, seconds, 300, "8: the curve's intervals hold", after="model", shared=True)


def _model(asked: Namespace) -> tuple[str, ...]:
    return ("--model", str(asked.work / "peoples-daily" / "model"), "--data", str(asked.data))


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [part for value in values for part in (option, value)]
