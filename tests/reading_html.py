"""Is a page well formed, and where are its pictures from?"""

from html.parser import HTMLParser

EMPTY = {"img", "meta", "wbr", "line", "polygon", "polyline"}  # need no end tag, or end themselves


class Tags(HTMLParser):
    """Collects tags that are open, the sources of pictures, and the text outside the style sheet."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(data.strip())


def parsed(page: str) -> Tags:
    """The page's tags, every one of which is closed by its own end tag."""
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags
