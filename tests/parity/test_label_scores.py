"""Scores of labels equal those of plain Hugging Face code that reads prompt, label and stop, each label apart."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity.oracle import log_probabilities, plain_model, random_head
from tiny import tiny_model
from weitiao.data.pack import Prompt
from weitiao.engine import plain
from weitiao.engine.attention_plan import AttentionPlan
from weitiao.engine.fast_layer import FastDecoder
from weitiao.engine.forward import Forward
from weitiao.families.base import families, family_of
from weitiao.families.chat_format import ChatFormat
from weitiao.families.tokenizer import TextTokenizer
from weitiao.prediction import label_sets
from weitiao.prediction.label_scores import Asked, LabelScorer
from weitiao.prediction.label_trees import Candidate
from weitiao.types import Choice

NATS = 1e-4
"""Largest difference of a log-probability that counts as equal, in float32 and sums of up to 20 tokens."""
LABELS = (
    "好",
    "好评",
    "好评如潮",
    "差评，浪费钱",
    "差评",
    "手机质量不错",
    "Real estate",
    "Real",
    "体育新闻与娱乐",
    "7",
)
"""Labels that begin alike, that begin others, of one token and of many."""


@dataclass
class Setup:
    ours: Any
    oracle: Any
    chat: ChatFormat

    def scorer(self, batch_tokens: int = 4096) -> LabelScorer:
        return LabelScorer(Forward(self.ours), self.chat, batch_tokens)

    def path(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """Log-probability of the tokens `answer` behind `prompt`, float64."""
        table = log_probabilities(self.oracle, [*prompt, *answer])
        return float(sum(table[len(prompt) - 1 + at, token] for at, token in enumerate(answer)))

    def label(self, prompt: Sequence[int], label: str) -> float:
        return self.path(prompt, [*self.chat.answer_ids(label), self.chat.stop])

    def candidates(self, labels: Sequence[str] = LABELS) -> tuple[Candidate, ...]:
        return tuple(Candidate(((*self.chat.answer_ids(label), self.chat.stop),)) for label in labels)


def setup_of(folder: Path) -> Setup:
    _, family = family_of(folder)
    return Setup(plain_model(folder), plain_model(folder), family.chat_format(TextTokenizer(folder)))


@pytest.fixture(scope="module", params=sorted(families()))
def setup(request: pytest.FixtureRequest) -> Setup:
    return setup_of(request.getfixturevalue(f"{request.param}_folder"))


@cache
def prompts() -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """A shared prefix, and prompts behind it."""
    draw = random.Random(0)
    tokens = [draw.randrange(500) for _ in range(400)]
    return tuple(tokens[:30]), [tuple(tokens[30 + 7 * i : 30 + 7 * i + length]) for i, length in enumerate((1, 25, 9))]


def behind(asked: Sequence[tuple[int, ...]]) -> list[Prompt]:
    return [Prompt(ids) for ids in asked]


def test_labels_begin_alike(setup: Setup) -> None:
    ids = {label: setup.chat.answer_ids(label) for label in LABELS}
    assert any(a != b and ids[b][: len(ids[a])] == ids[a] for a, b in product(LABELS, LABELS))
    assert {len(tokens) for tokens in ids.values()} > {1, 2}


@pytest.mark.parametrize(
    ("batch_tokens", "least"),
    [(4096, 0), (128, 0), (60, 0), (1, 0), (4096, 200), (60, 200)],
    ids=lambda n: str(n),
)
def test_every_label(setup: Setup, monkeypatch: pytest.MonkeyPatch, batch_tokens: int, least: int) -> None:
    """In one pass, and with the rows in several packs and the labels of a row in several rows; and with packs that are
    filled up, as on a card."""
    prefix, asked = prompts()
    passes = []
    scorer = setup.scorer(batch_tokens)
    monkeypatch.setattr(Forward, "least", least)
    hidden = scorer.forward.hidden
    scorer.forward.hidden = lambda batch: passes.append(batch) or hidden(batch)  # type: ignore[method-assign, func-returns-value]
    done: list[int] = []
    found = scorer.scores(prefix, behind(asked), [setup.candidates()] * len(asked), done.append)
    for prompt, row in zip(asked, found, strict=True):
        wanted = np.array([setup.label(prefix + prompt, label) for label in LABELS])
        assert np.abs(row - wanted).max() <= NATS
    assert sum(done) == len(asked)
    assert (len(passes) == 1) == (batch_tokens == 4096)
    assert min(min(batch.input_ids.numel(), len(batch.keep)) for batch in passes) >= least
    if batch_tokens == 1:
        assert len(passes) == len(asked) * len(LABELS)


def test_hidden_states_of_more_than_one_chunk(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weitiao.prediction.label_scores.CHUNK", 3)
    prefix, asked = prompts()
    [row] = setup.scorer().scores(prefix, behind(asked[:1]), [setup.candidates()])
    assert np.abs(row - [setup.label(prefix + asked[0], label) for label in LABELS]).max() <= NATS


def test_options_of_each_row(setup: Setup) -> None:
    prefix, asked = prompts()
    options = [LABELS[:1], LABELS[2:7], LABELS[::-1]]
    answers = setup.scorer().choose(Asked(prefix, behind(asked), [Choice(labels) for labels in options]))
    for prompt, labels, answer in zip(asked, options, answers, strict=True):
        logs = torch.tensor([setup.label(prefix + prompt, label) for label in labels], dtype=torch.float64)
        wanted = dict(zip(labels, logs.softmax(0).tolist(), strict=True))
        assert answer.answer == answer.text == max(wanted, key=wanted.__getitem__)
        assert dict(answer.scores) == pytest.approx(wanted, abs=1e-4)
        assert math.fsum(answer.scores.values()) == pytest.approx(1, abs=1e-12)
        assert answer.probability == answer.scores[answer.answer]


def test_alone_as_among_many(setup: Setup) -> None:
    prefix, asked = prompts()
    many = [asked[at % 3] + (at % 11,) for at in range(40)]
    choices = [Choice(LABELS)] * len(many)
    together = setup.scorer(300).choose(Asked(prefix, behind(many), choices))
    for prompt, answer in zip(many, together, strict=True):
        [alone] = setup.scorer().choose(Asked((), behind([prefix + prompt]), choices[:1]))
        assert alone.answer == answer.answer
        assert dict(alone.scores) == pytest.approx(dict(answer.scores), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("triton", [True, False])
def test_the_way_of_a_card(setup: Setup, triton: bool) -> None:
    """Our own kernel over trees, in Triton's interpreter; without it, the way `split` has none for them."""
    module: Any = plain
    if triton:
        pytest.importorskip("triton")
        if torch.cuda.is_available():
            pytest.skip("the model is in the host's memory")
        from weitiao.engine import kernels

        module = kernels
    prefix, asked = prompts()
    scorers = [setup.scorer(140) for _ in range(2)]
    forward = scorers[0].forward = Forward(setup.ours, "split")
    forward.kernels, forward.fast = module, FastDecoder(forward.body, module)
    called = []
    attend = AttentionPlan.attend
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttentionPlan, "attend", lambda *args: called.append(1) or attend(*args))
        ours = scorers[0].scores(prefix, behind(asked), [setup.candidates()] * len(asked))
    assert bool(called) != triton
    theirs = scorers[1].scores(prefix, behind(asked), [setup.candidates()] * len(asked))
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - other).max() <= NATS


def test_a_pack_is_read_when_the_next_one_is_launched(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, asked = prompts()
    scorer, events = setup.scorer(60), []
    launch = scorer._launch

    def launched(packed: Any, trees: Any) -> Any:
        number = sum(kind == "launch" for kind, _ in events)
        events.append(("launch", number))
        found = launch(packed, trees)
        return lambda: events.append(("read", number)) or found()

    monkeypatch.setattr(scorer, "_launch", launched)
    scorer.scores(prefix, behind(asked), [setup.candidates()] * len(asked))
    count = len(events) // 2
    assert count > 2
    steps = [[("launch", at + 1)] * (at + 1 < count) + [("read", at)] for at in range(count)]
    assert events == [("launch", 0), *(event for step in steps for event in step)]


def test_a_spoilt_tree_is_found(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Siblings that see each other change a score by far more than the tolerance."""
    prefix, asked = prompts()
    monkeypatch.setattr(
        "weitiao.engine.attention_ways._tree_mask", lambda _, width: torch.ones(width, width, dtype=torch.bool).tril()
    )
    [row] = setup.scorer().scores(prefix, behind(asked[1:2]), [setup.candidates()])
    wanted = np.array([setup.label(prefix + asked[1], label) for label in LABELS])
    assert np.abs(row - wanted).max() > 100 * NATS


# -- The greedy answer


def by_a_decoder(setup: Setup, prompt: Sequence[int], labels: Sequence[str]) -> str:
    """Writes one token at a time, the likeliest that some label goes on with, the stop among them."""
    paths = {(*setup.chat.answer_ids(label), setup.chat.stop): label for label in labels}
    written: tuple[int, ...] = ()
    while written not in paths:
        table = log_probabilities(setup.oracle, [*prompt, *written])[-1]
        allowed = {path[len(written)] for path in paths if path[: len(written)] == written}
        written = (*written, max(allowed, key=lambda token: float(table[token])))
    return paths[written]


@pytest.mark.parametrize("batch_tokens", [4096, 60], ids=lambda n: f"batch_tokens={n}")
def test_greedy_as_a_decoder_writes(qwen2_folder: Path, batch_tokens: int) -> None:
    """Also where the labels of a row lie in several rows; and the probabilities are those of the exact answer."""
    setup = setup_of(qwen2_folder)
    setup.ours.lm_head = setup.oracle.lm_head = random_head(setup.ours.lm_head.out_features, 0, 0.5, {})
    draw = random.Random(2)
    prefix = (1, 2)
    rows = [tuple(draw.randrange(500) for _ in range(1 + at % 9)) for at in range(40)]
    choices = [Choice(LABELS)] * len(rows)
    done: list[int] = []
    scorer = setup.scorer(batch_tokens)
    greedy = scorer.choose(Asked(prefix, behind(rows), choices, done.append), "greedy")
    exact = scorer.choose(Asked(prefix, behind(rows), choices))
    assert sum(done) == len(rows)
    for prompt, answer, likeliest in zip(rows, greedy, exact, strict=True):
        assert answer.answer == answer.text == by_a_decoder(setup, prefix + prompt, LABELS)
        assert dict(answer.scores) == pytest.approx(dict(likeliest.scores), abs=1e-5)
        assert answer.probability == answer.scores[answer.answer]
    differing = sum(a.answer != b.answer for a, b in zip(greedy, exact, strict=True))
    assert 0 < differing < len(rows), "the two ways are not told apart by these rows"


# -- Several labels


MANY = ("手机", "电影。", "书", "南京")
NOTHING = "7"


class Sets:
    """All sets of labels by brute force: every way to go on is a whole answer, scored from the prompt on."""

    def __init__(self, setup: Setup, prompt: Sequence[int], labels: Sequence[str]) -> None:
        self.setup, self.prompt, self.labels = setup, prompt, labels

    def shares(self, taken: Sequence[str]) -> dict[str | None, float]:
        """Share of ending here (None), and of each label that may follow `taken`."""
        chat, text = self.setup.chat, "\n".join(taken)
        weights: dict[str | None, float] = {
            None: math.exp(self.setup.path(self.prompt, [*chat.answer_ids(text or NOTHING), chat.stop]))
        }
        for label in self.labels[self.labels.index(taken[-1]) + 1 if taken else 0 :]:
            whole = "\n".join([*taken, label])
            paths = [[*chat.answer_ids(whole), chat.stop]]
            if label != self.labels[-1]:
                paths.append(chat.answer_ids(whole + "\n"))
            weights[label] = math.fsum(math.exp(self.setup.path(self.prompt, path)) for path in paths)
        total = math.fsum(weights.values())
        return {label: weight / total for label, weight in weights.items()}

    def chances(self) -> dict[str, float]:
        """Summed probability of the sets that hold each label."""
        sets: dict[tuple[str, ...], float] = {}

        def go_on(taken: tuple[str, ...], mass: float) -> None:
            if taken and taken[-1] == self.labels[-1]:
                sets[taken] = mass
                return
            for label, share in self.shares(taken).items():
                if label is None:
                    sets[taken] = mass * share
                else:
                    go_on((*taken, label), mass * share)

        go_on((), 1.0)
        assert len(sets) == 2 ** len(self.labels)
        assert math.fsum(sets.values()) == pytest.approx(1)
        return {label: math.fsum(mass for taken, mass in sets.items() if label in taken) for label in self.labels}


@pytest.fixture(scope="module", params=["plain", "melting"])
def many_setup(request: pytest.FixtureRequest, qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """`melting`: a tokenizer that has one token for "。" and a line break, as Qwen's own have for many signs."""
    if request.param == "plain":
        return favouring(setup_of(qwen2_folder))
    folder = tiny_model(tmp_path_factory.mktemp("models") / "melting", "qwen2")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    unused = tokenizer["added_tokens"].pop()
    tokenizer["model"]["vocab"]["ãĢĤĊ"] = unused["id"]
    tokenizer["model"]["merges"].append(["ãĢĤ", "Ċ"])
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    setup = setup_of(folder)
    alone, broken = setup.chat.answer_ids("电影。"), setup.chat.answer_ids("电影。\n")
    assert broken[: len(alone)] != alone, "the line break did not melt into the sign"
    return favouring(setup)


def favouring(setup: Setup) -> Setup:
    """The setup with models that like to write labels, and to stop less, so that walks of several labels come about."""
    texts = ("\n".join(MANY), *MANY, NOTHING)
    liked = sorted({setup.chat.stop, *(token for text in texts for token in setup.chat.answer_ids(text))})
    bias = {**dict.fromkeys(liked, 12.0), setup.chat.stop: 5.0}
    head = random_head(setup.ours.lm_head.out_features, 0, 0.3, bias)
    setup.ours.lm_head = setup.oracle.lm_head = head
    return setup


def test_several_labels_against_brute_force(many_setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_sets, "REST", 0.0)
    monkeypatch.setattr(label_sets, "MOST", 2 ** len(MANY))
    draw = random.Random(1)
    prefix = (1, 2)
    rows = [tuple(draw.randrange(780) for _ in range(1 + at % 5)) for at in range(20)]
    done: list[int] = []
    choices = [Choice(MANY, many=True, nothing=NOTHING)] * len(rows)
    answers = many_setup.scorer(200).choose(Asked(prefix, behind(rows), choices, done.append))
    assert sum(done) == len(rows)
    seen = set()
    for prompt, answer in zip(rows, answers, strict=True):
        chances = Sets(many_setup, prefix + prompt, MANY).chances()
        wanted = tuple(label for label in MANY if chances[label] >= 0.5)
        assert dict(answer.scores) == pytest.approx(chances, abs=1e-4)
        assert answer.answer == wanted
        assert answer.text == ("\n".join(wanted) or NOTHING)
        product = math.prod(p if label in wanted else 1 - p for label, p in chances.items())
        assert answer.probability == pytest.approx(product, abs=1e-3)
        seen.add(wanted)
    assert len(seen) > 1, f"all rows have the answer {seen}"
    assert max(map(len, seen)) > 1


def test_all_labels_in_order_and_none(many_setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the next label always wins, all are taken in their order and the walk ends; when ending wins, none is."""
    prefix, asked = prompts()
    scorer = many_setup.scorer()
    for best, wanted, text in ((1, MANY, "\n".join(MANY)), (0, (), NOTHING), (-1, MANY[-1:], MANY[-1])):

        def scores(_: object, starts: Sequence[Any], offers: Sequence[Any], best: int = best) -> list[np.ndarray]:
            return [np.eye(len(offer))[best] * 9 for offer in offers]

        monkeypatch.setattr(scorer, "scores", scores)
        several = [Choice(MANY, many=True, nothing=NOTHING)] * len(asked)
        for answer in scorer.choose(Asked(prefix, behind(asked), several)):
            assert (answer.answer, answer.text) == (wanted, text)


def test_one_label_and_several_in_one_batch(setup: Setup) -> None:
    prefix, asked = prompts()
    one, many = Choice(LABELS), Choice(MANY, many=True, nothing=NOTHING)
    mixed = setup.scorer().choose(Asked(prefix, behind(asked), [many, one, many]))
    pairs = zip(asked, [many, one, many], strict=True)
    apart = [setup.scorer().choose(Asked(prefix, behind([p]), [c]))[0] for p, c in pairs]
    assert [answer.answer for answer in mixed] == [answer.answer for answer in apart]
    assert isinstance(mixed[1].answer, str)
    assert isinstance(mixed[0].answer, tuple)
