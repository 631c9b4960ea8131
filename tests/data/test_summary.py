"""Numbers of a split."""

import json

import pytest

from weitiao.data.summary import BINS, MOST_NAMES, summary
from weitiao.tasks.classification import Classification, ClassificationOptions
from weitiao.tasks.ner import Ner, NerOptions
from weitiao.types import Encoded, Row


def encoded(length: int, removed: int = 0) -> Encoded:
    return Encoded(tuple(range(length)), length - 1, removed)


def test_labels_and_lengths():
    task = Classification(ClassificationOptions(options="fixed", labels=["a", "b"], multi_label=True, language="en"))
    rows = [task.example(Row({"text": "x", "label": label}, "f", 1)) for label in (["a", "b"], ["b"], [], ["b"])]
    found = summary(task, rows, [encoded(n, removed) for n, removed in ((10, 0), (12, 3), (40, 0), (11, 0))])
    assert found == json.loads(json.dumps(found))
    assert {key: found[key] for key in ("rows", "names", "other_names", "unnamed", "shortened")} == {
        "rows": 4,
        "names": {"b": 3, "a": 1},
        "other_names": 0,
        "unnamed": 1,
        "shortened": 1,
    }
    assert list(found["names"]) == ["b", "a"]
    assert (found["tokens"]["median"], found["tokens"]["p95"], found["tokens"]["max"]) == (12, 40, 40)


def test_entities_are_counted_by_type():
    task = Ner(NerOptions(types=["人名", "地点"], language="zh"))
    entities = [{"text": "李华", "type": "人名"}, {"text": "南京", "type": "地点"}, {"text": "北京", "type": "地点"}]
    rows = [
        task.example(Row({"text": "李华从南京去北京", "entities": entities}, "f", 1)),
        task.example(Row({"text": "下雨了", "entities": []}, "f", 2)),
    ]
    found = summary(task, rows, [encoded(9), encoded(9)])
    assert found["names"] == {"地点": 2, "人名": 1}
    assert found["unnamed"] == 1


@pytest.mark.parametrize("lengths", [[7], [7, 7, 7], [1, 2], list(range(1, 25)), list(range(1, 26)), [3, 5000, 17]])
def test_every_length_is_in_a_bin(lengths):
    task = Classification(ClassificationOptions(options="fixed", labels=["a"], language="en"))
    rows = [task.example(Row({"text": "x", "label": "a"}, "f", 1))] * len(lengths)
    histogram = summary(task, rows, [encoded(n) for n in lengths])["tokens"]["histogram"]
    edges, counts = histogram["edges"], histogram["counts"]
    assert 1 <= len(counts) == len(edges) - 1 <= BINS
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        assert count == sum(low <= n < high for n in lengths)
    assert sum(counts) == len(lengths)


def test_many_labels_are_counted_together():
    labels = [str(n) for n in range(MOST_NAMES + 5)]
    task = Classification(ClassificationOptions(options="fixed", labels=labels, language="en"))
    rows = [task.example(Row({"text": "x", "label": label}, "f", 1)) for label in labels]
    found = summary(task, rows, [encoded(5)] * len(rows))
    assert len(found["names"]) == MOST_NAMES
    assert found["other_names"] == 5


def test_no_rows():
    task = Classification(ClassificationOptions(options="fixed", labels=["a"], language="en"))
    assert summary(task, [], []) == {"rows": 0}
