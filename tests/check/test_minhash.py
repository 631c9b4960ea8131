"""MinHash beside the exact Jaccard index, on random texts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from weitiao.check.meetings import Meetings
from weitiao.check.minhash import bands, jaccard, shingles
from weitiao.check.table import digest

LETTERS = {"zh": "".join(map(chr, range(0x4E00, 0x5200))), "en": "etaoin shrdlu"}
SIZE = {"zh": 3, "en": 5}


def texts(language: str, count: int, seed: int, length: int = 200) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(LETTERS[language], k=length)) for _ in range(count)]


def edited(text: str, edits: int, rng: random.Random) -> str:
    letters = list(text)
    for at in rng.sample(range(len(letters)), edits):
        letters[at] = rng.choice("甲乙丙丁")
    return "".join(letters)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_pairs_above_the_threshold_meet_and_others_do_not(language: str) -> None:
    rng = random.Random(1)
    size, first = SIZE[language], texts(language, 2_000, 0)
    second = [edited(text, at % 80, rng) for at, text in enumerate(first)]
    similar = np.array(
        [jaccard(shingles(one, size), shingles(two, size)) for one, two in zip(first, second, strict=True)]
    )
    met = (bands(first, size) == bands(second, size)).any(axis=1)
    assert met[similar >= 0.8].mean() >= 0.99
    assert (similar >= 0.8).sum() > 100
    assert met[similar < 0.3].mean() <= 0.05


def test_texts_that_have_nothing_in_common_do_not_meet() -> None:
    found = meetings(texts("zh", 2_000, 3))
    assert len(found[0]) <= 2


def test_a_hash_does_not_depend_on_the_batch() -> None:
    some = [*texts("zh", 5, 4), "短", "", "ab", "\U00020000" * 9, *texts("en", 3, 5, 17)]
    together = bands(some, 3)
    assert np.array_equal(together, np.concatenate([bands([text], 3) for text in some]))


def test_planted_pairs_are_found_with_their_numbers() -> None:
    some = texts("zh", 300, 6)
    some[250], some[251] = some[10] + "啊", some[10] + "呀"
    found, left_out = meetings(some)
    assert {(10, 250), (10, 251)} <= {tuple(pair) for pair in found.tolist()}
    assert left_out == 0


def test_only_wanted_rows_meet() -> None:
    some = texts("zh", 20, 7)
    some[15] = some[2] + "啊"
    assert [tuple(pair) for pair in meetings(some, wanted=range(15))[0].tolist()] == []


def test_many_copies_give_few_pairs() -> None:
    assert len(meetings([LETTERS["zh"][:100]] * 1_000)[0]) < 2_000


def test_above_the_limit_a_sample_by_text_is_taken() -> None:
    some = texts("zh", 400, 8) * 2
    kept = Meetings(3, most=200)
    kept.add(range(800), [digest(text) for text in some], some)
    assert 0 < kept.share < 1
    pairs, _ = kept.pairs(np.arange(800))
    sample = {at for at, text in enumerate(some) if digest(text) <= kept.limit}
    assert len(sample) <= 200
    assert {tuple(pair) for pair in pairs.tolist()} == {(at, at + 400) for at in sample if at < 400}
    kept.close()


def test_the_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = Meetings(3)
    kept.add([0], [0], ["很长的一段文字"])
    assert list(tmp_path.iterdir())
    kept.close()
    assert list(tmp_path.iterdir()) == []


def meetings(some: list[str], wanted: range | None = None) -> tuple[np.ndarray, int]:
    kept = Meetings(3)
    for start in range(0, len(some), 128):
        part = some[start : start + 128]
        kept.add(range(start, start + len(part)), [digest(text) for text in part], part)
    found = kept.pairs(np.array(wanted if wanted is not None else range(len(some))))
    kept.close()
    return found
