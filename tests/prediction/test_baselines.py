import math

import pytest
from PIL import Image, ImageDraw

from weitiao.metrics.entities import Entity
from weitiao.prediction.baselines import (
    BASELINES,
    commonest,
    dictionary,
    majority,
    nearest,
    pixel_regression,
    tfidf,
)
from weitiao.tasks.base import Example
from weitiao.tasks.classification import ClassificationExample
from weitiao.tasks.generation import GenerationExample
from weitiao.types import Row

ROW = Row({}, "rows.jsonl", 1)
GOOD = ["好用，值得买", "很好，喜欢", "质量好", "真好看", "好评，推荐"]
BAD = ["太差，不值", "很差，失望", "质量差", "真差劲", "差评，别买"]


def example(text, answer=None, options=("差评", "好评", "中评")):
    return ClassificationExample(ROW, text, answer, options)


REVIEWS = [example(t, "好评") for t in GOOD] + [example(t, "差评") for t in BAD[:4]]


def document(text, *entities):
    """A text with entities written as `(text, type)`, each at its first place after the one before."""
    found, end = [], 0
    for part, type_ in entities:
        start = text.index(part, end)
        end = start + len(part)
        found.append(Entity(start, end, type_, part))
    return Example(ROW, text, tuple(found))


def spans(prediction):
    return [(e.start, e.end, e.type, e.text) for e in prediction.answer]


def test_named_by_task():
    assert {task: list(named) for task, named in BASELINES.items()} == {
        "classification": ["majority", "tfidf", "pixels"],
        "ner": ["dictionary"],
        "generation": ["commonest", "nearest"],
    }


@pytest.fixture
def shapes(tmp_path):
    """Rows of bright circles and bars at several places, and none of a text."""

    def drawn(kind, at):
        image = Image.new("L", (60, 40), 30)
        box = (10 + at, 5, 35 + at, 30) if kind == "circle" else (2, 15 + at // 2, 58, 20 + at // 2)
        (ImageDraw.Draw(image).ellipse if kind == "circle" else ImageDraw.Draw(image).rectangle)(box, fill=220)
        path = tmp_path / f"{kind}-{at}.png"
        image.save(path)
        return ClassificationExample(ROW, "", kind, ("bar", "circle"), images=(str(path),))

    return [drawn(kind, at) for at in range(12) for kind in ("circle", "bar")]


def test_pixels_learn_what_a_text_does_not_say(shapes):
    assert tfidf(shapes[:16], shapes[16:]) is None
    found = pixel_regression(shapes[:16], shapes[16:])
    assert [p.answer for p in found] == [e.answer for e in shapes[16:]]
    assert all(p.probability > 0.8 for p in found)


def test_pixels_need_images_in_every_row(shapes):
    assert pixel_regression(REVIEWS, [example("好")]) is None
    assert pixel_regression(shapes, [example("好")]) is None


def free(text, answer, images=()):
    return GenerationExample(ROW, text, answer, references=(answer,), images=images)


def test_the_commonest_answer():
    train = [free("a", "yes"), free("b", "no"), free("c", "no"), free("d", "yes")]
    assert [p.answer for p in commonest(train, [free("e", "?")] * 2)] == ["yes", "yes"]


def test_the_nearest_row():
    train = [free("how large is the room", "20 m²"), free("what colour is the car", "red")]
    assert [p.answer for p in nearest(train, [free("what colour has that car", "?")])] == ["red"]
    assert nearest(train, []) == []


def test_the_nearest_image(shapes):
    captioned = [free("", f"a {e.answer}", e.images) for e in shapes]
    assert [p.answer for p in nearest(captioned[:16], captioned[16:])] == [e.answer for e in captioned[16:]]


def test_majority():
    found = majority(
        REVIEWS, [example("x"), example("y", options=("差评", "中评")), example("z", options=("优", "劣"))]
    )
    assert [(p.answer, p.probability) for p in found] == [("好评", 5 / 9), ("差评", 1.0), ("优", 0.5)]


def test_majority_takes_the_first_of_a_tie():
    train = [example("", label) for label in ("中评", "好评", "好评", "中评")]
    assert majority(train, [example("")])[0].answer == "中评"


def test_majority_of_label_sets():
    abc = ("a", "b", "c")
    sets = [("a", "b"), ("b", "a"), ("a", "b"), ("c",), ("c",), ()]
    train = [example("", labels, abc) for labels in sets]
    test = [example("", options=o) for o in (abc, ("b", "a"), ("c", "d"), ("d",))]
    found = majority(train, test)
    assert [p.answer for p in found] == [("a", "b"), ("b", "a"), ("c",), ()]
    assert [p.probability for p in found] == [3 / 6, 3 / 4, 2 / 3, 1.0]
    assert majority(train[:3], [example("", options=("d",))])[0].answer == ()


@pytest.mark.parametrize("baseline", [majority, tfidf])
def test_baselines_do_not_read_the_test_answers(baseline):
    test = [example(t, "好评") for t in GOOD + BAD]
    hidden = [example(t) for t in GOOD + BAD]
    assert baseline(REVIEWS, test) == baseline(REVIEWS, hidden)
    assert baseline(REVIEWS, []) == []


def test_tfidf_learns():
    found = tfidf(REVIEWS, [example("真好，好看"), example("真差，差劲")])
    assert [p.answer for p in found] == ["好评", "差评"]
    assert all(0.5 < p.probability < 1 for p in found)


def test_tfidf_learns_three_classes_in_english():
    train = [
        example(f"{adverb} {word} {noun}", label, ("cold", "warm", "wet"))
        for word, label in {"freezing": "cold", "sunny": "warm", "raining": "wet"}.items()
        for adverb in ("very", "really", "so")
        for noun in ("today", "outside")
    ]
    asked = [example(f"It is {w} again", options=("cold", "warm", "wet")) for w in ("rainy", "freeze", "suns")]
    assert [p.answer for p in tfidf(train, asked)] == ["wet", "cold", "warm"]


def test_tfidf_stays_within_the_rows_options():
    whole, restricted = tfidf(REVIEWS, [example("真好"), example("真好", options=("中评", "差评"))])
    assert whole.answer == "好评"
    assert (restricted.answer, restricted.probability) == ("差评", 1.0)
    assert tfidf(REVIEWS, [example("真好", options=("优", "劣"))])[0].answer == "优"


def test_tfidf_with_one_class():
    found = tfidf([example("a", "好评")] * 2, [example("b"), example("c", options=("差评",))])
    assert [(p.answer, p.probability) for p in found] == [("好评", 1.0), ("差评", 1.0)]


def test_tfidf_of_label_sets():
    options = ("好评", "差评", "中文")
    train = [example(t, ("好评", "中文"), options) for t in GOOD] + [example(t, ("差评", "中文"), options) for t in BAD]
    good, bad, restricted = tfidf(
        train,
        [example("真好好", options=options), example("真差差", options=options), example("真好好", options=("差评",))],
    )
    assert (good.answer, bad.answer, restricted.answer) == (("好评", "中文"), ("差评", "中文"), ())
    # 中文 is always there; the two other labels are decided apart from each other.
    assert 0.25 < good.probability < 1
    assert restricted.probability > 0.5
    assert math.isclose(tfidf(train[:1], [example("x", options=options)])[0].probability, 1.0)


def test_tfidf_of_empty_label_sets():
    assert tfidf([example("a", ()), example("b", ())], [example("c")])[0].answer == ()


def test_dictionary_takes_the_longest_text_from_the_left():
    train = [document("北京大学在北京", ("北京大学", "组织"), ("北京", "地点")), document("江泽民", ("江泽民", "人名"))]
    found = dictionary(train, [Example(ROW, "江泽民到北京北京大学"), Example(ROW, "无")])
    assert spans(found[0]) == [(0, 3, "人名", "江泽民"), (4, 6, "地点", "北京"), (6, 10, "组织", "北京大学")]
    assert found[1].answer == ()


def test_dictionary_takes_the_most_frequent_type():
    train = [document("长江", ("长江", t)) for t in ("人名", "地点", "地点")]
    assert spans(dictionary(train, [Example(ROW, "长江")])[0]) == [(0, 2, "地点", "长江")]


@pytest.mark.parametrize(("others", "kept"), [(1, True), (2, False)])
def test_dictionary_leaves_out_what_is_mostly_no_entity(others, kept):
    # 和平 is a name once; occurrences overlap, and those inside other entities count as well.
    train = [document("和平说", ("和平", "人名"))] + [document("世界和平")] * others
    assert bool(dictionary(train, [Example(ROW, "和平")])[0].answer) is kept


def test_dictionary_counts_an_entity_of_two_types_once():
    twice = Example(ROW, "和平", (Entity(0, 2, "人名", "和平"), Entity(0, 2, "地点", "和平")))
    assert dictionary([twice, document("和平"), document("和平")], [Example(ROW, "和平")])[0].answer == ()


def test_dictionary_does_not_cut_latin_words():
    train = [document("US and USA", ("US", "place")), document("USED CARS")]
    found = dictionary(train, [Example(ROW, "USED by BUS or US.US公司")])
    assert spans(found[0]) == [(15, 17, "place", "US"), (18, 20, "place", "US")]


def test_dictionary_ignores_entities_that_are_not_in_their_text():
    train = [Example(ROW, "江泽民", (Entity(-1, -1, "人名", "李鹏"),))]
    assert dictionary(train, [Example(ROW, "李鹏")])[0].answer == ()
