"""Generation: every shape that a row may have, where its images stand, and what its answers are judged by."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from weitiao.config import DataSection
from weitiao.data.source import read_rows
from weitiao.errors import ConfigError, DataError
from weitiao.tasks.base import task_options
from weitiao.tasks.generation import Generation, GenerationExample, GenerationOptions
from weitiao.types import FreeText, ImagePart, Message, Prediction, Row, TextPart


def generation(**options: Any) -> Generation:
    return Generation(GenerationOptions(**{"language": "en", "metrics": ["rouge_l"], **options}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def row(folder: Path) -> Any:
    """row(**fields) is a row of a file beside the images a.png, b.png and c.png."""
    return lambda columns=(), **fields: Row(fields, "train.jsonl", 17, dict(columns), str(folder))


def shown(messages: Sequence[Message]) -> list[str]:
    """Each message as `role: …`, an image as [name], the text that may be shortened in {}."""
    return [f"{message.role}: {''.join(map(_shown, message.parts))}" for message in messages]


def _shown(part: TextPart | ImagePart) -> str:
    if isinstance(part, ImagePart):
        assert Path(part.path).is_absolute()
        return f"[{Path(part.path).stem}]"
    return f"{{{part.text}}}" if part.shrinkable else part.text


def inline(name: str) -> str:
    return f"<|vision_start|>{name}<|vision_end|>"


def shared(*turns: str, **more: Any) -> dict[str, Any]:
    """A conversation as ShareGPT has it, user and assistant in turn."""
    roles = ("user", "assistant")
    return {"conversations": [{"from": roles[at % 2], "value": turn} for at, turn in enumerate(turns)], **more}


def openai(*contents: Any, **more: Any) -> dict[str, Any]:
    """The same as OpenAI has it."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(contents)], **more}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


# -- shapes of rows: fields, the messages without the system's, the answer

SHAPES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "caption": ({"image_path": "a.png", "caption": "A dog."}, ["user: [a]"], "A dog."),
    "question": ({"image": "a.png", "question": "What?", "answer": "dog"}, ["user: [a]{What?}"], "dog"),
    "several images": (
        {"images": ["a.png", "b.png"], "question": "Same?", "answer": "no"},
        ["user: [a][b]{Same?}"],
        "no",
    ),
    "images in a cell": ({"image_paths": "b.png; a.png", "question": "?", "answer": "no"}, ["user: [b][a]{?}"], "no"),
    "image of `datasets`": (
        {"image": {"path": "a.png", "bytes": None}, "caption": "A dog."},
        ["user: [a]"],
        "A dog.",
    ),
    "Alpaca": (
        {"instruction": "Translate.", "input": "草地上的一条大狗在晒太阳，不想起来", "output": "A dog."},
        ["user: Translate.\n{草地上的一条大狗在晒太阳，不想起来}"],
        "A dog.",
    ),
    "Alpaca without input": ({"instruction": "Say hi.", "input": "", "output": "hi"}, ["user: {Say hi.}"], "hi"),
    "prompt and completion": ({"prompt": "1 + 1 =", "completion": 2}, ["user: {1 + 1 =}"], "2"),
    "text alone": ({"text": "狗", "response": "dog"}, ["user: {狗}"], "dog"),
    "several answers": ({"question": "What?", "answers": ["a dog", "dog", "dog"]}, ["user: {What?}"], "dog"),
    "several captions": ({"image": "a.png", "captions": ["A.", "B."]}, ["user: [a]"], "A."),
    "answers of VQA": (
        {"image": "a.png", "question": "?", "answers": [{"answer": "dog", "answer_confidence": "yes"}] * 3},
        ["user: [a]{?}"],
        "dog",
    ),
    "ShareGPT": (shared(f"COCO Yes: {inline('a.png')}", "A dog."), ["user: [a]{COCO Yes:}"], "A dog."),
    "ShareGPT, human and gpt": (
        {
            "conversations": [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": "There."}],
            "image": "a.png",
        },
        ["user: [a]{\nWhere?}"],
        "There.",
    ),
    "turns": (
        shared("<image>What?", "A dog.", "Which colour has it?", "Red.", image="a.png"),
        ["user: [a]What?", "assistant: A dog.", "user: {Which colour has it?}"],
        "Red.",
    ),
    "OpenAI": (openai("<image>Where?", "Here.", images=["a.png"]), ["user: [a]{Where?}"], "Here."),
    "OpenAI in parts": (
        openai(
            [{"type": "image"}, text("Where is it?"), {"type": "image", "image": "c.png"}, text("Or")],
            [text("He"), text("re.")],
            images=["a.png"],
        ),
        ["user: [a]{Where is it?}[c]Or"],
        "Here.",
    ),
    "a conversation and an answer beside it": (
        {"messages": [{"role": "user", "content": "Where?"}], "answer": "Here."},
        ["user: {Where?}"],
        "Here.",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_rows(shape: str, row: Any) -> None:
    fields, messages, answer = SHAPES[shape]
    example = generation().example(row(**fields))
    assert shown(example.messages) == messages
    assert example.answer == answer
    assert answer in example.references
    assert example.images == tuple(
        part.path for message in example.messages for part in message.parts if isinstance(part, ImagePart)
    )
    assert shown(generation().prompt(example)) == ["system: You are a helpful assistant.", *messages]
    assert generation().target(example.answer) == answer


def test_a_question_of_the_task_is_asked_about_rows_without_one(row: Any) -> None:
    task = generation(question="COCO Yes:")
    assert shown(task.example(row(image="a.png", caption="A dog.")).messages) == ["user: [a]{COCO Yes:}"]
    for fields in ({"question": "Where?"}, {"text": "Where?"}):
        assert shown(task.example(row(image="a.png", answer="x", **fields)).messages) == ["user: [a]{Where?}"]
    assert shown(task.example(row(caption="x")).messages) == ["user: {COCO Yes:}"]


def test_the_tutorials_two_files_are_the_same_rows(folder: Path) -> None:
    (folder / "a.csv").write_text('image_path,caption\na.png,"A dog, red."\nb.png,A cat.\n')
    pairs = [("a.png", "A dog, red."), ("b.png", "A cat.")]
    told = [{"id": "x", **shared(f"COCO Yes: {inline(name)}", caption)} for name, caption in pairs]
    (folder / "a.json").write_text(json.dumps(told))
    task = generation(question="COCO Yes:")
    table, conversations = (
        [task.example(row) for row in read_rows(folder / name, DataSection(train="unused"))]
        for name in ("a.csv", "a.json")
    )
    for one, other in zip(table, conversations, strict=True):
        assert (one.messages, one.references, one.images) == (other.messages, other.references, other.images)


def test_columns_of_other_names(row: Any) -> None:
    columns = {"image": "Bild", "question": "Frage", "answer": "Antwort"}
    example = generation().example(row(columns, Bild="a.png", Frage="Was?", Antwort="Hund", question="not this"))
    assert shown(example.messages) == ["user: [a]{Was?}"]
    assert example.answer == "Hund"
    with pytest.raises(DataError, match=r"^train\.jsonl:17: no column 'Bild' \(data\.columns\.image\); it has image"):
        generation().example(row({"image": "Bild"}, image="a.png", caption="x"))


def test_system_messages(row: Any) -> None:
    """The row's own, wherever it is; else the instruction; else what the chat templates say."""
    own = ["system: Be brief.", "user: {Where?}"]
    fields = shared("Where?", "Here.")
    first = {"from": "system", "value": "Be brief."}
    for given in (
        {**fields, "system": "Be brief."},
        {"conversations": [first, *fields["conversations"]]},
        {"question": "Where?", "system": "Be brief.", "answer": "Here."},
    ):
        for task in (generation(), generation(instruction="照我说的做。")):
            assert shown(task.prompt(task.example(row(**given)))) == own
    task = generation(instruction="照我说的做。")
    assert shown(task.prompt(task.example(row(**fields))))[0] == "system: 照我说的做。"


# -- where images stand


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (f"{inline('a.png')}What?", "[a]{What?}"),
        (f"Look: {inline('a.png')} What?", "Look: [a]{ What?}"),
        (f"What? {inline('a.png')}", "[a]{What?}"),
        (f"{inline('b.png')}{inline('a.png')}", "[b][a]"),
        (f"What?{inline('b.png')}{inline('a.png')}", "[b][a]{What?}"),
        (f"{inline('b.png')} or {inline('a.png')}", "[b]{ or }[a]"),
        (f"{inline(' a.png ')}x", "[a]{x}"),
    ],
)
def test_images_that_the_text_names(content: str, wanted: str, row: Any) -> None:
    example = generation().example(row(**shared(content, "x")))
    assert shown(example.messages) == [f"user: {wanted}"]


@pytest.mark.parametrize(
    ("content", "images", "wanted"),
    [
        ("What?", ["a.png", "b.png"], "[a][b]{What?}"),
        ("<image>What?<image>", ["a.png", "b.png"], "[a]{What?}[b]"),
        ("<image> or <image>?", ["b.png", "a.png"], "[b]{ or }[a]?"),
        ("What? <image>", ["a.png"], "[a]{What?}"),
        (f"{inline('<|image_pad|>')}What?", ["a.png"], "[a]{What?}"),
        (f"{inline('')}What?", ["a.png"], "[a]{What?}"),
        (f"{inline('c.png')} or <image>?", ["a.png"], "[c]{ or }[a]?"),
        (f"{inline('c.png')} or what?", ["a.png"], "[a][c]{ or what?}"),
        ("", ["a.png"], "[a]"),
    ],
)
def test_images_of_the_row(content: str, images: list[str], wanted: str, row: Any) -> None:
    for fields in (shared(content, "x", images=images), openai([text(content)], "x", images=images)):
        assert shown(generation().example(row(**fields)).messages) == [f"user: {wanted}"]
    if content:
        example = generation().example(row(question=content, answer="x", images=images))
        assert shown(example.messages) == [f"user: {wanted}"]


def test_images_stand_in_the_turn_that_names_them(row: Any) -> None:
    fields = shared(
        "Hello", "Hi. <image>", "<image>What?", "A dog.", "And <image>?", "A cat.", images=["a.png", "b.png"]
    )
    example = generation().example(row(**fields))
    assert shown(example.messages) == [
        "user: Hello",
        "assistant: Hi. <image>",
        "user: [a]{What?}",
        "assistant: A dog.",
        "user: And [b]?",
    ]
    unnamed = generation().example(row(**shared("Hello", "Hi.", "What is it?", "A dog.", image="a.png")))
    assert shown(unnamed.messages)[0] == "user: [a]Hello"


def test_a_text_about_markup_has_no_images(row: Any) -> None:
    content = f"What does <image> mean in HTML, and {inline('')}?"
    assert shown(generation().example(row(**shared(content, "x"))).messages) == [f"user: {{{content}}}"]


def test_images_are_only_spoken_of_without_a_root() -> None:
    example = generation().example(Row({"image": "no/a.png", "caption": "x"}, "f", 1, image_root=None))
    assert example.images == ("no/a.png",)


# -- references and answers


def test_every_answer_is_a_reference_and_the_commonest_is_trained(row: Any) -> None:
    example = generation().example(row(question="?", answers=["b", "a ", "c", " a", "b"]))
    assert example.references == ("b", "a", "c", "a", "b")
    assert example.answer == "b"
    turns = generation().example(row(**shared("?", "one", "And?", " two ")))
    assert turns.references == ("two",)


@pytest.mark.parametrize(
    "fields",
    [
        {"image": "a.png"},
        {"question": "What?"},
        {"question": "What?", "answer": ""},
        {"question": "What?", "answer": None},
        {"messages": [{"role": "user", "content": "Where?"}]},
    ],
)
def test_rows_without_an_answer_are_for_prediction(fields: dict[str, Any], row: Any) -> None:
    example = generation().example(row(**fields), labelled=False)
    assert (example.answer, example.references) == (None, ())
    with pytest.raises(DataError, match=r"^train\.jsonl:17: (no answer; wanted a field 'output'|the answer is)"):
        generation().example(row(**fields))


def test_a_reference_that_is_there_is_kept_for_prediction(row: Any) -> None:
    for fields in ({"question": "What?", "answer": "dog"}, shared("What?", "dog")):
        example = generation().example(row(**fields), labelled=False)
        assert (example.answer, shown(example.messages)) == ("dog", ["user: {What?}"])


# -- what is wrong with a row

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (
        {"answer": "x"},
        r"nothing is asked; wanted an image, a conversation, or a field 'question' or .*answer$",
    ),
    "blank question": ({"question": " \n", "answer": "x"}, r"nothing is asked"),
    "no images and no question": ({"images": [], "answer": "x"}, r"a message of the user is empty; fill it in"),
    "question of a number": ({"question": 7, "answer": "x"}, r"the question is int 7; wanted a string"),
    "text of a list": ({"text": ["a"], "answer": "x"}, r"the text is list \['a'\]; wanted a string"),
    "no answer": ({"question": "?", "label_": "x"}, r"no answer; wanted a field 'output' or .*found question, label_$"),
    "empty answer": ({"question": "?", "answer": " "}, r"the answer is empty; fill it in or remove the row"),
    "no answers": ({"question": "?", "answers": []}, r"the list of answers is empty; wanted one or more"),
    "an answer of true": ({"question": "?", "answer": True}, r"the answer is bool True; wanted a string"),
    "an answer of a mapping": ({"question": "?", "answers": [{"text": "x"}]}, r"the answer is NoneType None"),
    "conversation of a string": ({"messages": "Hi"}, r"the conversation is 'Hi'; wanted a list of messages"),
    "empty conversation": ({"messages": []}, r"the conversation is \[\]; wanted a list of messages"),
    "message of a string": ({"messages": ["Hi"]}, r"a message is 'Hi'; wanted \{'role': …, 'content': …\} or"),
    "unknown role": (
        {"messages": [{"role": "robot", "content": "x"}]},
        r"a message is .*robot.* by system, user, human",
    ),
    "no content": (
        {"messages": [{"role": "user"}, {"role": "assistant", "content": "x"}]},
        r"a message says None; wanted",
    ),
    "content of another type": (
        openai([{"type": "audio"}], "x"),
        r"a message says \{'type': 'audio'\}; wanted text, or",
    ),
    "empty message": (openai("", "x"), r"a message of the user is empty; fill it in or remove the row"),
    "empty answer of a conversation": (openai("Hi", " "), r"the answer is empty"),
    "image as an answer": (
        openai("Draw.", [{"type": "image"}], image="a.png"),
        r"the answer is list .*; wanted a string",
    ),
    "two users": (
        {"messages": [{"role": "user", "content": "x"}] * 2 + [{"role": "assistant", "content": "x"}]},
        r"the conversation goes user, user; wanted user and assistant in turn",
    ),
    "assistant first": (
        {"messages": [{"role": "assistant", "content": "x"}] * 3},
        r"the conversation goes assistant, assistant; wanted",
    ),
    "only an answer": ({"messages": [{"role": "assistant", "content": "x"}]}, r"the conversation goes nowhere"),
    "fewer places than images": (
        openai("<image>?", "x", images=["a.png", "b.png"]),
        r"2 images, but 1 places for them in the text",
    ),
    "more places than images": (
        openai("<image> <image>?", "x", images=["a.png"]),
        r"the text has more places for images than the row has images",
    ),
    "missing image": ({"image": "d.png", "caption": "x"}, r"image 'd\.png': no such file in .*; correct the path"),
    "missing image in a text": (shared(inline("d.png"), "x"), r"image 'd\.png': no such file"),
    "image outside": (shared(f"{inline('../d.png')}?", "x"), r"image '\.\./d\.png': is not in .*; move it there"),
    "image of an address": (
        openai([{"type": "image", "image": "https://x.org/a.png"}], "x"),
        r"image .*: is an address",
    ),
    "image of a number": ({"image": 7, "caption": "x"}, r"an image is int 7; wanted the path of a file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_row_is_one_line(case: str, row: Any) -> None:
    fields, wanted = WRONG[case]
    with pytest.raises(DataError) as caught:
        generation().example(row(**fields))
    message = str(caught.value)
    assert re.match(rf"train\.jsonl:17: {wanted}", message), message
    assert "\n" not in message


# -- metrics

CAPTIONS = ["cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"]
LONG = "A large dog lies in the green grass."


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ([{"image": "a.png", "caption": LONG}], CAPTIONS),
        ([{"question": "?", "answer": LONG}], ["rouge_l", "bleu_4", "exact_match"]),
        ([{"question": "?", "answer": "dog"}], ["exact_match", "anls"]),
        ([{"image": "a.png", "question": "?", "answer": "a red dog"}], ["exact_match", "anls"]),
        ([{"image": "a.png", "answers": ["dog"] * 3}], ["vqa_accuracy", "exact_match", "anls"]),
        ([{"image": "a.png", "answers": ["dog"] * 2}], ["exact_match", "anls"]),
        ([{"question": "?", "answer": "dog"}] * 9 + [{"question": "?", "answer": LONG}], ["exact_match", "anls"]),
        (
            [{"question": "?", "answer": "dog"}] * 8 + [{"question": "?", "answer": LONG}],
            ["rouge_l", "bleu_4", "exact_match"],
        ),
        ([{"question": "?", "answer": "草地上的一条狗"}], ["rouge_l", "bleu_4", "exact_match"]),
    ],
)
def test_metrics_are_chosen_by_what_the_answers_look_like(fields: Any, wanted: list[str], row: Any) -> None:
    resolved = Generation.resolve(GenerationOptions(language="en"), [row(**each) for each in fields])
    assert resolved.metrics == wanted
    assert Generation(resolved).headline == wanted[0]
    assert Generation.resolve(resolved, []) == resolved
    own = GenerationOptions(language="en", metrics=["anls"])
    assert Generation.resolve(own, [row(**each) for each in fields]).metrics == ["anls"]


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'cidre'; did you mean 'cider'\?"):
        task_options({"name": "generation", "metrics": ["cidre"]})
    with pytest.raises(ConfigError, match="metrics"):
        task_options({"name": "generation", "metrics": []})


def test_any_reference_is_right_and_no_answer_is_wrong(row: Any) -> None:
    task = generation(metrics=["exact_match"])
    example = task.example(row(question="?", answers=["dog", "a dog"]))
    assert task.constraint(example, str) == FreeText()
    assert task.parse(" a dog\n", example) == "a dog"
    assert task.parse(" \n", example) is None
    assert task.right("a dog", example)
    assert not task.right("cat", example)
    told = [Prediction("a dog"), Prediction("cat"), Prediction(None)]
    measured = task.measure(told, [example] * 3, bootstrap=100, seed=0)
    assert measured["exact_match"] == measured["invalid"] == pytest.approx(1 / 3)
    counts, statistic = task.counts([prediction.answer for prediction in told], [example] * 3)
    assert float(statistic(counts.sum(axis=0))) == measured["exact_match"]


def test_examples_are_typed(row: Any) -> None:
    assert isinstance(generation().example(row(question="?", answer="x")), GenerationExample)
