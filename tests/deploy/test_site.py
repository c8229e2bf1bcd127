"""The site as MkDocs has built it, in ``TESSERA_SITE``: its links, and how it looks on a phone and in the dark."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser

SITE = Path(os.environ.get("TESSERA_SITE", "."))
PHONE = 390
CONTRAST = 4.5
"""Of text to what is behind it, as WCAG wants it."""

pytestmark = pytest.mark.skipif("TESSERA_SITE" not in os.environ, reason="TESSERA_SITE names no site")


class Reader(HTMLParser):
    """What a page links to, what can be linked to in it, and how it is made."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names |= {name for name in (given.get("id"), given.get("name")) if name}
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        wanted = given.get("src") or (given.get("href") if tag == "link" else None)
        if wanted:
            self.loaded.append(wanted)


def pages() -> dict[Path, Reader]:
    return {path: Reader(path) for path in sorted(SITE.rglob("*.html"))}


def test_every_link_leads_somewhere() -> None:
    read = pages()
    assert len(read) > 40
    there_is = {path.resolve(): page for path, page in read.items()}
    broken = []
    for path, page in read.items():
        if path.name == "404.html":  # is shown at any address
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            there = there / "index.html" if there.is_dir() else there
            known = there_is.get(there) if parts.fragment else None
            missing = parts.fragment and known is not None and unquote(parts.fragment) not in known.names | {"__skip"}
            if not there.exists() or missing:
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere() -> None:
    outside = {link for page in pages().values() for link in page.loaded if urlsplit(link).netloc}
    assert outside == set()


WIDE = """() => {
  const inScroller = e => { for (; e; e = e.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)) return true; return false; };
  return [document.documentElement.scrollWidth,
    [...document.querySelectorAll('.md-content *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
      && !inScroller(e.parentElement)).slice(0, 3).map(e => e.outerHTML.slice(0, 120))];
}"""

FAINT = """least => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const over = (top, under) => top.length < 4 ? top
    : top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  const behind = e => { const stack = [];
    for (; e; e = e.parentElement) stack.push(parse(getComputedStyle(e).backgroundColor));
    return stack.reverse().reduce((under, top) => top.length ? over(top, under) : under, [255, 255, 255]); };
  const empty = [...document.querySelectorAll('svg.drawing')].filter(d => !d.querySelector('text'));
  const found = empty.map(() => 'a drawing');
  const texts = ['p', 'li', 'td', 'code'].map(tag => '.md-content ' + tag).join(', ');
  for (const e of document.querySelectorAll(texts + ', svg.drawing text')) {
    if (!e.textContent.trim() || !e.getClientRects().length) continue;
    const back = behind(e.closest('svg') ? e.closest('svg').parentElement : e);
    const style = getComputedStyle(e);
    const ink = over(parse(e.closest('svg') ? style.fill : style.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < least) found.push(e.textContent.trim().slice(0, 60));
  }
  return found.slice(0, 5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page_fits_a_phone_and_can_be_read(browser: Browser, scheme: str) -> None:
    """No page is wider than the phone, nothing juts out of its column but what scrolls, and all text has contrast."""
    phone = browser.new_context(viewport={"width": PHONE, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    page = phone.new_page()
    page.set_default_timeout(120_000)  # a busy machine is no fault of a page
    wrong = []
    for path in sorted(SITE.rglob("*.html")):
        page.goto(path.resolve().as_uri())
        width, wide = page.evaluate(WIDE)
        faint = page.evaluate(FAINT, CONTRAST)
        if width > PHONE or wide or faint:
            wrong.append((str(path.relative_to(SITE)), width, wide, faint))
    phone.close()
    assert wrong == []
