"""In a real browser: no page is wider than the screen, on a phone or on a desk."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from report.made import classification_rows, made_run, ner_rows
from weitiao.report.comparison_page import write_comparison
from weitiao.report.page import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FRAME = """<iframe id="f" src="{page}" style="border:0;width:{width}px;height:800px"></iframe><script>
f.onload = () => {{
  const e = f.contentDocument.documentElement;
  document.title = `${{e.scrollWidth}} ${{e.clientWidth}}`;
}};
</script>"""
"""A window is never narrower than about 500 px; a frame is."""


def widths(page: Path, width: int, folder: Path) -> tuple[int, int]:
    """Width of a page's content and of its view, in CSS pixels."""
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(page=page.as_uri(), width=width), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    options += [f"--user-data-dir={folder}/user", "--window-size=1400,900", "--virtual-time-budget=3000", "--dump-dom"]
    command = [str(BROWSER), *options, frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert found is not None, done.stdout[:500]
    return int(found[1]), int(found[2])


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium")
@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_scrolls_sideways(tmp_path: Path, width: int) -> None:
    labels = [f"<长长长长长长长长长长长长的类别 {i}>" for i in range(45)]
    rows = [dict(row, text=row["text"] + "x" * 500) for row in classification_rows(300, labels)]
    many = made_run(tmp_path / ("classification" * 9), rows=rows, model="https-like/" + "m" * 120)
    ner = [made_run(tmp_path / f"ner{i}" / ("n" * 90), "ner", ner_rows(60), seed=i) for i in range(3)]
    pages = [write_report(many, language="en"), write_report(many, language="zh"), write_report(ner[0])]
    write_comparison(ner, tmp_path / "comparison.html")
    for page in [*pages, tmp_path / "comparison.html"]:
        assert widths(page, width, tmp_path) == (width, width), page
