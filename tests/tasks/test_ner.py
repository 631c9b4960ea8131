"""NER: rows as files have them, prompts, and answers that lead back to the source's offsets."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from texts import marked_control, texts
from weitiao.errors import ConfigError, DataError
from weitiao.metrics.entities import Entity
from weitiao.tasks.base import task_options
from weitiao.tasks.ner import Ner, NerExample, NerOptions, ground
from weitiao.tasks.spans import clusters, nfc
from weitiao.types import Row

TYPES = ["人名", "地点", "e\u0301"]
BYTES = LLTokenizer("byte")
PLACE = r"train\.jsonl:17: "


def ner(**options) -> Ner:
    return Ner(NerOptions(**({"types": TYPES, "language": "zh"} | options)))


def row(*entities, text="李华住在南京", **fields) -> Row:
    return Row({"text": text, "entities": list(entities), **fields}, "train.jsonl", 17)


def located(start, end, kind="地点", **fields):
    return {"start": start, "end": end, "type": kind, **fields}


@st.composite
def labelled(draw, most: int = 6) -> Row:
    """A row whose entities nest, repeat and overlap; they begin and end on whole characters."""
    text = draw(texts(8))
    cut = clusters(text)
    ends = [sum(map(len, cut[:i])) for i in range(len(cut) + 1)]
    span = st.lists(st.sampled_from(ends), min_size=2, max_size=2, unique=True).map(sorted)
    found = draw(st.lists(st.tuples(span, st.sampled_from(TYPES)), max_size=most))
    # Half of the time every mention of a labelled text is labelled.
    if draw(st.booleans()):
        chosen = {nfc(text[i:j]): kind for (i, j), kind in found}
        found = [((i, j), chosen[nfc(text[i:j])]) for i in ends for j in ends if i < j and nfc(text[i:j]) in chosen]
    return row(*(located(i, j, kind) for (i, j), kind in found), text=text)


def must_be_found(entity: Entity, answer: tuple[Entity, ...], text: str) -> bool:
    """Whether every earlier mention of the same text is labelled, and no text that recurs has a span of two types."""
    kinds: dict[tuple[int, int], set[str]] = {}
    for other in answer:
        kinds.setdefault((other.start, other.end), set()).add(other.type)
    earlier_labelled = all(span in kinds for span in mentions(entity.text, text) if span[0] < entity.start)
    return earlier_labelled and all(
        len(types) < 2 or len(mentions(text[slice(*span)], text)) == 1 for span, types in kinds.items()
    )


def mentions(wanted: str, text: str) -> list[tuple[int, int]]:
    ends = range(len(text) + 1)
    return [(i, j) for i in ends for j in ends if i < j and nfc(text[i:j]) == nfc(wanted)]


@pytest.mark.parametrize("output_format", ["lines", "json"])
@settings(max_examples=100)
@given(source=labelled())
@example(source=row(located(0, 1), located(1, 3), text="ée\u0301"))
@example(source=row(located(0, 3), located(0, 2), located(3, 5), located(0, 5), text="南京市南京"))
@example(source=row(located(0, 2), located(0, 2, "人名"), text="南京市"))
@example(source=row(located(0, 1), located(0, 1, "人名"), located(1, 2), text="南京南京"))
@example(source=row(located(0, 7), located(2, 3), text="\t\\t\n\\n\r"))
def test_an_answer_leads_back_to_its_entities(output_format, source):
    task = ner(output_format=output_format)
    made = task.example(source)
    for form in ("NFC", "NFD", None):
        told = task.target(made.answer)
        found = task.parse(unicodedata.normalize(form, told) if form and not marked_control(told) else told, made)
        assert found is not None
        assert [(nfc(e.text), e.type) for e in found] == [(nfc(e.text), e.type) for e in made.answer]
        for ours, theirs in zip(found, made.answer, strict=True):
            if must_be_found(theirs, made.answer, made.text):
                assert ours == theirs
            assert not ours.found or made.text[ours.start : ours.end] == ours.text


@pytest.mark.parametrize("output_format", ["lines", "json"])
@settings(max_examples=60)
@given(source=labelled(3).filter(lambda source: not marked_control(source.fields["text"])))
def test_the_grammar_of_a_row_admits_its_answer(output_format, source):
    task = ner(output_format=output_format)
    made = task.example(source)
    for normalize in (str, nfc):
        matcher = LLMatcher(BYTES, task.constraint(made, normalize).lark, log_level=0)
        told = list(normalize(task.target(made.answer)).encode())
        assert matcher.try_consume_tokens(told) == len(told), (matcher.get_error(), bytes(told).decode())
        assert matcher.is_accepting()


def test_an_unlabelled_earlier_mention_costs_the_offsets_only():
    task = ner()
    made = task.example(row(located(3, 5), text="南京，南京"))
    assert task.parse(task.target(made.answer), made) == (Entity(0, 2, "地点", "南京"),)
    assert task.best_possible([made])["f1"] == 0.0
    assert task.best_possible([made])["text_f1"] == 1.0


def test_what_the_text_lacks_is_given_back_unplaced():
    assert ground([("上海", "地点"), ("南京", "地点")], "南京") == (
        Entity(-1, -1, "地点", "上海"),
        Entity(0, 2, "地点", "南京"),
    )


@pytest.mark.parametrize("text", ["南京\t城市", "南京", "", "南京 地点"])
def test_no_answer(text):
    task = ner()
    assert task.parse(text, task.example(row())) is None


@pytest.mark.parametrize(
    "entity",
    [
        located(4, 6),
        located(4, 6, text="南京"),
        located(4, 5, text="南京"),
        {"start_idx": 4, "end_idx": 6, "entity_text": "南京", "entity_label": "地点", "entity_names": ["地点", "城市"]},
        {"start_idx": 4, "end_idx": 5, "entity_text": "南京", "entity_label": "地点", "entity_names": []},
        {"start": 4, "end": 6, "label": "地点"},
        {"text": "南京", "type": "地点"},
        {"entity_text": "南京", "entity_label": "地点", "start": None, "end": None},
    ],
)
def test_shapes_of_an_entity(entity):
    assert ner().example(row(entity)).answer == (Entity(4, 6, "地点", "南京"),)


def test_entities_are_put_in_reading_order_once_each():
    outer, inner, twice = located(0, 6), located(4, 6), located(4, 6, "人名")
    made = ner().example(row(inner, twice, outer, inner))
    assert [(e.start, e.end, e.type) for e in made.answer] == [(0, 6, "地点"), (4, 6, "人名"), (4, 6, "地点")]


def test_entities_without_offsets_are_looked_up_from_left_to_right():
    told = [{"text": name, "type": "地点"} for name in ("上海", "南京", "南京")]
    found = ner().example(row(*told, text="南京和上海和南京")).answer
    assert [(e.start, e.text) for e in found] == [(0, "南京"), (3, "上海"), (6, "南京")]


def test_the_end_of_one_character_may_be_inclusive():
    assert ner().example(row(located(4, 4, text="南"))).answer == (Entity(4, 5, "地点", "南"),)


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        (located(4, 7), r"offsets 4, 7; wanted 0 ≤ start < end ≤ 6"),
        (located(-1, 2), "offsets -1, 2"),
        (located(3, 2), "offsets 3, 2"),
        (located(0, "2"), "offsets 0, '2'"),
        (located(True, 2), "offsets True, 2"),
        (located(0, 1.0), r"offsets 0, 1\.0"),
        ({"start": 0, "type": "地点"}, "offsets 0, None"),
        (located(2, 2), "disagrees with offsets 2:2|wanted 0 ≤ start < end"),
        (located(0, 2, text="南京"), "'南京' disagrees with offsets 0:2, where the text has '李华'"),
        (located(0, 2, "城市"), r"type '城市' is outside the set \(人名, 地点, .*add it to task.types"),
        (located(0, 2, "地点名"), "did you mean '地点'"),
        (located(0, 2, ""), "has no `type`"),
        (located(0, 2, 3), "has no `type`"),
        ({"start": 0, "end": 2}, "has no `type`"),
        ("李华", "has no `type`; wanted start, end, type and text"),
        ({"type": "地点"}, "has no `text`"),
        ({"type": "地点", "text": "上海"}, r"'上海' does not occur \(again\) in the text"),
    ],
)
def test_wrong_entities_are_refused_with_their_place(entity, message):
    with pytest.raises(DataError, match=f"^{PLACE}.*(?:{message})"):
        ner().example(row(entity))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "李华"}, "no entities; wanted a list 'entities'"),
        ({"text": "李华", "entities": None}, "no entities"),
        ({"text": "李华", "entities": "李华"}, "`entities` must be a list, found str"),
        ({"text": "李华", "entities": {}}, "must be a list, found dict"),
        ({"text": "李华", "entities": "[{"}, "which is no valid JSON .*correct the cell"),
        ({"entities": []}, "no text; wanted a field 'text' or .*found entities"),
        ({"text": " \n", "entities": []}, "the text is empty"),
        ({"text": 3, "entities": []}, "must be a string, found int 3"),
    ],
)
def test_wrong_rows_are_refused_with_their_place(fields, message):
    with pytest.raises(DataError, match=f"^{PLACE}.*{message}"):
        ner().example(Row(fields, "train.jsonl", 17))


def test_other_types_can_be_ignored():
    assert ner(other_types="ignore").example(row(located(0, 2, "城市"), located(4, 6))).answer == (
        Entity(4, 6, "地点", "南京"),
    )


def test_a_row_to_predict_needs_no_entities():
    for fields, columns in (
        ({}, {}),
        ({"entities": None}, {}),
        ({"entities": ""}, {}),
        ({}, {"entities": "实体"}),
    ):
        made = ner().example(Row({"text": "李华", **fields}, "f", 1, columns), labelled=False)
        assert made.answer is None
    made = ner().example(row(located(0, 2, "人名")), labelled=False)
    assert made.answer == (Entity(0, 2, "人名", "李华"),)


def test_types_come_from_the_training_rows():
    options = Ner.resolve(NerOptions(), [row(located(0, 2, "人名")), row(located(4, 6), located(0, 2, "人名"))])
    assert options.types == ["人名", "地点"]
    assert options.language == "zh"
    assert Ner.resolve(options, []) == options


@pytest.mark.parametrize(
    ("options", "rows", "error", "message"),
    [
        ({}, [row()], DataError, "no training row has an entity; set data.columns.entities"),
        ({}, [row(located(0, 2, "a\tb"))], DataError, PLACE + r"type 'a\\tb' is empty or holds a tab"),
        ({}, [row(located(0, 2, " "))], DataError, PLACE + "type ' ' is empty"),
        (
            {"type_descriptions": {"地点名": "x"}, "types": TYPES},
            [row()],
            ConfigError,
            "'地点名'.*no type; did you mean '地点'",
        ),
        ({"type_descriptions": {"z": "x"}, "types": TYPES}, [row()], ConfigError, "'z'.*no type; types: 人名, 地点"),
    ],
)
def test_options_that_do_not_fit_the_rows(options, rows, error, message):
    with pytest.raises(error, match=message):
        Ner.resolve(NerOptions(**options), rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"types": ["a\tb"]}, "task: key `types` = .*holds a tab"),
        ({"types": []}, "key `types`"),
        ({"types": ["a", "a"]}, "listed twice"),
        ({"output_format": "xml"}, 'key `output_format` = "xml"'),
        ({"tpyes": ["a"]}, r"unknown key `tpyes` \(value \[\"a\"\]\); did you mean `types`"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        task_options({"name": "ner", **options})


def test_the_prompt():
    system, user = ner(type_descriptions={"地点": "城市、河流"}).prompt(ner().example(row()))
    assert system.text.startswith("找出文本中的实体")
    assert system.text.endswith("类型：\n人名\n地点：城市、河流\ne\u0301")
    assert user.text == "文本：李华住在南京"
    english = ner(language="en", output_format="json", instruction=None)
    assert "JSON" in english.prompt(ner().example(row()))[0].text
    own = ner(instruction="只找地名。").prompt(ner().example(row()))[0].text
    assert own.startswith("只找地名。\n类型：\n人名")
    assert "找出" not in own


@pytest.mark.parametrize(("language", "word"), [("zh", "无"), ("en", "none")])
def test_no_entity_is_a_word(language, word):
    task = ner(language=language)
    made = task.example(row())
    assert task.target(()) == word
    assert task.parse(word, made) == ()
    assert word in task.prompt(made)[0].text
    assert task.complete_part("李华\t人") == word
    assert task.complete_part("李华\t人名\n南京\t") == "李华\t人名"


def test_a_type_is_known_in_any_normal_form():
    task = ner()
    made = task.example(row())
    assert task.parse("李华\té", made) == (Entity(0, 2, "e\u0301", "李华"),)


def test_records_and_strata():
    task = ner()
    made = task.example(row(located(4, 6), located(0, 2, "人名")))
    assert task.record(made.answer)[0] == {"start": 0, "end": 2, "type": "人名", "text": "李华"}
    assert task.record(None) is None
    assert task.stratum(made) == "人名; 地点"
    assert task.stratum(NerExample(row(), "x")) == ""
