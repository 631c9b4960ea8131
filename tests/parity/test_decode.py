"""Decoding with a cache, in batches and behind a shared prefix, writes what plain Hugging Face code writes, computing
all anew for every token; and every answer is one."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from parity.oracle import log_probabilities, lora_model, plain_model, random_head
from texts import texts
from weitiao.data.encode import Encoder
from weitiao.data.pack import Prompt
from weitiao.data.prefix import common_prefix
from weitiao.engine import graphs, slot_prompts, slots
from weitiao.engine.fast_layer import FastDecoder
from weitiao.engine.forward import Forward
from weitiao.engine.slot_steps import WIDE, Steps
from weitiao.engine.slots import SlotCache
from weitiao.families.base import families, family_of
from weitiao.families.tokenizer import TextTokenizer
from weitiao.prediction import decode, slot_run
from weitiao.prediction.decode import Decoder
from weitiao.prediction.grammar import GrammarCompiler
from weitiao.prediction.guess import Guesser, Worth
from weitiao.prediction.predictor import Predictor
from weitiao.prediction.slot_state import Decoded
from weitiao.tasks.ner import Ner, NerOptions
from weitiao.types import Prediction, Row

BUDGET = 40
TYPES = ["人名", "地点", "Ort"]
TEXTS = (
    "王",
    "王小明住在南京。",
    "昨天李华从乌鲁木齐回来了，在哈尔滨，赵敏开了一家店。" * 3,
    "南京",
    "A b\tc\n\\d é 😀",
    "第7天没有消息。",
    "上海下雨了，李华没有出门。",
)


@dataclass
class Setup:
    folder: Path
    ours: Any
    oracle: Any
    encoder: Encoder
    fast: bool
    recorded: bool = False
    """Steps as on a card, where a recorded function is called again."""
    known: dict[str, Decoded] = field(default_factory=dict)
    """Text → what the oracle wrote."""

    def task(self, output_format: str = "lines") -> Ner:
        return Ner(NerOptions(types=TYPES, language="zh", output_format=output_format))  # type: ignore[arg-type]

    def example(self, text: str, task: Ner) -> Any:
        return task.example(Row({"text": text}, "rows", 1), labelled=False)

    def asked(self, rows: Sequence[str]) -> tuple[list[tuple[int, ...]], list[Any]]:
        """Prompts and grammars of texts."""
        task = self.encoder.task
        examples = [self.example(text, task) for text in rows]  # type: ignore[arg-type]
        prompts = [self.encoder.prompt(example).ids for example in examples]
        return prompts, [task.constraint(example, self.encoder.chat.tokenizer.normalize) for example in examples]

    def decode(
        self,
        rows: Sequence[str],
        *,
        shared: bool = True,
        budget: int = BUDGET,
        slots: int = 100,
        decoder: Decoder | None = None,
        drafts: Sequence[Sequence[int]] = (),
    ) -> list[Decoded]:
        prompts, grammars = self.asked(rows)
        prefix = common_prefix([self.encoder.prompt(self.example(text, self.encoder.task)) for text in rows])  # type: ignore[arg-type]
        prefix = prefix if shared else ()
        chat = self.encoder.chat
        forward = Forward(self.ours, fast=self.fast)
        assert (forward.fast is not None) == self.fast
        if decoder is None:
            decoder = Decoder(forward, chat.stop, budget)
            decoder.recorded = self.recorded
        compiler = GrammarCompiler(chat.tokenizer, self.ours.lm_head.out_features, chat.stop)
        own = [Prompt(prompt[len(prefix) :]) for prompt in prompts]
        return decoder.decode(prefix, own, compiler.guide(grammars.__getitem__), slots, drafts=drafts)

    def by_brute_force(self, text: str, budget: int) -> Decoded:
        """Greedy, one text, no cache: the likeliest token that the grammar allows, until the stop."""
        if text not in self.known:
            self.known[text] = self._by_brute_force(text)
        whole = self.known[text]
        return whole if len(whole.ids) <= budget else replace(whole, ids=whole.ids[:budget], complete=False)

    def _by_brute_force(self, text: str) -> Decoded:
        [prompt], [grammar] = self.asked([text])
        stop = self.encoder.chat.stop
        matcher = LLMatcher(self.vocabulary(), grammar.lark)
        answer: list[int] = []
        total, chances = 0.0, []
        while True:
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            allowed = np.unpackbits(bits, bitorder="little")[: self.oracle.lm_head.out_features].astype(bool)
            logs = log_probabilities(self.oracle, [*prompt, *answer])[-1]
            logs = logs.masked_fill(~torch.from_numpy(allowed), -np.inf).log_softmax(-1)
            token = int(logs.argmax())
            if token != stop and len(answer) == BUDGET:
                return Decoded(answer, total, complete=False, chances=chances)
            total += float(logs[token])
            if token == stop:
                return Decoded(answer, total, complete=True, chances=chances)
            answer.append(token)
            chances.append(float(logs[token]))
            assert matcher.consume_token(token)

    def vocabulary(self) -> LLTokenizer:
        spec = (self.folder / "tokenizer.json").read_text("utf-8")
        return LLTokenizer(spec, n_vocab=self.oracle.lm_head.out_features, eos_token=self.encoder.chat.stop)

    def assert_equal(self, rows: Sequence[str], found: Sequence[Decoded], budget: int = BUDGET) -> None:
        for text, decoded in zip(rows, found, strict=True):
            wanted = self.by_brute_force(text, budget)
            told = self.encoder.chat.tokenizer.decode
            assert decoded.ids == wanted.ids, f"{text!r}: {told(decoded.ids)!r} instead of {told(wanted.ids)!r}"
            assert decoded.complete == wanted.complete
            assert decoded.chances == pytest.approx(wanted.chances[: len(wanted.ids)], abs=1e-3)
            if wanted.complete:
                assert decoded.log_probability == pytest.approx(wanted.log_probability, abs=1e-3)


@pytest.fixture(scope="module", params=[(name, fast) for name in sorted(families()) for fast in (False, True)], ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    """By transformers' layers, and by our own."""
    name, fast = request.param
    folder = request.getfixturevalue(f"{name}_folder")
    _, family = family_of(folder)
    chat = family.chat_format(TextTokenizer(folder))
    task = Ner(NerOptions(types=TYPES, language="zh"))
    models = [plain_model(folder), plain_model(folder)]
    for model in models:
        # It likes to end, so that answers are of many lengths.
        model.lm_head = random_head(model.lm_head.out_features, 3, 0.5, {chat.stop: 3.0})
    return Setup(folder, *models, Encoder(task, chat, 512, 2048), fast)


@pytest.mark.parametrize("shared", [True, False], ids=["shared prefix", "no prefix"])
@pytest.mark.parametrize("slots", [100, 3, 1])
def test_batch(setup: Setup, shared: bool, slots: int) -> None:
    """Rows of many lengths; some end early, so that others take their slots, or the batch shrinks."""
    found = setup.decode(TEXTS, shared=shared, slots=slots)
    setup.assert_equal(TEXTS, found)
    lengths = sorted(len(decoded.ids) for decoded in found)
    assert lengths[len(lengths) // 2] < lengths[-1], f"no row went on behind the half of the batch: {lengths}"


@pytest.mark.parametrize("wide", [True, False], ids=["always", "never"])
def test_guesses_change_nothing(setup: Setup, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all steps have guesses, or none; where they are right, there are fewer steps."""
    steps = []
    step = Forward.step
    monkeypatch.setattr(Worth, "wide", lambda self, answers: wide)
    monkeypatch.setattr(Forward, "step", lambda self, ids, *rest: steps.append(ids.shape[1]) or step(self, ids, *rest))
    [found] = setup.decode([TEXTS[2]], budget=24)
    setup.assert_equal([TEXTS[2]], [found], 24)
    assert (WIDE in steps[2:]) == wide


@pytest.mark.parametrize("gone", ["nothing", "a piece", "all"])
def test_drafts_change_nothing(setup: Setup, gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right ones are read at once; behind what is missing in one, its end is found again."""
    steps = []
    logits = Steps.logits
    monkeypatch.setattr(Steps, "logits", lambda self, told, *rest: steps.append(told) or logits(self, told, *rest))
    answers = [setup.by_brute_force(text, BUDGET).ids for text in TEXTS]
    cut = {"nothing": slice(0), "a piece": slice(4, 6), "all": slice(None)}[gone]
    drafts = [[token for at, token in enumerate(ids) if at not in range(*cut.indices(len(ids)))] for ids in answers]
    setup.assert_equal(TEXTS, setup.decode(TEXTS, drafts=drafts))
    longest = max(map(len, answers))
    if gone == "nothing":
        assert len(steps) == 1
    elif gone == "a piece":
        assert len(steps) <= longest / 2
    else:
        assert len(steps) >= longest - 1


@pytest.fixture
def _recorded_on_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs need a card: here a function that was recorded is called again, with what was put where it reads."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(graphs, "record", lambda function, pool=None: SimpleNamespace(replay=function))


@pytest.mark.usefixtures("_recorded_on_a_host")
def test_recorded_steps(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a step reads or writes moves between two of a size."""
    monkeypatch.setattr(setup, "recorded", setup.fast)  # layers of transformers are not
    setup.assert_equal(TEXTS, setup.decode(TEXTS, slots=4))


@pytest.mark.usefixtures("_recorded_on_a_host")
def test_a_decoder_answers_again(setup: Setup) -> None:
    """On a card it keeps its slots for the next prompts, which may be longer, more, or behind another prefix."""
    forward = Forward(setup.ours, fast=setup.fast)
    decoder = Decoder(forward, setup.encoder.chat.stop, BUDGET)
    decoder.recorded = setup.fast
    for rows in (TEXTS[3:5], TEXTS, TEXTS[:1], TEXTS[1:]):
        setup.assert_equal(rows, setup.decode(rows, slots=3, decoder=decoder))
    assert (decoder._steps is not None) == setup.fast
    decoder.rest()
    setup.assert_equal(TEXTS[:2], setup.decode(TEXTS[:2], decoder=decoder))


@pytest.mark.usefixtures("_recorded_on_a_host")
def test_few_long_rows_and_many_short_ones_in_turn(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are recorded once for both."""
    if not setup.fast:
        pytest.skip("layers of transformers are not recorded")
    monkeypatch.setattr(decode, "ROOM", 1)
    monkeypatch.setattr(slots, "ROUNDED", 1)
    decoder = Decoder(Forward(setup.ours, fast=True), setup.encoder.chat.stop, BUDGET)
    decoder.recorded = True
    by_length = sorted(TEXTS, key=len)
    seen = []
    for rows, count in ((by_length[-2:], 1), (by_length[:4], 3), (by_length[-2:], 1), (by_length[:4], 2)):
        setup.assert_equal(rows, setup.decode(rows, slots=count, decoder=decoder))
        seen.append(decoder._steps)
    assert seen[1] is not seen[0], "a third of the slots is too few"
    assert seen[1] is seen[2] is seen[3], "there is room for the long ones, too"


@pytest.mark.slow
@pytest.mark.usefixtures("_recorded_on_a_host")
@pytest.mark.parametrize(
    ("setup", "recorded"),
    [(("qwen2", True), False), *((("glm4", fast), fast) for fast in (True, False))]
    + [((name, True), True) for name in ("qwen2", "qwen2_vl", "qwen3")],
    indirect=["setup"],
    ids=str,
)
def test_by_kernels(setup: Setup, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card, with adapters that were brought up to date once; where steps are recorded, in two groups that lie
    in any slots, of which there is too little room at first. Of each build of layers that kernels know."""
    kernels = pytest.importorskip("weitiao.engine.kernels")
    if torch.cuda.is_available():
        pytest.skip("the model is in the host's memory")
    forward = Forward(setup.ours, "split", fast=setup.fast)
    forward.kernels = kernels
    if forward.fast is not None:
        forward.fast = FastDecoder(forward.body, kernels)
    decoder = Decoder(forward, setup.encoder.chat.stop, 12)
    decoder.recorded = recorded
    groups, prepare = set(), slot_run.Run._prepared
    monkeypatch.setattr(slot_run, "PAIRED", 2)
    monkeypatch.setattr(decode, "ROOM", 1)
    monkeypatch.setattr(slots, "ROUNDED", 1)
    monkeypatch.setattr(slot_prompts, "PIECE", 4)
    monkeypatch.setattr(slot_prompts, "PIECES", (3, 100))
    read, reads = Steps.read, []
    monkeypatch.setattr(Steps, "read", lambda *told: reads.append(told[1].shape) or read(*told))

    def preparing(run: Any, group: Any) -> Any:
        if len(group.answers):
            groups.add(run.groups.index(group))
        return prepare(run, group)

    monkeypatch.setattr(slot_run.Run, "_prepared", preparing)
    with forward.steady():
        found = setup.decode(TEXTS[:5], slots=3, budget=12, decoder=decoder)
    setup.assert_equal(TEXTS[:5], found, 12)
    assert groups == ({0, 1} if decoder.recorded else {0})
    assert len(set(reads)) == (2 if decoder.recorded else 0), "prompts are read in pieces, of few sizes"


def test_slots_grow(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers longer than there is room for at first."""
    lengths = []
    grow = SlotCache.make_room

    def growing(self: SlotCache, tokens: int) -> None:
        lengths.append(self.length)
        grow(self, tokens)

    monkeypatch.setattr(SlotCache, "make_room", growing)
    monkeypatch.setattr(slots, "ROUNDED", 1)
    # Of a text alone, all but the last token of the prompt is prefix, and an answer may be as long as the rest.
    setup.assert_equal([TEXTS[2]], setup.decode([TEXTS[2]]))
    assert lengths[0] < lengths[-1]


def test_long_prompts_are_read_in_parts(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(slot_run.PREFILL, "cpu", 10)
    setup.assert_equal(TEXTS, setup.decode(TEXTS))
    setup.assert_equal(TEXTS, setup.decode(TEXTS, shared=False, slots=2))


def test_alone_as_in_a_batch(setup: Setup) -> None:
    together = setup.decode(TEXTS)
    for text, decoded in zip(TEXTS, together, strict=True):
        [alone] = setup.decode([text])
        assert alone.ids == decoded.ids
        assert alone.log_probability == pytest.approx(decoded.log_probability, abs=1e-3)


@pytest.mark.parametrize("budget", [1, 3, 7])
def test_budget(setup: Setup, budget: int) -> None:
    found = setup.decode(TEXTS, budget=budget)
    setup.assert_equal(TEXTS, found, budget)
    cut = [decoded for decoded in found if not decoded.complete]
    assert cut
    assert {len(decoded.ids) for decoded in cut} == {budget}


def test_a_spoilt_mask_is_found(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that sees what others left in its slot writes something else."""
    whole = setup.decode(TEXTS, slots=2)
    bias = SlotCache.bias
    monkeypatch.setattr(SlotCache, "bias", lambda self, *told: torch.zeros_like(bias(self, *told)))
    found = setup.decode(TEXTS, slots=2)
    pairs = zip(whole, found, strict=True)
    assert any(a.ids != b.ids or abs(a.log_probability - b.log_probability) > 0.01 for a, b in pairs)


# -- Whatever the text, the answer is one.


@dataclass
class Answering:
    """Answers of random models: each seed is one."""

    predictor: Predictor
    task: Ner

    def answers(self, rows: Sequence[str], seed: int) -> list[Prediction]:
        head = self.predictor.forward.head
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed)))
        examples = [self.task.example(Row({"text": text}, "rows", 1), labelled=False) for text in rows]
        return self.predictor.answer(examples)


@pytest.fixture(scope="module", params=["qwen2-lines", "qwen2-json", "llama-lines", "llama-json"])
def answering(request: pytest.FixtureRequest) -> Answering:
    name, _, output_format = request.param.partition("-")
    return answering_of(request.getfixturevalue(f"{name}_folder"), output_format, budget=32)


def answering_of(folder: Path, output_format: str, budget: int) -> Answering:
    _, family = family_of(folder)
    task = Ner(NerOptions(types=TYPES, language="zh", output_format=output_format))  # type: ignore[arg-type]
    encoder = Encoder(task, family.chat_format(TextTokenizer(folder)), 512, 2048)
    model = lora_model(folder)
    # Answers without an entity are dull.
    dislikes = dict.fromkeys((*encoder.chat.answer_ids("无")[:1], *encoder.chat.answer_ids("[]")[:2]), -9.0)
    model.get_base_model().lm_head = random_head(model.get_base_model().lm_head.out_features, 0, 1.0, dislikes)
    return Answering(Predictor(task, encoder, model, budget=budget, batch_tokens=4096), task)


def test_a_large_budget_leaves_batches_large(qwen2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long answer in training must not make every later batch a row or two."""
    seen = []
    decode = Decoder.decode

    def counting(self: Decoder, prefix: Any, prompts: Any, guide: Any, slots: int, *rest: Any) -> list[Decoded]:
        seen.append(slots)
        self.budget = 4  # the slots are decided by now
        return decode(self, prefix, prompts, guide, slots, *rest)

    monkeypatch.setattr(Decoder, "decode", counting)
    rows = ["李华住在南京。"] * 16
    assert len(answering_of(qwen2_folder, "lines", budget=4000).answers(rows, seed=0)) == 16
    assert len(seen) == 1
    assert seen[0] >= 16


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_several_prefixes(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of two long beginnings, in turns: decoded group by group, in their order, as each is alone."""
    made = answering_of(request.getfixturevalue(f"{name}_folder"), "lines", budget=12)
    rows = [text * 25 + "赵敏上海" * (at % 3) + TEXTS[at % 4] for at in range(12) for text in (TEXTS[1], TEXTS[6])]
    alone = [made.answers([row], seed=3)[0] for row in rows]
    prefixes = []
    decode = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda self, ids, *rest: prefixes.append(ids) or decode(self, ids, *rest))
    monkeypatch.setattr(made.predictor._prompts, "batch_tokens", 1024)
    together = made.answers(rows, seed=3)
    assert len(set(prefixes)) == 2
    assert min(map(len, prefixes)) > 150
    assert [found.text for found in together] == [found.text for found in alone]
    assert len({found.text for found in together}) > 2


def assert_valid(text: str, found: Prediction) -> None:
    """An answer that reads, of known types and substrings of the text where they are said to be."""
    assert found.answer is not None, f"{found.text!r} does not read"
    for entity in found.answer:
        assert entity.type in TYPES
        if entity.start >= 0:
            assert text[entity.start : entity.end] == entity.text != ""
        else:
            # Said once more than it occurs: nothing is left to point to.
            assert unicodedata.normalize("NFC", entity.text) in unicodedata.normalize("NFC", text)


@settings(max_examples=15)
@given(rows=st.lists(texts(8), min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_every_answer_reads(answering: Answering, rows: list[str], seed: int) -> None:
    for text, found in zip(rows, answering.answers(rows, seed), strict=True):
        assert_valid(text, found)


def test_random_models_find_entities(answering: Answering) -> None:
    """Else the test above would say little."""
    found = [p for seed in range(8) for p in answering.answers(["昨天李华从乌鲁木齐回来了", "A b c"], seed)]
    assert sum(bool(prediction.answer) for prediction in found) > len(found) / 2
    assert any(prediction.probability is not None for prediction in found)


@pytest.mark.parametrize("output_format", ["lines", "json"])
def test_a_cut_answer_reads(qwen2_folder: Path, output_format: str) -> None:
    rows = ["昨天李华从乌鲁木齐回来了", 'a"b\tc\n', "e\u0301e\u0301 😀😀"]
    for budget in (1, 2, 3, 5, 8, 13):
        cut = answering_of(qwen2_folder, output_format, budget).answers(rows, seed=budget)
        for text, prediction in zip(rows, cut, strict=True):
            assert_valid(text, prediction)
        if budget < 4:
            assert all(prediction.probability is None for prediction in cut), "no answer was cut"


@settings(max_examples=50)
@given(ids=st.lists(st.integers(0, 4), max_size=30), most=st.integers(1, 5))
def test_a_guess_is_what_followed_before(ids: list[int], most: int) -> None:
    guesser = Guesser(ids[:10])
    guesser.add(ids[10:12])
    guesser.add(ids[12:])
    assert guesser.heard == max(0, len(ids) - 10)
    found = guesser.guess([], most)
    assert len(found) <= most
    if len(ids) > 1 and ids[-1] in ids[:-1]:
        size = 2 if any(ids[at : at + 2] == ids[-2:] for at in range(len(ids) - 2)) else 1
        places = [at for at in range(len(ids) - size) if ids[at : at + size] == ids[-size:]]
        assert found == ids[places[-1] + size :][:most]
    else:
        assert found == []
    assert guesser.guess([7, 8], 1) == [7]
