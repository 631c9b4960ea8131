"""A config is read whole or refused with the key, the value and what was likely meant."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from weitiao.config import SHIPPED, RunConfig, dump_yaml, load_config, nearest, nearest_label, resolve_config
from weitiao.errors import ConfigError

SMALL = {"task": {"name": "ner"}, "model": {"name": "Qwen/Qwen2-1.5B-Instruct"}, "data": {"train": "train.jsonl"}}


def with_keys(*overrides: str) -> RunConfig:
    return load_config(SMALL, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rat=3",
            r"unknown key `training\.learning_rat` \(value 3\); did you mean `learning_rate`\?",
        ),
        ("trainning.learning_rate=3", r"unknown key `trainning` \(value .*\); did you mean `training`\?"),
        ("lora.rank=8", r"unknown key `lora\.rank` \(value 8\); .*"),
        ("lora.zzzz=[1, 2]", r"unknown key `lora\.zzzz` \(value \[1, 2\]\); valid keys: .*lora_alpha.*"),
        ("run.folder=南京", r"unknown key `run\.folder` \(value \"南京\"\).*"),
    ],
)
def test_an_unknown_key_names_itself_its_value_and_the_nearest(override, message):
    with pytest.raises(ConfigError, match=f"^config: {message}$"):
        with_keys(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.r=eight", 'key `lora.r` = "eight"'),
        ("lora.r=1.5", r"key `lora.r` = 1\.5"),
        ("lora.r=0", "key `lora.r` = 0: .*greater than or equal to 1"),
        ("lora.lora_dropout=1", "key `lora.lora_dropout` = 1: .*less than 1"),
        ("lora.target_modules=q_proj", 'key `lora.target_modules` = "q_proj"'),
        ("lora.target_modules=[q_proj, 1]", r"key `lora.target_modules.1` = 1"),
        ("training.learning_rate=fast", 'key `training.learning_rate` = "fast"'),
        ("training.learning_rate=-1e-4", "key `training.learning_rate` = -0.0001: .*greater than 0"),
        ("training.learning_rate=.nan", "key `training.learning_rate` = NaN"),
        ("training.lr_scheduler_type=step", "key `training.lr_scheduler_type` = .*'linear', 'cosine'"),
        ("training.samples_per_step=null", "key `training.samples_per_step` = null"),
        ("engine.packing=maybe", 'key `engine.packing` = "maybe"'),
        ("data.train=3", "key `data.train` = 3"),
        ("data.train=null", "key `data.train` = null"),
        ("data.validation=1.5", r"key `data.validation` = 1\.5: a share must lie between 0 and 1"),
        ("data.test=0", "key `data.test` = 0: a share must lie"),
        ("data.max_length=4", "key `data.max_length` = 4"),
        ("data.columns={text: 3}", "key `data.columns.text` = 3"),
        ("schema_version=2", "key `schema_version` = 2"),
        ("training=fast", 'key `training` = "fast"'),
        ("training=null", "key `training` = null"),
        ("task.name=null", "key `task` = .*needs a `name`"),
        ("task=ner", 'key `task` = "ner"'),
    ],
)
def test_a_wrong_value_names_its_key(override, message):
    with pytest.raises(ConfigError, match=f"^config: {message}"):
        with_keys(override)


@pytest.mark.parametrize("section", ["task", "model", "data"])
def test_a_missing_section_is_named(section):
    with pytest.raises(ConfigError, match=f"^config: key `{section}` is missing$"):
        load_config({key: value for key, value in SMALL.items() if key != section})
    with pytest.raises(ConfigError, match=r"^config: key `data\.train` is missing$"):
        load_config({**SMALL, "data": {}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_steps", "wanted key=value"),
        ("=3", "wanted key=value"),
        ("model.name.x=3", "`name` is not a section"),
        ("lora.target_modules=[a", "not valid YAML; quote it"),
    ],
)
def test_a_malformed_override_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        with_keys(override)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.5e-5", 2.5e-5), ("1.e-3", 1e-3), ("0.001", 0.001), ("1e+0", 1.0), ("1", 1.0)],
)
def test_a_learning_rate_may_be_written_as_users_do(text, value, tmp_path):
    assert with_keys(f"training.learning_rate={text}").training.learning_rate == value
    file = tmp_path / "config.yaml"
    file.write_text(f"{yaml.safe_dump(SMALL)}training:\n  learning_rate: {text}\n", "utf-8")
    assert load_config(file).training.learning_rate == value


def test_overrides():
    config = with_keys(
        *("training.max_steps=7", "data.validation=null", "data.test=test.jsonl", "engine.packing=false"),
        *("lora.target_modules=[q_proj, v_proj]", "data.columns.text=内容", "task.labels=[a, b]", "run.name=a=b"),
        *("data.columns={label: 类别}", "training.max_steps=8", "data.encoding=gb18030"),
    )
    assert config.training.max_steps == 8
    assert config.data.validation is None
    assert config.data.test == "test.jsonl"
    assert config.engine.packing is False
    assert config.lora.target_modules == ["q_proj", "v_proj"]
    assert config.task == {"name": "ner", "labels": ["a", "b"]}
    assert config.run.name == config.run_name == "a=b"
    assert config.data.columns == {"label": "类别"}
    assert SMALL["task"] == {"name": "ner"}, "the caller's mapping is left alone"
    assert with_keys().data.validation == 0.1


@pytest.mark.parametrize(
    ("model", "wanted"),
    [("Qwen/Qwen2-1.5B-Instruct", "Qwen2-1.5B-Instruct-ner"), ("models/a.gguf", "a-ner"), ("./local/", "local-ner")],
)
def test_a_run_is_named_after_model_and_task(model, wanted):
    config = with_keys(f"model.name={model}")
    assert config.run_name == wanted
    assert config.folder == Path("output") / wanted


def test_sections_are_frozen():
    config = with_keys()
    for section, key, value in ((config, "run", None), (config.training, "learning_rate", 1.0), (config.lora, "r", 3)):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task: [\n", r":2: is not valid YAML"),
        (b"- a\n", "wanted sections such as `task:`.*found list"),
        (b"", "found NoneType"),
        ("任务: ner".encode("gb18030"), "is not UTF-8 text"),
        (b"task: {name: ner}\nmodel: {name: m}\ndata: {train: t}\nlora: {r: x}\n", 'key `lora.r` = "x"'),
    ],
)
def test_a_file_that_is_no_config(tmp_path, content, message):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{file}.*{message}"):
        load_config(file)


def test_an_unknown_config_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("weitiao.config.load.SHIPPED", tmp_path)
    (tmp_path / "qwen2-ner.yaml").write_text(yaml.safe_dump(SMALL), "utf-8")
    assert resolve_config("qwen2-ner") == tmp_path / "qwen2-ner.yaml"
    assert load_config("qwen2-ner", ["lora.r=4"]).lora.r == 4
    with pytest.raises(ConfigError, match=r"no config 'qwen2-nre'.*did you mean 'qwen2-ner'"):
        load_config("qwen2-nre")
    with pytest.raises(ConfigError, match=r"no config 'zzz'.*\(qwen2-ner\)"):
        load_config("zzz")


@pytest.mark.parametrize(
    "name", [path.stem for path in sorted(SHIPPED.glob("*.yaml"))] or [pytest.param("", marks=pytest.mark.skip("none"))]
)
def test_shipped_configs_are_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_config(name) == SHIPPED / f"{name}.yaml"
    assert load_config(name) == load_config(SHIPPED / f"{name}.yaml")


MISREAD = ["007", "1_000", "0x10", "1.5", "null", "yes", "~", "", " a ", "2024-01-01", "12:30", "内容: #", "a\n\tb"]
words = st.sampled_from(MISREAD) | st.text(max_size=12)


@pytest.mark.parametrize("word", ["1e-4", "2E5", "-1e+3", "a\x85b", "on", "No", "true"])
def test_text_that_looks_like_something_else_stays_text(tmp_path, word):
    config = load_config({**SMALL, "run": {"name": word}})
    (tmp_path / "config.yaml").write_text(dump_yaml(config), "utf-8", newline="")
    assert load_config(tmp_path / "config.yaml") == config


@settings(max_examples=50)
@given(
    words,
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    st.lists(words, max_size=3),
    st.none() | words | st.floats(0.001, 0.999),
    st.dictionaries(words, words, max_size=3),
)
def test_what_is_dumped_loads_as_the_same(tmp_path_factory, word, rate, labels, share, columns):
    config = load_config(
        {
            **SMALL,
            "task": {"name": "classification", "labels": labels, "instruction": word},
            "run": {"name": word},
            "data": {"train": word, "validation": share, "columns": columns},
            "training": {"learning_rate": rate},
        }
    )
    file = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    file.write_text(dump_yaml(config), "utf-8", newline="")
    assert load_config(file) == config


def test_nearest():
    assert nearest("leraning_rate", ["learning_rate", "max_steps"]) == "learning_rate"
    assert nearest("zzz", ["learning_rate"]) is None
    assert nearest("a", []) is None


@pytest.mark.parametrize(
    ("label", "labels", "meant"),
    [
        ("中评", ["好评", "差评"], None),
        ("地名", ["人名", "地点"], None),
        ("a", ["b"], None),
        ("a", [], None),
        ("negative", ["positive"], None),
        ("neutral", ["positive", "negative", "neural"], "neural"),
        ("体肓新闻", ["体育", "体育新闻"], "体育新闻"),
        ("地点名", ["人名", "地点"], "地点"),
        ("ＬＯＣ", ["PER", "LOC"], "LOC"),
        ("loc", ["PER", "LOC"], "LOC"),
        ("差 评", ["好评", "差评"], "差评"),
    ],
)
def test_a_label_is_suggested_where_little_differs(label, labels, meant):
    assert nearest_label(label, labels) == meant
