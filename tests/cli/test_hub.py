"""A model and a data file that are named as they are on the hubs: fetched by the first command, then used from disk."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fake_hubs import FakeHubs


@pytest.mark.slow
def test_train_and_predict_with_what_the_hubs_have(work: Path, command: list[str], environment: dict[str, str]) -> None:
    rows = (work / "rows.jsonl").read_bytes()
    with FakeHubs() as hubs:
        hubs.add("Org/Tiny-Qwen2", {path.name: path.read_bytes() for path in (work / "model").iterdir()})
        hubs.add("Org/Rows", {"data/rows.jsonl": rows}, kind="dataset")
        user = {name: value for name, value in environment.items() if not name.endswith("_OFFLINE")}
        user |= hubs.environment | {"HOME": str(work / "home")}

        def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(
                [*command, *arguments], cwd=work, env=user | variables, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr
            return done

        names = ["model.name=Org/Tiny-Qwen2", "data.train=hf:Org/Rows/data/rows.jsonl"]
        told = run("train", "config.yaml", *names).stderr
        assert told.count("downloading Org/Tiny-Qwen2 from ModelScope") == 1
        assert told.count("downloading Org/Rows from Hugging Face") == 1
        recorded = json.loads((work / "output/run/data.json").read_text("utf-8"))
        assert list(recorded["files"]) == ["hf:Org/Rows/data/rows.jsonl"]
        hubs.log.clear()
        answers = run("predict", "output/run", "rows.jsonl", WEITIAO_OFFLINE="1").stdout.splitlines()
        assert len(answers) == len(rows.splitlines())
        assert not hubs.log
