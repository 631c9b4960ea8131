"""The shared prefix is the longest one that all prompts have as tokens, and never a whole prompt."""

from hypothesis import given
from hypothesis import strategies as st

from weitiao.data.prefix import common_prefix
from weitiao.types import Encoded

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
