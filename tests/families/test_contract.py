"""What every family keeps, whichever it is. A new family needs a tiny model in tiny.py and a fixture of its name."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import models

from texts import CONTROLS, texts
from tiny import tiny_tokenizer
from weitiao.config import ModelSection
from weitiao.data.encode import Encoder
from weitiao.errors import ConfigError, ModelError, RenderError
from weitiao.families.base import families, family_of
from weitiao.families.chat_format import ChatFormat, ChatML
from weitiao.families.tokenizer import TextTokenizer
from weitiao.tasks.classification import Classification, ClassificationOptions
from weitiao.types import Message, Row

LISTED = sorted(families())
SYSTEM = "判断文本属于哪一个类别，只输出类别名称。"
MIXED = st.lists(st.sampled_from([*CONTROLS, "\n", " ", "<|im_", "end|>", "南京", "a"]), min_size=1).map("".join)


@pytest.fixture(scope="module", params=[*LISTED, "glm4_0414", "qwen2_5_vl"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_folder")


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatFormat:
    return chat_of(folder)


@pytest.fixture(scope="module")
def reference(folder: Path):
    return reference_of(folder)


def chat_of(folder: Path) -> ChatFormat:
    _, family = family_of(folder)
    return family.chat_format(TextTokenizer(folder))


def reference_of(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def conversation(*texts: str) -> list[Message]:
    """A system message, then user and assistant in turn."""
    roles = ["system", *["user", "assistant"] * len(texts)]
    return [Message.of(role, text) for role, text in zip(roles, texts, strict=False)]  # type: ignore[arg-type]


def assert_same(chat: ChatFormat, reference, messages: list[Message]) -> None:
    """Our prompt ids are those of the model's own template."""
    turns = [{"role": message.role, "content": message.text} for message in messages]
    wanted = reference.apply_chat_template(
        turns, tokenize=True, add_generation_prompt=True, enable_thinking=False, return_dict=True
    )["input_ids"]
    found = chat.prompt_ids(messages)
    assert found == wanted, (
        f"{[m.text for m in messages]!r}\nours   {[chat.tokenizer.decode([i]) for i in found]}"
        f"\ntheirs {[chat.tokenizer.decode([i]) for i in wanted]}"
    )


@given(user=texts(), system=texts(6))
@example(user="  两头有空格 \n", system="\n\n")
@example(user="e\u0301\u0323 x\u1112\u1161\u11ab 1234567\t\n\n  I'm 👩\u200d👧", system=SYSTEM)
def test_prompt_ids_are_those_of_the_models_own_template(chat, reference, user, system):
    assert_same(chat, reference, conversation(system, user))


@given(turns=st.lists(texts(4), min_size=4, max_size=4))
def test_a_longer_conversation_is_rendered_as_the_template_does(chat, reference, turns):
    assert_same(chat, reference, conversation(*turns))


@given(user=MIXED, answer=MIXED)
def test_text_never_becomes_a_control_id(chat, user, answer):
    controls = set(chat.tokenizer.controls.values())
    plain = [i for i in chat.prompt_ids(conversation("x", "y")) if i in controls]
    assert [i for i in chat.prompt_ids(conversation(user, user)) if i in controls] == plain
    ids = chat.answer_ids(answer)
    assert not controls.intersection(ids), [chat.tokenizer.decode([i]) for i in ids]
    assert chat.tokenizer.decode(ids) == chat.tokenizer.normalize(answer)


@given(text=texts(), at=st.integers(0, 1))
def test_training_ids_are_prompt_answer_stop(chat, text, at):
    labels = ["<|im_end|>", " 体 育\u0301"]
    task = Classification(ClassificationOptions.model_construct(language="zh", options="fixed", labels=labels))
    encoder = Encoder(task, chat, max_length=512, limit=4096)
    row = task.example(Row({"text": text, "label": labels[0]}, "train.jsonl", 1))
    encoded = encoder.training(row)
    assert encoded.prompt == encoder.prompt(row).ids
    assert encoded.answer[-1] == chat.stop
    assert encoded.answer[: len(chat.lead)] == chat.lead
    assert chat.tokenizer.decode(encoded.answer[len(chat.lead) : -1]) == labels[0]
    whole = chat.tokenizer.decode(encoded.ids)
    stop = chat.tokenizer.decode([chat.stop])
    assert chat.tokenizer.normalize(f"文本：{text}") in whole
    assert whole.endswith(f"{chat.tokenizer.decode(chat.lead)}{labels[0]}{stop}")


def test_the_stop_ends_a_turn(chat, folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert chat.tokenizer.decode([chat.stop]) == settings["eos_token"]
    assert chat.stops[0] == chat.stop == chat.tokenizer.control(settings["eos_token"])
    assert len(set(chat.stops)) == len(chat.stops)


def test_roles_out_of_turn_are_refused(chat):
    one = {message.role: message for message in conversation("s", "u", "a")}
    for roles in (
        (),
        ("system",),
        ("user",),
        ("user", "user"),
        ("system", "user", "user"),
        ("system", "user", "assistant"),
    ):
        with pytest.raises(RenderError, match="in turn"):
            chat.prompt_ids([one[role] for role in roles])


def test_the_hash_names_the_format(chat):
    class Spaced(type(chat)):
        def pieces(self, messages):
            return [f"{piece} " if isinstance(piece, str) else piece for piece in super().pieces(messages)]

    class OtherStop(type(chat)):
        @property
        def stop(self):
            return self.tokenizer.control("<|endoftext|>")

    same = type(chat)(chat.tokenizer)
    assert same.hash == chat.hash
    assert len({chat.hash, Spaced(chat.tokenizer).hash, OtherStop(chat.tokenizer).hash}) == 3


def test_the_empty_think_block_changes_the_hash(qwen3_folder):
    assert chat_of(qwen3_folder).hash != ChatML(TextTokenizer(qwen3_folder)).hash


def test_a_tokenizer_without_the_formats_tokens_is_refused(folder, tmp_path):
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    spec["added_tokens"] = spec["added_tokens"][:1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    _, family = family_of(folder)
    with pytest.raises(ModelError, match="no control token"):
        family.chat_format(TextTokenizer(tmp_path)).prompt_ids(conversation("s", "u"))


def test_lora_targets_are_linear_layers_of_the_model(folder):
    import torch

    from weitiao.model.adapter import check_targets
    from weitiao.model.load import load_model

    model = load_model(folder, torch.device("cpu"), torch.float32)
    _, family = family_of(folder)
    check_targets(model, family.lora_targets)
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "visual" not in name
    }
    assert set(family.lora_targets) == linear - {"lm_head"}, "by default every linear layer gets an adapter"
    with pytest.raises(ConfigError, match=r"'q_porj' matches no layer .*did you mean 'q_proj'"):
        check_targets(model, ["v_proj", "q_porj"])
    with pytest.raises(ConfigError, match="'mlp' is no linear layer"):
        check_targets(model, ["mlp"])


def test_a_model_belongs_to_one_family(folder):
    kind = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
    assert [name for name, family in families().items() if kind in family.model_types] == [family_of(folder)[0]]


def test_a_wanted_family_overrules_the_config(qwen2_folder):
    assert family_of(qwen2_folder, "llama")[0] == "llama"


def test_unknown_families_and_models_are_refused(qwen2_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"`model.family` = 'qwen': no such family; did you mean 'qwen[23]'"):
        family_of(qwen2_folder, "qwen")
    with pytest.raises(ConfigError, match=f"choices: {', '.join(LISTED)}"):
        family_of(qwen2_folder, "xyz")
    with pytest.raises(ModelError, match=r"no config\.json"):
        family_of(tmp_path)
    config = tmp_path / "config.json"
    for content, message in (
        ('{"model_type": "mamba"}', "'mamba'.*qwen2"),
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
    ):
        config.write_text(content)
        with pytest.raises(ModelError, match=message):
            family_of(tmp_path)


@pytest.mark.parametrize(("content", "message"), [(None, r"no tokenizer\.json"), ("{", "unreadable tokenizer")])
def test_an_unusable_tokenizer_is_refused(tmp_path, content, message):
    if content:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        TextTokenizer(tmp_path)


DASHSCOPE = (
    "dashscope",
    "dashscope-2.0.2-py3-none-any.whl",
    "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258",
)
"""A wheel of the package index that carries Qwen's vocabulary."""


@pytest.mark.slow
def test_prompts_on_the_real_qwen_vocabulary(tmp_path_factory):
    from weitiao.hub.cache import cache_root
    from weitiao.hub.package_index import fetch, open_member

    wheel = fetch(*DASHSCOPE, cache_root(None) / "downloads")
    with open_member(wheel, "dashscope/resources/qwen.tiktoken") as file:
        lines = file.read().split(b"\n")
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    folder = tmp_path_factory.mktemp("real-qwen")
    tiny_tokenizer(folder, "qwen2", byte_level(ranks))
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    chat, theirs = chat_of(folder), reference_of(folder)
    assert chat.stop == 151645

    @settings(max_examples=1000)
    @given(texts(30), texts(6))
    def same(user, system):
        assert_same(chat, theirs, conversation(system, user))

    same()


def byte_level(ranks: dict[bytes, int]) -> models.BPE:
    """A tiktoken vocabulary as BPE: each token merges any two that it can be cut into, by rank."""
    letters = bytes_to_letters()
    shown = {token: "".join(letters[b] for b in token) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += [(shown[a], shown[b]) for a, b in sorted(cuts, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))]
    return models.BPE({shown[token]: rank for token, rank in ranks.items()}, merges)


def bytes_to_letters() -> dict[int, str]:
    """GPT-2's map: printable bytes are themselves, the others are moved behind Latin-1."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in kept]
    return {b: chr(b) for b in kept} | {b: chr(256 + at) for at, b in enumerate(moved)}


@pytest.mark.slow
def test_prompts_of_a_real_model():
    from weitiao.model.files import model_folder

    folder = model_folder(ModelSection(name="pypi:smollm2-135m-instruct"))
    chat, theirs = chat_of(folder), reference_of(folder)

    @settings(max_examples=1000)
    @given(texts(30), texts(6))
    def same(user, system):
        assert_same(chat, theirs, conversation(system, user))

    same()
