"""What is too long is shortened in its shrinkable text only; the rest and the answer are never cut."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from texts import texts
from weitiao.data.encode import CUT_MARK, Encoder, shortening_note
from weitiao.errors import RenderError
from weitiao.families.base import family_of
from weitiao.families.tokenizer import TextTokenizer
from weitiao.tasks.classification import Classification, ClassificationOptions
from weitiao.tasks.ner import Ner, NerOptions
from weitiao.types import Row

LABELS = ["体育", "一个很长的类别名称" * 20]
TASK = Classification(ClassificationOptions(labels=LABELS, options="fixed", language="zh"))


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "llama"])
def chat(request):
    folder = request.getfixturevalue(f"{request.param}_folder")
    return family_of(folder)[1].chat_format(TextTokenizer(folder))


def made(text: str, label: str = LABELS[0], task=TASK):
    return task.example(Row({"text": text, "label": label}, "train.jsonl", 17))


def shown_text(chat, encoded) -> str:
    """The row's text as it stands in the prompt."""
    prompt = chat.tokenizer.decode(encoded.prompt)
    return prompt.split("user\n文本：", 1)[1].rpartition("<|im_end|>\n<|im_start|>assistant")[0]


long_texts = st.lists(texts(20), min_size=1, max_size=20).map("".join)


@settings(max_examples=60)
@given(text=long_texts, max_length=st.integers(8, 80))
@example(text="😀" * 30, max_length=8)
@example(text="\U0001d160" * 2, max_length=8)
@example(text="é" * 3 + "e\u0301" * 50, max_length=9)
@example(text=" " * 60 + "x", max_length=8)
def test_the_text_keeps_within_max_length(chat, text, max_length):
    tokenizer = chat.tokenizer
    encoded = Encoder(TASK, chat, max_length, 100_000).prompt(made(text))
    shown = shown_text(chat, encoded)
    spans = tokenizer.spans(text)
    if len(spans) <= max_length:
        assert (shown, encoded.removed) == (tokenizer.normalize(text), 0)
        return
    assert len(tokenizer.encode(shown)) <= max_length, shown
    if CUT_MARK not in text:
        head, _, tail = shown.partition(CUT_MARK)
        assert head in {tokenizer.normalize(text[:at]) for at in range(len(text))}
        assert tail in {tokenizer.normalize(text[at:]) for at in range(1, len(text) + 1)}
        kept = len(tokenizer.encode(head)) + len(tokenizer.encode(tail))
        # Tokens may merge differently where a text is cut.
        assert abs(len(spans) - encoded.removed - kept) <= 4
        if max_length >= 32:
            assert head
            assert tail
            # A code point whose normal form is three of four bytes has up to twelve tokens, on either side of the gap.
            assert kept >= max_length - 24, "no more is left out than must be"


def test_head_and_tail_are_kept_in_equal_parts(chat):
    text = "".join(chr(0x4E00 + i) for i in range(500))
    encoded = Encoder(TASK, chat, 300, 100_000).prompt(made(text))
    head, _, tail = shown_text(chat, encoded).partition(CUT_MARK)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert abs(len(chat.tokenizer.encode(head)) - len(chat.tokenizer.encode(tail))) <= 4
    assert encoded.removed == len(chat.tokenizer.encode(text[len(head) : len(text) - len(tail)]))


@settings(max_examples=60)
@given(text=long_texts, max_length=st.integers(8, 40))
def test_everything_else_stays_whole(chat, text, max_length):
    short, whole = (Encoder(TASK, chat, n, 100_000).training(made(text, LABELS[1])) for n in (max_length, 100_000))
    assert whole.removed == 0
    assert short.answer == whole.answer
    assert chat.tokenizer.decode(short.answer) == LABELS[1] + "<|im_end|>"
    before, after = "<|im_start|>user\n文本：", "<|im_end|>\n<|im_start|>assistant"
    parts = [
        re.split(f"{re.escape(before)}.*{re.escape(after)}", chat.tokenizer.decode(e.ids), flags=re.DOTALL)
        for e in (short, whole)
    ]
    assert parts[0] == parts[1]
    assert all(label in parts[0][0] for label in LABELS)


def test_training_is_the_prompt_and_the_answer(chat):
    encoder = Encoder(TASK, chat, 64, 100_000)
    row = made("很长的文本" * 100)
    training, prompt = encoder.training(row), encoder.prompt(row)
    assert training.prompt == prompt.ids == prompt.prompt
    assert prompt.answer == ()
    assert training.removed == prompt.removed > 0


def test_what_the_model_cannot_take_is_refused_with_its_place(chat):
    row = made("很好", LABELS[1])
    length = len(Encoder(TASK, chat, 64, 100_000).training(row).ids)
    assert len(Encoder(TASK, chat, 64, length).training(row).ids) == length
    with pytest.raises(
        RenderError, match=rf"^train\.jsonl:17: {length} tokens, but the model takes {length - 1}; lower"
    ):
        Encoder(TASK, chat, 64, length - 1).training(row)
    prompt = len(Encoder(TASK, chat, 64, 100_000).prompt(row).ids)
    with pytest.raises(RenderError, match=rf"^train\.jsonl:17: {prompt} tokens"):
        Encoder(TASK, chat, 64, prompt - 1).prompt(row)


def test_an_answer_without_tokens_is_refused(chat):
    class Mute(Classification):
        def target(self, answer):
            return ""

    with pytest.raises(RenderError, match=r"^train\.jsonl:17: the answer '' has no tokens"):
        Encoder(Mute(TASK.options), chat, 64, 1000).training(made("很好"))


def test_shortened_texts_are_told_by_class(chat):
    encoder = Encoder(TASK, chat, 16, 100_000)
    rows = [made("短"), made("很长" * 50), made("很长" * 60, LABELS[1]), made("很长" * 70)]
    encoded = [encoder.training(row) for row in rows]
    removed = sum(e.removed for e in encoded)
    note = shortening_note(rows, encoded, TASK, "train")
    assert note is not None
    assert note.startswith("3 of 4 train texts are longer than data.max_length and keep head and tail")
    assert f"({removed:,} tokens left out; by class: 体育 2, {LABELS[1]} 1)" in note
    assert shortening_note(rows[:1], encoded[:1], TASK, "train") is None
    ner = Ner(NerOptions(types=["地点"], language="zh"))
    bare = ner.example(Row({"text": "很长" * 50, "entities": []}, "f", 1))
    told = shortening_note([bare], [Encoder(ner, chat, 16, 100_000).training(bare)], ner, "test")
    assert told is not None
    assert "no entity 1" in told


def test_entities_of_what_was_left_out_are_not_trained_on(chat):
    text = "南京" + "很长" * 100 + "北京" + "很长" * 100 + "上海"
    places = [{"start": at, "end": at + 2, "type": "地点"} for at in (0, 202, len(text) - 2)]
    task = Ner(NerOptions(types=["地点"], language="zh"))
    row = task.example(Row({"text": text, "entities": places}, "f", 1))
    encoder = Encoder(task, chat, 32, 100_000)
    encoded = encoder.training(row)
    assert encoded.gap is not None
    assert shown_text(chat, encoded) == text[: encoded.gap[0]] + CUT_MARK + text[encoded.gap[1] :]
    assert chat.tokenizer.decode(encoded.answer) == "南京\t地点\n上海\t地点<|im_end|>"
    note = shortening_note([row], [encoded], task, "train")
    assert note is not None
    assert note.endswith("; 1 of their answers name something there")
    whole = Encoder(task, chat, 2000, 100_000).training(row)
    assert whole.gap is None
    assert "北京\t地点" in chat.tokenizer.decode(whole.answer)
