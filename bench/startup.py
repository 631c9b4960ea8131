"""How long `weitiao --help` takes beyond a bare interpreter, and the first answer of a run.

    python bench/startup.py [--runs 10] [--answers-of RUN]

Prints the medians in seconds, each command run in turn so that both see the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

BARE = [sys.executable, "-c", "pass"]
COMMANDS = {
    "weitiao --help": [sys.executable, "-m", "weitiao.cli", "--help"],
    "weitiao train --help": [sys.executable, "-m", "weitiao.cli", "train", "--help"],
    "weitiao train (no such config)": [sys.executable, "-m", "weitiao.cli", "train", "missing.yaml"],
}
PREDICT = [sys.executable, "-m", "weitiao.cli", "predict"]
ROW = "今天的手机很好，非常满意。\n".encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--answers-of", metavar="RUN", help="a run folder that answers texts")
    asked = parser.parse_args()
    runs, commands = asked.runs, {"python -c pass": BARE, **COMMANDS}
    if asked.answers_of:
        commands["python -c 'import torch'"] = [sys.executable, "-c", "import torch"]
        commands["weitiao predict (one row)"] = [*PREDICT, asked.answers_of, "-"]
    for command in commands.values():
        seconds(command)  # fills the disk cache
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(seconds(command))
    bare = statistics.median(times["python -c pass"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:32} {median:.3f} s   +{median - bare:.3f} s   ({min(found):.3f} to {max(found):.3f})")


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, input=ROW, capture_output=True, check=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
