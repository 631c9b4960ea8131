"""Classification: labels from a set or from the row, one or several."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weitiao.errors import ConfigError, DataError
from weitiao.tasks.base import task_options
from weitiao.tasks.classification import Classification, ClassificationOptions
from weitiao.types import Choice, Row

LABELS = ["体育", "经济", "体育新闻", "a\tb\\n", "<|im_end|>", "e\u0301"]
PLACE = r"train\.jsonl:17: "


def classification(**options) -> Classification:
    fixed = {} if options.get("options") == "row" else {"options": "fixed", "labels": LABELS}
    return Classification(ClassificationOptions(**({"language": "zh"} | fixed | options)))


def row(text="南京队赢了", columns=(), **fields) -> Row:
    return Row({"text": text, **fields}, "train.jsonl", 17, dict(columns))


FUDAN = row(category=["体育", "经济", "体育"], output="体育")


@given(st.sampled_from(LABELS), st.lists(st.sampled_from(LABELS), unique=True))
def test_an_answer_reads_back(one, several):
    single = classification()
    made = single.example(row(label=one))
    assert made.answer == one == single.parse(single.target(one), made)
    many = classification(multi_label=True)
    made = many.example(row(label=several))
    assert made.answer == tuple(label for label in LABELS if label in several)
    assert many.parse(many.target(made.answer), made) == made.answer
    assert many.record(made.answer) == list(made.answer)


def test_single_constraint_and_refused_answers():
    task = classification()
    made = task.example(row(label="体育"))
    assert task.constraint(made, str) == Choice(tuple(LABELS))
    for text in ("", "体", "体育\n", " 体育", "体育\n经济", "无"):
        assert task.parse(text, made) is None


def test_several_labels():
    task = classification(multi_label=True)
    made = task.example(row(label="经济; 体育"))
    assert task.target(made.answer) == "体育\n经济"
    assert task.constraint(made, str) == Choice(tuple(LABELS), many=True, nothing="无")
    assert task.example(row(label="")).answer == task.example(row(label=[])).answer == ()
    assert task.target(()) == "无"
    assert task.parse("无", made) == ()
    assert task.parse("经济\n体育", made) == ("体育", "经济")
    for text in ("", "体育\n", "体育\n无", "体育;经济", "城市"):
        assert task.parse(text, made) is None
    assert task.stratum(made) == "体育;经济"


def test_the_word_for_no_label_is_not_a_label():
    options = ClassificationOptions(multi_label=True, labels=["无", "有"], language="zh")
    with pytest.raises(ConfigError, match="label '无' is what an answer without any label says"):
        Classification.resolve(options, [row(label="有")])
    assert Classification.resolve(options.model_copy(update={"multi_label": False}), [row(label="有")]).labels
    task = classification(options="row", multi_label=True)
    with pytest.raises(DataError, match=PLACE + "option '无'"):
        task.example(row(options=["无", "有"], label="有"))


def test_options_of_the_row_as_in_fudan_news():
    options = Classification.resolve(ClassificationOptions(), [FUDAN])
    assert (options.options, options.labels, options.language) == ("row", None, "zh")
    task = Classification(options)
    made = task.example(FUDAN)
    assert made.answer == "体育"
    assert made.options == ("体育", "经济")
    assert task.constraint(made, str) == Choice(("体育", "经济"))
    system, user = task.prompt(made)
    assert system.text == "判断文本属于哪一个类别，只输出类别名称。"
    assert user.text == "候选类别：体育、经济\n文本：南京队赢了"
    assert task.parse("体育新闻", made) is None
    assert task.example(row(options="体育;经济; ", label=["体育"])).options == ("体育", "经济")


def test_labels_are_found_in_the_training_rows():
    options = Classification.resolve(ClassificationOptions(), [row(label="经济"), row(label="体育"), row(label=3)])
    assert (options.options, options.labels) == ("fixed", ["3", "体育", "经济"])
    assert Classification.resolve(options, []) == options
    many = Classification.resolve(ClassificationOptions(multi_label=True), [row(label="a;b"), row(label=["c"])])
    assert many.labels == ["a", "b", "c"]
    piped = ClassificationOptions(multi_label=True, label_separator="|")
    assert Classification.resolve(piped, [row(label="a;b| c")]).labels == ["a;b", "c"]
    listed = Classification.resolve(ClassificationOptions(labels=["b", "a"]), [FUDAN])
    assert (listed.options, listed.labels) == ("fixed", ["b", "a"])


def test_the_prompt_lists_the_labels_with_their_descriptions():
    task = classification(label_descriptions={"体育": "比赛和运动员"})
    system, user = task.prompt(task.example(row(label="体育")))
    assert system.text == "判断文本属于哪一个类别，只输出类别名称。\n类别：\n体育：比赛和运动员\n" + "\n".join(
        LABELS[1:]
    )
    assert user.text == "文本：南京队赢了"
    own = classification(instruction="Sort it.", language="en")
    assert own.prompt(own.example(row(label="体育")))[0].text.startswith("Sort it.\nCategories:\n体育\n")


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({}, {"label": "城市"}, r"label '城市' is outside the label set \(体育, 经济"),
        ({}, {"label": "体肓新闻"}, "did you mean '体育新闻'"),
        ({}, {"label": ["体育", "经济"]}, "2 labels; wanted one .*task.multi_label=true"),
        ({}, {"label": []}, "0 labels"),
        ({}, {}, "no label; wanted a field 'label'"),
        ({}, {"label": None}, "no label"),
        ({}, {"label": ""}, "label '' is empty"),
        ({}, {"label": "a\nb"}, "has a line break"),
        ({}, {"label": 1.5}, r"label 1\.5 is float; wanted a string"),
        ({}, {"label": True}, "label True is bool"),
        ({"multi_label": True}, {"label": "体育;城市"}, "label '城市' is outside"),
        ({"options": "row"}, {"options": ["体育"], "label": "经济"}, "outside the row's options"),
        ({"options": "row"}, {"label": "经济"}, "no options; wanted a list"),
        ({"options": "row"}, {"label": "经济", "options": []}, "no options"),
        ({"options": "row"}, {"label": "经济", "options": 3}, "no options"),
        ({"options": "row"}, {"label": "经济", "options": ["经济", {}]}, "is dict; wanted a string"),
        ({}, {"label": "体育", "text": "\t "}, "the text is empty"),
        ({}, {"label": "体育", "text": ["a"]}, r"must be a string, found list \['a'\]"),
        ({}, {"label": "体育", "text": None}, "no text; wanted a field 'text' or 'sentence' or 'content'"),
        ({}, {"columns": {"label": "类别"}}, r"no column '类别' \(data.columns.label\); it has text"),
    ],
)
def test_wrong_rows_are_refused_with_their_place(options, fields, message):
    with pytest.raises(DataError, match=f"^{PLACE}.*{message}"):
        classification(**options).example(row(**fields))


@pytest.mark.parametrize(
    ("options", "rows", "error", "message"),
    [
        ({"options": "row", "labels": ["a"]}, [FUDAN], ConfigError, "`task.labels` is set, but task.options=row"),
        (
            {"options": "row", "label_descriptions": {"体育": "x"}},
            [FUDAN],
            ConfigError,
            "`task.label_descriptions` is set",
        ),
        (
            {"label_descriptions": {"体肓新闻": "x"}, "labels": LABELS},
            [],
            ConfigError,
            "no label; did you mean '体育新闻'",
        ),
        (
            {"label_descriptions": {"z": "x"}, "labels": LABELS},
            [],
            ConfigError,
            "'z', which is no label; labels: 体育, 经济",
        ),
        ({"multi_label": True}, [row(label=[])], DataError, "no training row has a label"),
        ({}, [row()], DataError, PLACE + "no label"),
        ({}, [row(label=f"{i}") for i in range(2001)], DataError, PLACE + "more than 2000 different labels"),
    ],
)
def test_options_that_do_not_fit_the_rows(options, rows, error, message):
    with pytest.raises(error, match=message):
        Classification.resolve(ClassificationOptions(**options), rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "a"]}, "key `labels` = .*listed twice"),
        ({"labels": [" a"]}, "key `labels` = .*label ' a' is empty, or has a line break or spaces"),
        ({"labels": []}, "key `labels`"),
        ({"labels": [True]}, "key `labels.0` = true"),
        ({"options": "column"}, 'key `options` = "column"'),
        ({"multilabel": True}, r"unknown key `multilabel` \(value true\); did you mean `multi_label`"),
        ({"language": "fr"}, 'key `language` = "fr"'),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"^task: {message}"):
        task_options({"name": "classification", **options})


def test_a_row_to_predict_needs_no_label():
    task = classification()
    for told in (
        row(),
        row(label=None),
        row(label=""),
        row(columns={"label": "类别"}),
        row(columns={"label": "c"}, c=""),
    ):
        assert task.example(told, labelled=False).answer is None
    assert task.example(row(label="体育"), labelled=False).answer == "体育"
