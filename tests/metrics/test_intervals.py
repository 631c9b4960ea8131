import numpy as np
import pytest
from sklearn.metrics import f1_score

from weitiao.metrics import intervals
from weitiao.metrics.classification import f1
from weitiao.metrics.intervals import bootstrap, paired_difference, with_interval


def mean(counts):
    return counts[..., 0] / counts[..., 1]


def hits(values):
    return np.column_stack([values, np.ones_like(values)])


def documents(seed, rows=60):
    """Counts of true positives, false positives and misses of some documents, [rows, 3]."""
    return np.random.default_rng(seed).poisson([3, 1, 1], size=(rows, 3))


def test_by_hand():
    # Of two rows, one right: a resample has mean 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    assert bootstrap(hits(np.array([0, 1])), mean, resamples=1000, seed=0) == (0.5, 0.0, 1.0)


def test_rows_that_are_equal_have_no_spread():
    assert bootstrap(hits(np.ones(50)), mean, resamples=100, seed=0) == (1.0, 1.0, 1.0)


def test_interval_of_a_share_is_the_binomials():
    # Resampled hits are binomial(200, 0.3): its 2.5 % and 97.5 % quantiles are 48 and 73.
    value, low, high = bootstrap(hits(np.arange(200) < 60), mean, resamples=20_000, seed=0)
    assert value == 0.3
    assert low == pytest.approx(48 / 200, abs=0.5 / 200)
    assert high == pytest.approx(73 / 200, abs=0.5 / 200)


def test_same_as_scikit_learn_on_rows_drawn_again():
    """Spell out every resample as rows and let scikit-learn measure it."""
    rng = np.random.default_rng(0)
    reference, answer = rng.integers(2, size=40), rng.integers(2, size=40)
    counts = np.column_stack([reference & answer, ~reference & answer & 1, reference & ~answer & 1])
    found = bootstrap(counts, f1, resamples=200, seed=5)

    kinds, first, times = np.unique(counts, axis=0, return_index=True, return_counts=True)
    assert len(kinds) == 4
    values = []
    for weights in np.random.default_rng(5).multinomial(40, times / 40, size=200):
        rows = np.repeat(first, weights)
        values.append(f1_score(reference[rows], answer[rows], zero_division=0.0))
    assert found == pytest.approx((f1_score(reference, answer), *np.quantile(values, [0.025, 0.975])))


def test_close_to_naive_resampling():
    counts = documents(1)
    rng = np.random.default_rng(2)
    naive = [float(f1(counts[rng.integers(60, size=60)].sum(axis=0))) for _ in range(10_000)]
    _, low, high = bootstrap(counts, f1, resamples=10_000, seed=3)
    assert (low, high) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.004)


def test_chunks_do_not_change_the_draws(monkeypatch):
    whole = bootstrap(documents(1), f1, resamples=257, seed=0)
    monkeypatch.setattr(intervals, "CELLS", 1000)
    assert bootstrap(documents(1), f1, resamples=257, seed=0) == pytest.approx(whole, rel=1e-12)


def test_a_row_that_stands_for_several_is_as_good_as_their_copies():
    counts = np.unique(documents(1), axis=0)
    times = np.arange(1, len(counts) + 1)
    expected = bootstrap(np.repeat(counts, times, axis=0), f1, resamples=200, seed=0)
    assert bootstrap(counts, f1, resamples=200, seed=0, times=times) == expected


def test_order_of_the_rows_does_not_matter_and_the_seed_does():
    counts = documents(1)
    found = bootstrap(counts, f1, resamples=200, seed=0)
    assert bootstrap(counts[::-1], f1, resamples=200, seed=0) == found
    assert bootstrap(counts, f1, resamples=200, seed=1) != found


def test_covers_the_truth():
    """Of 95 % intervals about 95 % hold the true value; 400 draws of 150 rows leave ± 3.3 points at 3 sigma."""
    truth, rng = 0.7, np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        _, low, high = bootstrap(hits(rng.random(150) < truth), mean, resamples=400, seed=seed)
        covered += low <= truth <= high
    assert 0.905 <= covered / 400 <= 0.985


def test_no_rows():
    with pytest.raises(ValueError, match="no rows"):
        bootstrap(np.zeros((0, 3)), f1, resamples=100, seed=0)


def test_named():
    counts = documents(1)
    value, low, high = bootstrap(counts, f1, resamples=100, seed=0)
    assert with_interval("f1", counts, f1, resamples=100, seed=0) == {"f1": value, "f1_low": low, "f1_high": high}


def test_paired_difference_is_that_of_the_same_resamples():
    first, second = documents(1), documents(2)
    value, low, high = paired_difference(first, second, f1, resamples=2000, seed=0)
    assert value == pytest.approx(float(f1(first.sum(axis=0)) - f1(second.sum(axis=0))))
    assert low < value < high
    assert paired_difference(first, first, f1, resamples=100, seed=0) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(first, second[1:], f1, resamples=100, seed=0)
