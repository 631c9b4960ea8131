"""What is written reads back, cut-off answers keep their whole part, and the grammar admits just what is written."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from texts import marked_control, pieces
from weitiao.tasks.entity_formats import FORMATS
from weitiao.tasks.spans import clusters, nfc

BYTES = LLTokenizer("byte")
NOTHING = "无"
KINDS = ("地点", "人名", 'A "b" \\ c', "无", "\x01", "e\u0301", "text")
named = st.tuples(pieces(4), st.sampled_from(KINDS))
formats = pytest.mark.parametrize("name", FORMATS)


def accepts(lark: str, text: str) -> bool:
    matcher = LLMatcher(BYTES, lark, log_level=0)
    assert not matcher.is_error(), f"{matcher.get_error()}\n{lark}"
    told = list(text.encode())
    return matcher.try_consume_tokens(told) == len(told) and matcher.is_accepting()


@formats
@given(pairs=st.lists(named, max_size=5))
@example(pairs=[("\\", "人名"), ("\\t\t\n\r\\n", "无")])
def test_what_is_written_reads_back(name, pairs):
    assert FORMATS[name].read(FORMATS[name].write(pairs, NOTHING), NOTHING) == pairs


def test_the_written_shapes():
    pairs = [("南\t京\\\n\r", "地点"), ("李华", "人名")]
    assert FORMATS["lines"].write(pairs, NOTHING) == "南\\t京\\\\\\n\\r\t地点\n李华\t人名"
    assert FORMATS["lines"].write([], NOTHING) == NOTHING
    assert FORMATS["json"].write(pairs[1:], NOTHING) == '[{"text":"李华","type":"人名"}]'
    assert FORMATS["json"].write([], NOTHING) == "[]"


@formats
@given(pairs=st.lists(named, max_size=4))
@example(pairs=[('a"}b', "人名"), ('{"', "地点"), ("\n{", "{")])
def test_pairs_end_behind_their_types(name, pairs):
    text = FORMATS[name].write(pairs, NOTHING)
    ends = FORMATS[name].ends(text, NOTHING)
    assert len(ends) == len(pairs)
    for count, end in enumerate(ends, 1):
        part = FORMATS[name].write(pairs[:count], NOTHING)
        assert text[:end] == (part if name == "lines" else part.removesuffix('"}]'))


@formats
@pytest.mark.parametrize(
    "text",
    [
        *("", "南京", "南京\t", "\t地点", "南京\t地点\n", "\n", "[", "[1]", "3", "null", '["ab"]', '[{"text":"a"}]'),
        *('[{"text":"","type":"a"}]', '[{"text":1,"type":"a"}]', '{"text":"a","type":"b"}'),
    ],
)
def test_malformed_answers_read_as_none(name, text):
    assert FORMATS[name].read(text, NOTHING) is None


@formats
@given(pairs=st.lists(named, min_size=1, max_size=4), data=st.data())
@example(pairs=[('a"}b', "人名"), ('"}', "地点")], data=None)
def test_a_cut_off_answer_keeps_its_whole_entities(name, pairs, data):
    form = FORMATS[name]
    text = form.write(pairs, NOTHING)
    cuts = range(len(text)) if data is None else [data.draw(st.integers(0, len(text) - 1))]
    for cut in cuts:
        kept = form.complete_part(text[:cut])
        found = form.read(kept, NOTHING) if kept else []
        assert found == pairs[: len(found)], text[:cut]
        # What is lost is the entity that was cut; in `lines` only a line break shows that one is whole.
        assert len(form.write(pairs[: len(found) + 1], NOTHING)) >= cut - (name == "lines")


@formats
@settings(max_examples=40)
@given(source=pieces(8).filter(lambda text: not marked_control(text)), data=st.data())
def test_the_grammar_admits_every_answer_and_no_other(name, source, data):
    form, cut = FORMATS[name], clusters(source)
    spans = st.tuples(st.integers(0, len(cut) - 1), st.integers(1, len(cut))).filter(lambda span: span[0] < span[1])
    chosen = data.draw(st.lists(st.tuples(spans, st.sampled_from(KINDS)), max_size=3))
    pairs = [("".join(cut[start:stop]), kind) for (start, stop), kind in chosen]
    for normalize in (str, nfc):
        lark = form.lark(list(map(normalize, cut)), list(map(normalize, KINDS)), NOTHING)
        assert accepts(lark, normalize(form.write(pairs, NOTHING)))
        for wrong in (
            ("☃", "地点"),
            (source + "☃", "地点"),
            (cut[0], "地"),
            (cut[0], "地点点"),
            (cut[-1] + source, "地点"),
        ):
            if nfc(wrong[0]) not in nfc(source) or wrong[1] not in KINDS:
                assert not accepts(lark, normalize(form.write([*pairs, wrong], NOTHING))), wrong


@formats
@pytest.mark.parametrize("text", ["", "\n", "\t地点", "南京\t地点\n", "无\n", "[]\n", "南京", "南京\t地点\n无"])
def test_the_grammar_refuses_what_is_malformed(name, text):
    assert not accepts(FORMATS[name].lark(list("南京市"), ["地点"], NOTHING), text)


@pytest.mark.parametrize(
    "text", ['[{"text":"","type":"地点"}]', '[{"text":"南京","type":"地点"},]', "[ ]", "无", '[{"text":"南"']
)
def test_the_json_grammar_refuses_what_is_malformed(text):
    assert not accepts(FORMATS["json"].lark(list("南京市"), ["地点"], NOTHING), text)


def test_an_escape_is_never_split():
    lark = FORMATS["lines"].lark(list("a\tb"), ["X"], NOTHING)
    assert accepts(lark, "a\\t\tX")
    assert not accepts(lark, "a\\\tX")
    assert not accepts(lark, "t\tX")
    lark = FORMATS["json"].lark(list('a"b'), ["X"], NOTHING)
    assert accepts(lark, json.dumps([{"text": '"b', "type": "X"}], separators=(",", ":")))


def test_many_types_and_a_long_source_compile():
    source = [chr(0x4E00 + i % 3000) for i in range(4000)]
    kinds = [f"类型{i}" for i in range(500)]
    lark = FORMATS["lines"].lark(source, kinds, NOTHING)
    assert accepts(lark, f"{''.join(source[100:140])}\t类型499\n{source[0]}\t类型0")
