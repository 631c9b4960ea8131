"""English sentences of film reviews → `{"text": "Too tepid a biopic", "label": "negative"}` or `"positive"`.

The source has a sentence's mean rating by about 20 people, from -4 to 4. Sentences that they found neither good nor
bad are left out.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from weitiao.data.fetch.product_reviews import distinct, split
from weitiao.hub import package_index

NOTICE = """\
Sentences from English film reviews, labelled positive or negative.

Built on this machine by `weitiao data fetch movie-reviews` from the source archive of the Python package
vaderSentiment 3.3.2 (https://pypi.org/project/vaderSentiment/, MIT License, Copyright (c) 2016 C.J. Hutto), which holds
the ratings behind Hutto and Gilbert (2014), VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text. The package does not state the rights in the reviews' text: do not redistribute these files.

A sentence is positive when its mean rating is at least 0.5 and negative when it is at most -0.5; the others,
repetitions and sentences under both labels are left out. The split is drawn at random, 8 : 1 : 1 for each label.
"""

PACKAGE = (
    "vaderSentiment",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATINGS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
CLEAR = 0.5
"""Least distance of a mean rating from 0 at which a sentence gets a label."""


def build(root: Path) -> dict[str, str]:
    """{"train.jsonl": …, "validation.jsonl": …, "test.jsonl": …} of the archive, which is kept in `root`."""
    archive = package_index.fetch(*PACKAGE, into=root)
    with package_index.open_member(archive, INNER) as inner, tarfile.open(fileobj=io.BytesIO(inner.read())) as files:
        source = files.extractfile(RATINGS)
        assert source is not None, f"{RATINGS} is no plain file"
        text = source.read().decode("utf-8")
    return {
        f"{name}.jsonl": "".join(
            json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows
        )
        for name, rows in split(distinct(labelled(text))).items()
    }


def labelled(text: str) -> dict[str, list[str]]:
    """Sentences by label, of lines `number⇥mean rating⇥sentence`."""
    found: dict[str, list[str]] = {"negative": [], "positive": []}
    for line in text.splitlines():
        _, rating, sentence = line.split("\t", 2)
        if abs(float(rating)) >= CLEAR:
            found["positive" if float(rating) > 0 else "negative"].append(sentence)
    return found
