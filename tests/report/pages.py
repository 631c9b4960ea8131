"""A page as a test reads it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

LOADING = ("href", "xlink:href", "src", "srcset", "action", "data", "poster", "background")
JPEG = "data:image/jpeg;base64,"
VOID = {"meta", "br", "hr", "img", "input", "link", "use", "path"}


class Page(HTMLParser):
    """Checks that elements are closed in the order in which they were opened; keeps ids, links and the plain text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.values: list[str] = []
        self.tags: set[str] = set()
        self.scripts: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        self.targets += [str(value) for name, value in attrs if value and name in LOADING]
        self.values += [str(value) for name, value in attrs if value and name not in ("title", "aria-label", *LOADING)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self._text.append(data)


def checked(html: str) -> Page:
    """The page, once it is sure that it is well formed and loads nothing."""
    page = Page(html)
    assert len(page.ids) == len(set(page.ids)), sorted(name for name in page.ids if page.ids.count(name) > 1)
    inside = [target for target in page.targets if not target.startswith(JPEG)]
    assert [target for target in inside if not target.startswith("#")] == []
    assert {target[1:] for target in inside} <= set(page.ids)
    for value in [*page.values, *page.scripts]:
        assert not re.search(r"https?:|@import|src:|fetch|XMLHttp|WebSocket|import\(|^ *//[a-z]", value), value
        for url in re.findall(r"url\(([^)]*)\)", value):
            assert url.startswith("#"), url
    assert not page.tags & {"link", "iframe", "object", "embed", "base", "audio", "video", "form"}
    return page
