"""Warm-up by steps, or by a share of them."""

import pytest

from weitiao.config import load_config
from weitiao.errors import ConfigError
from weitiao.training.schedule import learning_rate_shares

SMALL = {"task": {"name": "ner"}, "model": {"name": "m"}, "data": {"train": "t"}}


@pytest.mark.parametrize(("share", "steps"), [(0.1, 10), (0.05, 5), (0.001, 1), (0, 0)])
def test_a_share_of_the_steps_is_rounded_up(share, steps):
    by_share, by_steps = (learning_rate_shares("cosine", warmup, 100) for warmup in (share, steps))
    assert [by_share(step) for step in range(100)] == [by_steps(step) for step in range(100)]


@pytest.mark.parametrize(("given", "wanted"), [(5, 5), (5.0, 5), (0, 0), (0.0, 0), (0.1, 0.1), ("0.1", 0.1)])
def test_what_a_config_takes(given, wanted):
    found = load_config({**SMALL, "training": {"warmup_steps": given}}).training.warmup_steps
    assert (found, type(found)) == (wanted, type(wanted))


def test_half_a_step_is_refused():
    with pytest.raises(ConfigError, match=r"`training\.warmup_steps` = 2\.5: wanted a whole number"):
        load_config({**SMALL, "training": {"warmup_steps": 2.5}})
