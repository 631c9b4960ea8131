"""`weitiao report` from a shell: what it writes, prints, refuses and imports; and that `train` calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from report.made import made_run
from report.pages import checked
from runs import run_config, trained
from weitiao.report import page


def weitiao(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "weitiao.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_report_of_a_run(tmp_path: Path) -> None:
    made_run(tmp_path / "run")
    done = weitiao(tmp_path, "report", "run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "run/report.html\n", "")
    text = checked((tmp_path / "run" / "report.html").read_text("utf-8")).text
    assert "训练报告" in text
    done = weitiao(tmp_path, "report", "run", "--language", "en", "-o", "mine.html")
    assert (done.returncode, done.stdout) == (0, "mine.html\n")
    assert 'lang="en"' in (tmp_path / "mine.html").read_text("utf-8")


def test_comparison(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        made_run(tmp_path / name, "ner", seed=seed, overrides=[f"lora.r={8 + seed}"])
    done = weitiao(tmp_path, "report", "a", "b", "c")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("comparison.html\n")
    for word in ("f1", "difference", "lora.r", "271 s", "2.8 GiB"):
        assert word in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    checked((tmp_path / "comparison.html").read_text("utf-8"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no run here"),
        (["run", "nowhere"], "no run here"),
        (["run", "--language", "fr"], "choices: en, zh"),
        (["run", "-o", "missing/x.html"], "folder does not exist"),
        (["run", "-o", "run"], "is a folder"),
        (["run", "other"], "compare runs of one task"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    made_run(tmp_path / "run")
    made_run(tmp_path / "other", "ner")
    before = sorted(tmp_path.rglob("*"))
    done = weitiao(tmp_path, "report", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert words in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_no_torch(tmp_path: Path) -> None:
    runs = [str(made_run(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    script = (
        "import sys; from pathlib import Path; from weitiao.report.write import write\n"
        f"write([Path({runs[0]!r})], None, None); write([Path(r) for r in {runs!r}], Path('c.html'), None)\n"
        "print(*[m for m in ('torch', 'transformers', 'sklearn', 'pandas', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_training_leaves_a_report(tmp_path: Path, qwen2_folder: Path, ner_file: Path) -> None:
    run = trained(run_config(tmp_path, qwen2_folder, ner_file, "data.test=0.2", "evaluation.untuned=true"))
    text = checked((run / "report.html").read_text("utf-8")).text
    assert "F1" in text
    assert "最好的基线" not in text


def test_a_failing_report_fails_no_run(
    tmp_path: Path, qwen2_folder: Path, classification_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(page, "write_report", fail)
    run = trained(run_config(tmp_path, qwen2_folder, classification_file))
    assert (run / "metrics.json").is_file()
    assert not (run / "report.html").exists()
