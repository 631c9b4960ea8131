"""The shared prefix is the longest one that all prompts have as tokens, and never a whole prompt; groups of rows share
theirs, and only where that saves tokens."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weitiao.data.pack import training_row
from weitiao.data.prefix import WORTH, StepCost, common_prefix, prefix_groups
from weitiao.types import Encoded, PlacedImage

prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=5)


@given(prompts, st.lists(st.integers(0, 2), max_size=3))
def test_it_is_the_longest_that_leaves_a_token_of_each_prompt(ids, answer):
    encoded = [Encoded((*prompt, *answer), len(prompt)) for prompt in ids]
    found = common_prefix(encoded)
    wanted = max(n for n in range(min(map(len, ids))) if all(prompt[:n] == ids[0][:n] for prompt in ids))
    assert found == tuple(ids[0][:wanted])
    assert len(found) < min(map(len, ids))


def test_answers_do_not_lengthen_it():
    assert common_prefix([Encoded((1, 2, 3, 4), 2), Encoded((1, 2, 3, 4), 2)]) == (1,)
    assert common_prefix([Encoded((1, 2, 3, 4), 4)]) == (1, 2, 3)
    assert common_prefix([]) == ()


# -- Groups


def image(start):
    return PlacedImage("a.png", "", 28, 28, 1, 1, start, "rows:1")


@st.composite
def forked(draw):
    """Rows behind one of a few stems, which themselves begin alike; some are a stem and no more, some have images."""
    stem = st.lists(st.integers(0, 2), max_size=12).map(tuple)
    common, stems = draw(stem), draw(st.lists(stem, min_size=1, max_size=4))
    rows = []
    for _ in range(draw(st.integers(1, 25))):
        prompt = (*common, *draw(st.sampled_from(stems)), *draw(st.lists(st.integers(0, 9), max_size=4)), 7)
        images = (image(draw(st.integers(0, len(prompt) - 1))),) if draw(st.integers(0, 9)) == 0 else ()
        answer = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
        rows.append(Encoded((*prompt, *answer), len(prompt), images=images))
    return rows


def cost_of(groups, encoded, cost):
    """Expected tokens of a step, packs' own cost among them."""
    lengths = [[len(encoded[i].ids) for i in group.members] for group in groups]
    parts = zip(groups, lengths, strict=True)
    return sum(cost.group(len(own), sum(own), len(group.prefix)) for group, own in parts)


@given(forked(), st.integers(1, 30), st.sampled_from([0, 1, 10, 256]))
def test_every_row_is_in_one_group_and_they_cost_less_than_one(encoded, at_once, pack_cost):
    groups = prefix_groups(encoded, at_once, pack_cost)
    assert sorted(i for group in groups for i in group.members) == list(range(len(encoded)))
    for group in groups:
        assert list(group.members) == sorted(group.members)
        for i in group.members:
            row = training_row(encoded[i], len(group.prefix))
            assert group.prefix + row.ids == encoded[i].ids[:-1]
            assert len(group.prefix) < encoded[i].prompt_length
            assert all(placed.start >= 0 for placed in row.images)
    prefix = common_prefix(encoded)
    cost = StepCost(len(encoded), min(at_once, len(encoded)), pack_cost)
    one = cost.group(len(encoded), sum(len(e.ids) for e in encoded), len(prefix))
    if len(groups) == 1:
        assert groups[0].prefix == prefix
    else:
        assert cost_of(groups, encoded, cost) <= WORTH * one * (1 + 1e-9)
        assert all(group.prefix[: len(prefix)] == prefix for group in groups)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12))
def test_the_cost_is_that_of_steps_as_they_are_drawn(rows, at_once, count):
    at_once, count = min(at_once, rows), min(count, rows)
    tokens, prefix = 9 * count, 4
    draw = random.Random(0)
    steps = [draw.sample(range(rows), at_once) for _ in range(2000)]
    drawn = [sum(row < count for row in step) for step in steps]
    wanted = sum(own * (9 - prefix) + (own > 0) * (prefix + 3) for own in drawn) / len(steps)
    assert StepCost(rows, at_once, 3).group(count, tokens, prefix) == pytest.approx(wanted, rel=0.15, abs=0.3)


def listed(rows, lists, instruction=40, labels=300, text=60, seed=0):
    """Rows behind one instruction and one of several label lists, of random ids."""
    draw = random.Random(seed)

    def ids(count):
        return [draw.randrange(1000, 150_000) for _ in range(count)]

    first, stems = ids(instruction), [ids(labels) for _ in range(lists)]
    prompts = [(*first, *stems[at % lists], *ids(text)) for at in range(rows)]
    return [Encoded((*prompt, 1, 2, 3), len(prompt)) for prompt in prompts]


def test_label_lists_are_groups_where_steps_draw_several_rows_of_each():
    encoded = listed(400, 5)
    groups = prefix_groups(encoded, 16)
    assert [len(group.prefix) for group in groups] == [340] * 5
    assert [group.members[:2] for group in groups] == [(at, at + 5) for at in range(5)]
    # A step of one row shares nothing with another.
    assert len(prefix_groups(encoded, 1)) == 1
    assert len(prefix_groups(listed(400, 200), 16)) == 1
    assert len(prefix_groups(listed(400, 200), 400)) == 1
    assert len(prefix_groups(listed(4000, 200), 4000)) == 200


def test_rare_lists_stay_together():
    """Two lists of many rows are groups; rows of 300 other lists share what all of them do."""
    encoded = listed(300, 2) + [Encoded((*e.ids[:40], 5, i, *e.ids[42:]), 400) for i, e in enumerate(listed(300, 1))]
    groups = prefix_groups(encoded, 64)
    assert sorted((len(group.prefix), len(group.members)) for group in groups) == [(41, 300), (340, 150), (340, 150)]


def test_what_is_shared_by_all_is_one_group():
    encoded = listed(100, 1)
    assert prefix_groups(encoded, 16) == [(common_prefix(encoded), tuple(range(100)))]
    assert prefix_groups([], 16) == []


def test_prompts_that_begin_each_other():
    """As deep a tree as there can be."""
    encoded = [Encoded((*range(length), 0), length) for length in range(1, 1500)]
    groups = prefix_groups(encoded, len(encoded), pack_cost=0)
    assert sorted(i for group in groups for i in group.members) == list(range(len(encoded)))
