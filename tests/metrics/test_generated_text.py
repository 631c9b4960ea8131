import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.metrics.captions import bleu, bleu_counts, cider, rouge_l, words
from weitiao.metrics.generated_text import METRICS, measure_texts
from weitiao.metrics.short_answers import anls, exact_match, vqa_accuracy, vqa_normal

ENGLISH = [
    ["a man rides a brown horse on the beach", "the man on a horse rides along the sea"],
    ["two dogs play with a red ball in the grass", "dogs are playing with a ball"],
    ["a plate of food on a wooden table", "some food and a fork on the table"],
    ["the bus stops at the corner of a busy street", "a red bus on a street", "people wait for the bus"],
]
CHINESE = [
    ["一个男人在沙滩上骑马"],
    ["两只狗在草地上玩红色的球"],
    ["木桌上放着一盘食物，还有叉子。"],
    ["公共汽车停在街角"],
]


def measure(predicted, references, metrics=tuple(METRICS)):
    return measure_texts(predicted, references, metrics, bootstrap=50, seed=0)


def corpus(seed, rows=60, vocabulary=25, references=(1, 5)):
    """Random answers of 4 to 15 words, half of them close to a reference, and their references."""
    rng = random.Random(seed)
    names = [f"w{i}" for i in range(vocabulary)]

    def text():
        return [names[min(int(rng.expovariate(0.15)), vocabulary - 1)] for _ in range(rng.randint(4, 15))]

    wanted = [[text() for _ in range(rng.randint(*references))] for _ in range(rows)]
    told = [text() if rng.random() < 0.5 else [w for w in row[0] if rng.random() < 0.8] for row in wanted]
    return [" ".join(t) for t in told], [[" ".join(r) for r in row] for row in wanted]


def coco(predicted, references):
    """As pycocoevalcap takes them."""
    return dict(enumerate(references)), {i: [text] for i, text in enumerate(predicted)}


def bleus(predicted, references):
    counts = bleu_counts(predicted, references).sum(axis=0)
    return [float(bleu(counts, n)) for n in (1, 2, 3, 4)]


# --- words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's 2 toys，狗的玩具。", "a dog s 2 toys 狗 的 玩 具"),
        ("ＧＰＴ４ 真好!", "gpt4 真 好"),
        ("iPhone手机x2", "iphone 手 机 x2"),
        ("コーヒーを飲む・々", "コ ー ヒ ー を 飲 む 々"),
        ("강아지가 놀아요.", "강아지가 놀아요"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("cafe\u0301 naïve", "café naïve"),
        ("𠮷野家", "𠮷 野 家"),
        ("snake_case, 3.5 $ 🐶\n…", "snake case 3 5"),
        ("", ""),
        ("。！？", ""),
    ],
)
def test_words(text, expected):
    assert words(text) == expected.split()


# --- against other implementations, on texts that their tokenizers split as `words` does


@pytest.mark.parametrize("seed", range(3))
def test_bleu_is_sacrebleus(seed):
    sacrebleu = pytest.importorskip("sacrebleu")
    predicted, references = corpus(seed)
    most = max(map(len, references))
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    for order, found in enumerate(bleus(predicted, references), start=1):
        oracle = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)
        assert found == pytest.approx(oracle.corpus_score(predicted, streams).score / 100, abs=1e-12)


def test_chinese_bleu_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    predicted = ["一个男人骑着马在沙滩上", "两只狗玩红色的球", "桌上放着一盘食物，还有刀。", "汽车停在街角上"]
    oracle = sacrebleu.BLEU(tokenize="zh", smooth_method="none")
    # Its "zh" keeps punctuation as words.
    bare = [["".join(words(text)) for text in texts] for texts in (predicted, [row[0] for row in CHINESE])]
    expected = oracle.corpus_score(bare[0], [bare[1]]).score / 100
    assert 0.2 < expected < 0.8
    assert bleus(predicted, CHINESE)[3] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_bleu_is_coco_captions(seed):
    scorer = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu(4)
    predicted, references = corpus(seed)
    # 1e-9 is added to its denominators.
    expected, _ = scorer.compute_score(*coco(predicted, references), verbose=0)
    assert bleus(predicted, references) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_cider_is_coco_captions(seed):
    scorer = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
    predicted, references = corpus(seed)
    _, expected = scorer.compute_score(*coco(predicted, references))
    assert expected.max() > 1
    assert cider(predicted, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_rouge_l_is_rouge_scores(seed):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    predicted, references = corpus(seed)
    predicted += ["The cat's on the mat!", "", "A man, a plan"]
    references += [["A cat sat on the mat."], ["something"], ["a plan; a man", "a man: the plan"]]
    expected = [scorer.score_multi(r, p)["rougeL"].fmeasure for p, r in zip(predicted, references, strict=True)]
    assert rouge_l(predicted, references) == pytest.approx(expected, abs=1e-12)


def test_rouge_l_with_coco_captions_beta_is_coco_captions():
    scorer = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge()
    predicted, references = corpus(0, references=(1, 1))
    _, expected = scorer.compute_score(*coco(predicted, references))
    assert rouge_l(predicted, references, beta=1.2) == pytest.approx(expected, abs=1e-12)


# --- by hand


def test_bleu_by_hand():
    # The example of Papineni et al.: "the" counts as often as one reference has it, twice.
    the = ["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]]
    assert bleus(*the) == [2 / 7, 0.0, 0.0, 0.0]
    # Two of two words and one of one bigram; three words wanted: exp(1 − 3/2).
    assert bleus(["a b"], [["a b c"]])[:2] == pytest.approx([math.exp(-0.5)] * 2)
    # Lengths 3 and 5 are equally near to 4: the shorter one counts, no penalty.
    assert bleus(["a b c x"], [["a b c", "a b c y z"]])[0] == 3 / 4
    # Sums over the corpus, not the mean of rows.
    assert bleus(["a", "b x y"], [["a"], ["b c d"]])[0] == 2 / 4


def test_rouge_l_by_hand():
    # Longest common subsequence "police the gunman" of 4 and 4 words (Lin 2004).
    assert rouge_l(["police ended the gunman"], [["police killed the gunman"]])[0] == 3 / 4
    assert rouge_l(["a b"], [["a b c d"]])[0] == pytest.approx(2 / 3)
    assert rouge_l(["a b"], [["a b c d"]], beta=2)[0] == pytest.approx(5 * 1 * 0.5 / (0.5 + 4 * 1))
    assert rouge_l(["a b"], [["x", "a b c d", "a c"]])[0] == pytest.approx(2 / 3)


def test_cider_by_hand():
    # Every n-gram occurs in one row of two, so all weigh ln 2, but "a" weighs 0. n = 1: answer b x, reference b c,
    # cosine 1/2; n = 2: {ab, bx} and {ab, bc}, 1/2; longer ones differ.
    found = cider(["a b x", "a d e"], [["a b c"], ["a d e"]])
    assert found == pytest.approx([10 * (1 / 2 + 1 / 2) / 4, 10 * 3 / 4])
    # One word more than in the reference: n = 1, 2/√(2·3); n = 2, 2/√(2·3); n = 3, 1/√2.
    expected = 10 * (2 * 2 / math.sqrt(6) + 1 / math.sqrt(2)) / 4 * math.exp(-1 / 72)
    assert cider(["a b c q", "a d e"], [["a b c"], ["a d e"]])[0] == pytest.approx(expected)


def test_cider_of_one_row_is_zero():
    assert cider(["a b c d"], [["a b c d"]])[0] == 0.0


def test_exact_match_by_hand():
    predicted = [" Paris\n", "paris", "the  dog", "cafe\u0301", "是。", "", None]
    references = [["Paris"], ["Paris"], ["a dog", "the dog"], ["café"], ["是"], [""], [""]]
    assert exact_match(predicted, references).tolist() == [1, 0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog, and two cats.", "dog and 2 cats"),
        ("None", "0"),
        ("Yes!", "yes"),
        ("black-and-white", "black and white"),
        ("black -white", "black white"),
        ("1,000/m", "1000m"),
        ("3.5 m.", "3.5 m"),
        ("dont", "don't"),
        ("couldnt've youd've yall'll", "couldn't've you'd've y'all'll"),
        ("it's 5:30", "it's 5:30"),
        ("a\tman\non  an  ox", "man on ox"),
        ("well, its wet", "well its wet"),
        ("红色", "红色"),
        ("The", ""),
    ],
)
def test_vqa_normal(text, expected):
    assert vqa_normal(text) == expected
    assert vqa_normal(expected) == expected


@pytest.mark.parametrize(
    ("humans", "expected"),
    # Of ten humans, m gave the answer: (10 − m)/10 · min(1, m/3) + m/10 · min(1, (m − 1)/3).
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_vqa_accuracy_of_ten_humans(humans, expected):
    wanted = ["Two."] * humans + ["three"] * (10 - humans)
    assert vqa_accuracy(["2"], [wanted])[0] == pytest.approx(expected)


def test_vqa_accuracy_of_few_humans():
    assert vqa_accuracy(["yes"] * 3, [["yes"], ["yes", "yes"], ["yes"] * 3]).tolist() == [1, 1, 1]
    assert vqa_accuracy(["yes"] * 2, [["no"], ["yes", "no"]]).tolist() == [0, 1 / 2]


def test_anls_by_hand():
    predicted = ["Kitten", "ab", "abc", "", "", "北京大学", None]
    references = [["sitting", "x"], ["AC"], ["axy"], [""], ["a"], ["北京大字"], [""]]
    # kitten → sitting: 3 edits of 7 characters; exactly 0.5 counts, 1/3 does not.
    assert anls(predicted, references) == pytest.approx([4 / 7, 0.5, 0, 1, 0, 3 / 4, 0])


# --- properties

short = st.text(alphabet="ab狗 ", max_size=12)
texts = st.lists(st.tuples(st.none() | short, st.lists(short, min_size=1, max_size=3)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_properties(rows):
    predicted, references = [told for told, _ in rows], [wanted for _, wanted in rows]
    found = measure(predicted, references)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(-1e-12 <= value <= 10 + 1e-9 for name, value in found.items() if name.startswith("cider"))
    rest = [v for name, v in found.items() if not name.startswith(("cider", "rows"))]
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in rest)
    assert measure(predicted[::-1], references[::-1]) == pytest.approx(found, abs=1e-12)
    assert found["rows"] == len(rows)
    assert found["invalid"] == pytest.approx(predicted.count(None) / len(rows))


@settings(max_examples=100, deadline=None)
@given(short, short)
def test_bit_parallel_tables_are_the_plain_ones(first, second):
    longer = max(map(len, (" ".join(first.split()), " ".join(second.split()))))
    edits, _ = plain_tables(" ".join(first.split()), " ".join(second.split()))
    similarity = 1 - edits / longer if longer else 1.0
    assert anls([first], [[second]])[0] == pytest.approx(similarity if similarity >= 0.5 else 0.0)
    _, common = plain_tables(words(first), words(second))
    total = len(words(first)) + len(words(second))
    assert rouge_l([first], [[second]])[0] == pytest.approx(2 * common / total if total else 0.0)


def plain_tables(first, second):
    """Levenshtein distance and length of the longest common subsequence, cell by cell."""
    edits = np.add.outer(np.arange(len(first) + 1), np.arange(len(second) + 1))
    common = np.zeros_like(edits)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            edits[i + 1, j + 1] = min(edits[i, j + 1] + 1, edits[i + 1, j] + 1, edits[i, j] + (a != b))
            common[i + 1, j + 1] = common[i, j] + 1 if a == b else max(common[i, j + 1], common[i + 1, j])
    return edits[-1, -1], common[-1, -1]


@pytest.mark.parametrize("rows", [ENGLISH, CHINESE])
def test_identical_text_is_perfect(rows):
    references = [row[:1] for row in rows]
    found = measure([row[0] for row in rows], references)
    for name in METRICS:
        best = 10.0 if name == "cider" else 1.0
        assert [found[name], found[f"{name}_low"], found[f"{name}_high"]] == pytest.approx([best] * 3)


def test_any_reference_is_perfect_for_those_that_take_the_best():
    found = measure([row[-1] for row in ENGLISH], ENGLISH)
    names = ["bleu_1", "bleu_4", "rouge_l", "exact_match", "anls"]
    assert [found[name] for name in names] == pytest.approx([1.0] * 5)


def test_no_answer_and_no_words_score_nothing():
    for told in (None, "", "。"):
        found = measure([told] * 4, ENGLISH)
        assert {found[f"{name}{end}"] for name in METRICS for end in ("", "_low", "_high")} == {0.0}
        assert found["invalid"] == float(told is None)


def test_interval_is_that_of_sums():
    predicted, references = corpus(0, rows=100)
    found = measure_texts(predicted, references, ["bleu_2", "rouge_l", "cider"], bootstrap=2000, seed=0)
    rng = np.random.default_rng(1)
    counts, rouges, ciders = (f(predicted, references) for f in (bleu_counts, rouge_l, cider))
    draws = rng.integers(100, size=(4000, 100))
    for name, values in (
        ("bleu_2", bleu(counts[draws].sum(axis=1), 2)),
        ("rouge_l", rouges[draws].mean(axis=1)),
        ("cider", ciders[draws].mean(axis=1)),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_only_what_is_asked_for():
    assert list(measure(["a"], [["a"]], ["anls"])) == ["anls", "anls_low", "anls_high", "invalid", "rows"]
    assert measure(["a", None], [["a"], ["b"]], []) == {"invalid": 0.5, "rows": 2}


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"unknown metric 'bleu'; choose from bleu_1, .*, cider, .*, anls"):
        measure(["a"], [["a"]], ["anls", "bleu"])
    with pytest.raises(ValueError, match="no rows"):
        measure([], [])
    with pytest.raises(ValueError, match="1 answers for 2 references"):
        measure(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="row 1: wanted a list of one or more references"):
        measure(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match=r"row 0: .* found 'a'"):
        measure(["a"], ["a"])
