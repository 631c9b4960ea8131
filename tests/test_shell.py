"""Commands as they are printed: what a shell makes of them is what was meant."""

from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st

from weitiao.shell import typed


def test_letters_of_any_script_need_no_quotes() -> None:
    assert typed("weitiao", "check", "评论.yaml") == "weitiao check 评论.yaml"
    assert typed("weitiao", "check", "my reviews.yaml", "a={b: 1}") == "weitiao check 'my reviews.yaml' 'a={b: 1}'"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1))
def test_a_shell_takes_it_apart_again(words: list[str]) -> None:
    assert shlex.split(typed(*words)) == words
