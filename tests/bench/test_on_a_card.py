"""`bench/on_a_card.py`: what is left out and why, the end at a limit, and the bars out of records."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import card_bars  # noqa: E402
import card_plan  # noqa: E402
import on_a_card  # noqa: E402


def plan(tmp_path: Path, tiny: bool = False) -> list[card_plan.Measurement]:
    folders = {"folder": tmp_path / "card", "work": tmp_path / "work", "data": tmp_path / "data"}
    return card_plan.measurements(Namespace(weights="all", tiny=tiny, model="model", **folders))


def one(name: str, code: str, **more: Any) -> card_plan.Measurement:
    return card_plan.Measurement(name, (sys.executable, "-c", code), 5, 60, "", **more)


@pytest.mark.parametrize("tiny", [False, True])
def test_names_are_single_and_what_is_needed_comes_before(tmp_path: Path, tiny: bool) -> None:
    names = [each.name for each in plan(tmp_path, tiny)]
    assert len(set(names)) == len(names)
    for each in plan(tmp_path, tiny):
        assert each.after is None or names.index(each.after) < names.index(each.name)
        assert each.parts or each.seconds < each.limit


def test_json_is_the_whole_output_or_its_last_line() -> None:
    assert on_a_card.json_of('{\n "rows": []\n}\n') == {"rows": []}
    assert on_a_card.json_of('loading\n{"f1": 0.5}\n') == {"f1": 0.5}
    assert on_a_card.json_of("loading\n") is None


def test_a_process_is_ended_at_its_limit_and_what_it_wrote_is_kept(tmp_path: Path) -> None:
    record = on_a_card.measured(one("slow", "import time; print(1); time.sleep(60)"), 3, tmp_path)
    assert (record["status"], record["text"]) == ("limit", "1\n")


def test_what_is_left_out(tmp_path: Path) -> None:
    done, failed = ({"status": status, "found": None} for status in (0, 1))
    plain, later, parts = one("a", ""), one("a", "", after="b"), one("a", "", parts=True)
    assert on_a_card.left_out(plain, {}, 60, False) is None
    assert "needed" in str(on_a_card.left_out(plain, {}, 4, False))
    assert on_a_card.left_out(plain, {"a": done}, 60, False) == "there already"
    assert "failed" in str(on_a_card.left_out(plain, {"a": failed}, 60, False))
    assert on_a_card.left_out(plain, {"a": failed}, 60, True) is None
    assert "needs b" in str(on_a_card.left_out(later, {"b": failed}, 60, False))
    assert on_a_card.left_out(later, {"b": done}, 60, False) is None
    assert on_a_card.left_out(parts, {"a": {"status": 0, "found": {"left": 3}}}, 90, False) is None
    assert on_a_card.left_out(parts, {"a": {"status": 0, "found": {"left": 0}}}, 90, False) == "there already"


def test_several_cards_share_the_measurements(tmp_path: Path) -> None:
    """What needs another waits for it, and what wants to be alone is the last."""
    code = (
        "import json, os, time; time.sleep(0.3); print(json.dumps({'card': int(os.environ['CUDA_VISIBLE_DEVICES'])}))"
    )
    chosen = [one("alone", code, alone=True), one("a", code), one("b", code, after="a"), one("c", code)]
    asked = Namespace(folder=tmp_path, minutes=9, again=False, cards=2, together=1)
    on_a_card.carried_out(asked, chosen)
    found = on_a_card.records(tmp_path)
    assert {record["found"]["card"] for record in found.values()} == {0, 1}
    written = {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in found}
    assert written["a"] < written["b"]
    assert max(written, key=lambda name: written[name]) == "alone"
    assert found["alone"]["seconds"] >= 0.3


def test_what_tells_nothing_by_its_seconds_comes_later_and_shares_a_card(tmp_path: Path) -> None:
    meet = "import pathlib, time; open('{0}', 'w'); d = time.time() + 20\nwhile not pathlib.Path('{1}').exists(): "
    meet += "assert time.time() < d; time.sleep(0.01)"
    first, second = (meet.format(tmp_path / a, tmp_path / b) for a, b in ("xy", "yx"))
    chosen = [one("x", first, shared=True), one("y", second, shared=True), one("timed", "import time; time.sleep(0.3)")]
    on_a_card.carried_out(Namespace(folder=tmp_path, minutes=9, again=False, cards=1, together=2), chosen)
    found = on_a_card.records(tmp_path)
    assert [found[name]["status"] for name in ("timed", "x", "y")] == [0, 0, 0], "x and y wait for each other"
    assert (tmp_path / "timed.json").stat().st_mtime_ns < (tmp_path / "x").stat().st_mtime_ns


def test_a_queue_hands_out_what_can_be_done() -> None:
    """What a timed one needs comes with the timed ones."""
    first, second, third = (
        one("first", "", shared=True),
        one("second", "", after="first"),
        one("third", "", shared=True),
    )
    queue = on_a_card.Queue([third, second, first])
    assert queue.take(shared=False) is first
    queue.done(first)
    assert queue.take(shared=False) is second
    assert queue.take(shared=False) is None
    assert queue.take(shared=True) is third
    assert queue.take(shared=True) is None


def test_bars_out_of_records() -> None:
    def rows(count: int = 16, **speeds: float) -> list[dict[str, Any]]:
        named = {"profile": "ner", "samples_per_step": count}
        told = [{**named, "system": system, "samples_per_second": speed} for system, speed in speeds.items()]
        return [{**row, "high": row["samples_per_second"]} for row in told]

    found = {
        "train-16": {"found": {"rows": rows(weitiao=700.0, tutorial=10.0)}},
        "train-256": {"found": {"rows": rows(256, weitiao=1400.0, unsloth=100.0)}},
        "dropout": {"found": {"rows": rows(weitiao=630.0)}},
        "small-memory": {"text": "569 samples/s, 3.90 GiB held by torch"},
    }
    seen = {bar.what: bar.seen(found) for bar in card_bars.BARS if bar.what.startswith(("6 NER-like", "6 5 GiB"))}
    assert seen["6 NER-like, best, × Unsloth's best"] == 14
    assert seen["6 NER-like, 16 a step, × tutorial"] == 70
    assert seen["6 NER-like, 16 a step, × Unsloth"] is None
    assert seen["6 5 GiB allowed, GiB held"] == 3.9
    assert card_bars.dropout(found) == 0.9


def test_curves_that_held() -> None:
    def case(truth: float) -> dict[str, Any]:
        return {"found": {"cases": [{"held": {"2": [0.2, 0.1, 0.3, truth], "4": [0.2, 0.1, 0.3, 0.9]}}]}}

    found = {"held-back-daily-1": case(0.3), "held-back-daily-2": case(0.31), "held-back-reviews-1": {"found": None}}
    assert card_bars.held_back(found, "held-back-daily") == 0.5
    assert card_bars.held_back(found, "held-back-reviews") is None
