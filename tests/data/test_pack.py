"""Order is a function of seed, epoch and step; packs hold what they should; a row gives its example back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weitiao.data.pack import (
    Pack,
    PackRow,
    bins,
    even_bins,
    filled,
    pack,
    samples_of_step,
    steps_per_epoch,
    training_row,
)
from weitiao.types import Encoded

sizes = st.lists(st.integers(1, 40), max_size=30)


def epoch(count: int, size: int, seed: int, number: int) -> list[int]:
    steps = steps_per_epoch(count, size)
    return [i for step in range(number * steps, (number + 1) * steps) for i in samples_of_step(count, size, seed, step)]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32), st.integers(0, 3))
def test_an_epoch_takes_every_sample_once(count, size, seed, number):
    assert sorted(epoch(count, size, seed, number)) == list(range(count))
    lengths = [len(samples_of_step(count, size, seed, step)) for step in range(steps_per_epoch(count, size))]
    assert set(lengths[:-1]) <= {size}
    assert 1 <= lengths[-1] <= size


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20), st.integers(0, 100))
def test_an_epochs_order_depends_on_seed_and_epoch_alone(count, size, other, seed):
    assert epoch(count, size, seed, 1) == epoch(count, other, seed, 1)


def test_epochs_and_seeds_differ_and_stay():
    orders = [tuple(epoch(50, 7, seed, number)) for seed in (0, 1) for number in (0, 1)]
    assert len(set(orders)) == 4
    # A run that is resumed by another version must take the same samples.
    assert samples_of_step(10, 4, 42, 0) == [9, 5, 2, 7]
    assert samples_of_step(10, 4, 42, 5) == [5, 8]


@given(sizes, st.integers(1, 60))
def test_bins_keep_to_their_capacity(lengths, capacity):
    found = bins(lengths, capacity)
    assert sorted(i for members in found for i in members) == list(range(len(lengths)))
    totals = [sum(lengths[i] for i in members) for members in found]
    assert all(total <= capacity or len(members) == 1 for total, members in zip(totals, found, strict=True))
    # First fit: no two bins could have been one.
    smallest = sorted(totals)[:2]
    assert len(smallest) < 2 or sum(smallest) > capacity


def test_rows_of_a_bin_are_of_similar_length():
    assert bins([1, 9, 2, 8], 10) == [[1, 0], [3, 2]]
    assert bins([], 10) == []


@given(sizes, st.integers(1, 60))
def test_even_bins_are_as_few_and_no_fuller(lengths, capacity):
    full, even = bins(lengths, capacity), even_bins(lengths, capacity)
    assert sorted(i for members in even for i in members) == list(range(len(lengths)))
    assert len(even) == len(full)
    fullest = [max((sum(lengths[i] for i in members) for members in found), default=0) for found in (even, full)]
    assert fullest[0] <= fullest[1]


def test_even_bins_share_what_does_not_fit_into_one():
    lengths = [draw % 40 + 1 for draw in range(0, 4000, 37)]
    totals = [sum(lengths[i] for i in members) for members in even_bins(lengths, 1500)]
    assert sum(lengths) / 1500 < len(totals) == 2
    assert max(totals) <= 1.05 * min(totals)


@given(sizes, st.integers(0, 20), st.integers(1, 60))
def test_packs_hold_every_row_once_behind_the_prefix(lengths, prefix, tokens):
    rows = [PackRow(tuple([i] * length), ()) for i, length in enumerate(lengths)]
    packs = pack(range(prefix), rows, tokens)
    assert sorted(i for _, members in packs for i in members) == list(range(len(rows)))
    for packed, members in packs:
        assert packed.prefix == tuple(range(prefix))
        assert packed.rows == tuple(rows[i] for i in members)
        assert len(members) == 1 or prefix + sum(len(row.ids) for row in packed.rows) <= tokens


@given(st.lists(st.integers(0, 99), min_size=1, max_size=12), st.lists(st.integers(100, 199), min_size=1), st.data())
def test_a_training_row_gives_its_example_back(prompt, answer, data):
    prefix = data.draw(st.integers(0, len(prompt) - 1))
    whole = (*prompt, *answer)
    row = training_row(Encoded(whole, len(prompt)), prefix)
    assert (*prompt[:prefix], *row.ids, row.labels[-1]) == whole
    assert row.labels == tuple(answer)
    # Each label is the token that comes next after the one at which it is read.
    assert [whole[prefix + at + 1] for at in row.keep] == answer
    assert row.keep == tuple(sorted(set(row.keep)))
    assert row.parents is None


@pytest.mark.parametrize(("count", "size", "steps"), [(1, 16, 1), (16, 16, 1), (17, 16, 2), (32, 16, 2)])
def test_steps_per_epoch(count, size, steps):
    assert steps_per_epoch(count, size) == steps


@given(sizes.filter(bool), st.integers(0, 20), st.integers(0, 300), st.data())
def test_a_pack_is_filled_behind_its_rows(lengths, prefix, least, data):
    rows = tuple(
        PackRow((i,) * length, tuple(range(data.draw(st.integers(0, length))))) for i, length in enumerate(lengths)
    )
    pack = Pack(tuple(range(prefix)), rows)
    more = filled(pack, least)
    reads = [sum(len(row.keep) for row in one.rows) for one in (pack, more)]
    assert more.rows[: len(rows)] == rows
    assert more.prefix == pack.prefix
    assert more.tokens >= least
    assert reads[1] == max(reads[0], least)
    assert more.tokens <= max(pack.tokens + 1, least)
    assert all(0 <= at < len(row.ids) for row in more.rows for at in row.keep)
