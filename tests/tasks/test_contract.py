"""What every task keeps, whichever it is. A new task adds its sample rows here."""

import json

import pytest
from hypothesis import given

from texts import texts
from weitiao.config import load_config
from weitiao.errors import ConfigError, DataError
from weitiao.tasks.base import Task, language_of, task_class, task_names, task_options
from weitiao.types import Choice, Constraint, FreeText, Grammar, Prediction, Row

CHINESE = "李华昨天在南京的比赛里赢了"
ENGLISH = "Li Hua won the match in Nanjing 昨天"
SAMPLES = {
    "classification": [
        ({}, {"label": "体育"}),
        ({"multi_label": True}, {"label": ["体育", "经济"]}),
        ({"options": "row"}, {"options": ["体育", "经济"], "label": "体育"}),
    ],
    "generation": [
        ({}, {"output": "李华在客场赢得了比赛，全队都很高兴"}),
        ({}, {"answer": "李华"}),
        ({}, {"answers": ["李华", "李华", "李华"]}),
        ({"metrics": ["anls", "exact_match"]}, {"answers": ["Li Hua", "李华", "李华"]}),
    ],
    "ner": [
        ({}, {"entities": [{"start": 0, "end": 2, "type": "人名"}]}),
        ({"output_format": "json"}, {"entities": [{"start": 0, "end": 2, "type": "人名"}]}),
    ],
}
"""Task → options, and the fields of a row beside its text."""

samples = pytest.mark.parametrize(
    ("name", "options", "fields"), [(name, *sample) for name in task_names() for sample in SAMPLES.get(name, [])]
)


def row(fields, text=CHINESE, line=17) -> Row:
    return Row({"text": text, **fields}, "train.jsonl", line)


def task_of(name, options, fields, **more) -> Task:
    kind = task_class(name)
    return kind(kind.resolve(task_options({"name": name, **options, **more}), [row(fields)]))


def test_every_task_has_samples():
    assert set(SAMPLES) == set(task_names())


@samples
def test_options_are_complete_and_read_back(name, options, fields):
    task = task_of(name, options, fields)
    assert task.name == name
    assert task.options.language == "zh"
    assert type(task).resolve(task.options, []) == task.options
    assert task_options(json.loads(task.options.model_dump_json())) == task.options


@samples
def test_an_answer_reads_back_and_measures_as_perfect(name, options, fields):
    task = task_of(name, options, fields)
    made = task.example(row(fields))
    assert made.answer
    assert made.text == CHINESE
    told = task.target(made.answer)
    assert task.parse(told, made) == made.answer
    assert task.parse("", made) is None
    assert not task.has_labels or task.parse(told + "☃", made) is None
    assert task.read_record(json.loads(json.dumps(task.record(made.answer), ensure_ascii=False))) == made.answer
    assert task.read_record(task.record(None)) is None
    assert bool(task.named(made.answer)) == task.has_labels
    assert task.right(made.answer, made)
    assert not task.right(None, made)
    assert isinstance(task.stratum(made), str)
    perfect = task.measure([Prediction(made.answer, told)], [made], bootstrap=100, seed=0)
    assert perfect[task.headline] == task.best_possible([made])[task.headline] == 1.0
    wrong = task.measure([Prediction(None)], [made], bootstrap=100, seed=0)
    assert wrong[task.headline] == 0.0
    assert wrong["invalid"] == 1.0


@samples
def test_the_counts_of_rows_sum_to_the_headline(name, options, fields):
    task = task_of(name, options, fields)
    made = task.example(row(fields))
    answers = [made.answer, None, made.answer]
    counts, statistic = task.counts(answers, [made] * 3)
    measured = task.measure([Prediction(answer) for answer in answers], [made] * 3, bootstrap=100, seed=0)
    assert float(statistic(counts.sum(axis=0))) == measured[task.headline] > 0


@samples
def test_the_headline_may_choose_the_best_adapter(name, options, fields):
    task = task_of(name, options, fields)
    made = task.example(row(fields))
    task.check_metric(task.headline, made)
    for metric in ("invalid", f"{task.headline}_low", "rows", "xyz"):
        with pytest.raises(ConfigError, match=f"`evaluation.metric` = '{metric}'"):
            task.check_metric(metric, made)


@samples
def test_the_constraint_is_one_that_prediction_knows(name, options, fields):
    task = task_of(name, options, fields)
    found: Constraint = task.constraint(task.example(row(fields)), str)
    assert isinstance(found, Choice | Grammar if task.has_labels else FreeText)


@samples
@given(text=texts())
def test_what_rows_share_comes_first_and_only_the_text_may_shrink(name, options, fields, text):
    task = task_of(name, options, fields)
    # Labelled entities lie within the text's first two characters.
    first, second = task.example(row(fields, text + CHINESE)), task.example(row(fields))
    ours, theirs = task.prompt(first), task.prompt(second)
    assert [message.role for message in ours] == ["system", "user"]
    assert ours[0] == theirs[0]
    parts = [part for message in ours for part in message.parts]
    assert [part.text for part in parts if part.shrinkable] == [first.text]
    assert parts[-1].shrinkable
    assert parts[:-1] == [part for message in theirs for part in message.parts][:-1]


@samples
def test_an_own_instruction_replaces_the_default(name, options, fields):
    default = task_of(name, options, fields)
    own = task_of(name, options, fields, instruction="照我说的做。")
    made = own.example(row(fields))
    assert own.prompt(made)[0].text.startswith("照我说的做。")
    rest = default.prompt(made)[0].text.partition("\n")[2]
    assert own.prompt(made)[0].text.partition("\n")[2] == rest
    assert own.prompt(made)[1] == default.prompt(made)[1]


@samples
def test_the_instructions_language_is_that_of_the_rows(name, options, fields):
    kind = task_class(name)
    asked = task_options({"name": name, **options})
    assert kind.resolve(asked, [row(fields, ENGLISH)]).language == "en"
    assert kind.resolve(asked, [row(fields, CHINESE)]).language == "zh"
    chosen = task_options({"name": name, **options, "language": "en"})
    assert kind.resolve(chosen, [row(fields, CHINESE)]).language == "en"
    if not kind.has_labels:
        return  # what is asked stands in the rows, and there is one system message
    english, chinese = kind(kind.resolve(chosen, [row(fields)])), kind(kind.resolve(asked, [row(fields)]))
    first_lines = [task.prompt(task.example(row(fields)))[0].text.split("\n")[0] for task in (english, chinese)]
    assert [language_of([line]) for line in first_lines] == ["en", "zh"]


@samples
def test_rows_without_an_answer_are_for_prediction_only(name, options, fields):
    task = task_of(name, options, fields)
    answer = {"label", "entities", "output", "answer", "answers"} & set(fields)
    bare = {key: value for key, value in fields.items() if key not in answer}
    with pytest.raises(DataError, match=r"^train\.jsonl:17: "):
        task.example(row(bare))
    assert task.example(row(bare), labelled=False).answer is None


@samples
@pytest.mark.parametrize("text", ["", " \n\t", None, 3, ["a"]])
def test_a_row_needs_a_text(name, options, fields, text):
    wanted = "(no|the) text" if task_class(name).has_labels else "(nothing is asked|the text)"
    with pytest.raises(DataError, match=rf"^train\.jsonl:17: {wanted}"):
        task_of(name, options, fields).example(row(fields, text))


@samples
def test_columns_may_have_other_names(name, options, fields):
    task = task_of(name, options, fields)
    renamed = Row({"内容": CHINESE, **fields}, "f.csv", 2, {"text": "内容"})
    assert task.example(renamed).text == CHINESE
    with pytest.raises(DataError, match=r"f\.csv:2: no column '正文' \(data\.columns\.text\); it has 内容"):
        task.example(Row(renamed.fields, "f.csv", 2, {"text": "正文"}))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("classificatoin", "did you mean 'classification'"),
        ("xyz", "choices: classification, generation, ner"),
        ("base", ""),
    ],
)
def test_an_unknown_task_is_refused(told, message):
    with pytest.raises(ConfigError, match=f"`task.name` = '{told}': no such task.*{message}"):
        task_options({"name": told})


def test_a_config_needs_a_task_name():
    with pytest.raises(ConfigError, match=r"`task`.*needs a `name`"):
        load_config({"task": {}, "model": {"name": "m"}, "data": {"train": "t"}})


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["南京"], "zh"),
        (["Nanjing"], "en"),
        (["南京 is a large city"], "en"),
        (["南京 city"], "zh"),
        (["㐀㐁"], "zh"),
        (["123 !?"], "en"),
        ([], "en"),
        (["こんにちは"], "en"),
    ],
)
def test_language_by_letters(texts, wanted):
    assert language_of(texts) == wanted
