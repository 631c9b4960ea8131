"""Bins and coverage: equal to what metrics.json says, and to a count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.made import classification_rows, made_run
from weitiao.report import certainty
from weitiao.report.run import read_run

PAIRS = st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 0.2, 1 / 3, 1.0]), st.booleans()), min_size=1)


@pytest.mark.parametrize("kind", ["classification", "multi_label", "ner"])
def test_bins_recompute_the_calibration_error(runs: dict[str, Path], kind: str) -> None:
    run = read_run(runs[kind])
    bins = certainty.bins(certainty.calibrated(run))
    assert calibration_error(bins) == pytest.approx(run.own["ece"], abs=1e-9)
    assert sum(b.count for b in bins) == len(run.rows)
    raw = certainty.uncalibrated(run)
    if kind == "classification":  # of three labels, whose other probabilities the file does not hold
        assert raw is None
    else:
        assert raw is not None
        error = calibration_error(certainty.bins(raw))
        assert error == pytest.approx(run.own["ece_uncalibrated"], abs=1e-9)


def test_two_labels_tell_the_raw_probability(tmp_path: Path) -> None:
    run = read_run(made_run(tmp_path / "run", rows=classification_rows(50, ("好", "坏"))))
    raw = certainty.uncalibrated(run)
    assert raw is not None
    assert calibration_error(certainty.bins(raw)) == pytest.approx(run.own["ece_uncalibrated"], abs=1e-9)


@given(PAIRS)
def test_bins_hold_each_answer_once(pairs: list[tuple[float, bool]]) -> None:
    bins = certainty.bins(pairs)
    assert sum(b.count for b in bins) == len(pairs)
    for b in bins:
        inside = [right for p, right in pairs if b.low - 1e-9 < max(p, 1e-12) <= b.high + 1e-9]
        assert b.count <= len(inside)
        assert 0 <= b.accuracy <= 1


@given(PAIRS, st.integers(0, 5))
def test_coverage_is_what_is_left(pairs: list[tuple[float, bool]], without: int) -> None:
    rows = len(pairs) + without
    for point in (*certainty.coverage(pairs, rows), *certainty.at_thresholds(pairs, rows)):
        given_ = [right for p, right in pairs if p >= point.threshold]
        assert point.given == len(given_)
        assert point.coverage == len(given_) / rows
        assert point.accuracy == pytest.approx(sum(given_) / len(given_))
    assert certainty.coverage(pairs, rows)[-1].given == len(pairs)
    assert certainty.at_thresholds(pairs, rows)[0].given == len(pairs)


def calibration_error(found: list[certainty.Bin]) -> float:
    """Expected calibration error of the bins, Σ |B|/n · |accuracy − probability|."""
    rows = sum(b.count for b in found)
    return sum(b.count * abs(b.accuracy - b.probability) for b in found) / max(rows, 1)
