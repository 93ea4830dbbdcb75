"""Check a built site offline: internal links and anchors lead somewhere, nothing is loaded from elsewhere.

python docs/check_links.py docs/_build/html
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser fetches by itself, as against a link that a reader may follow.
LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses and the anchor of a tag."""
        found = {key: value or "" for key, value in attrs}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag in LOADS and LOADS[tag] in found:
            self.loads.add(found[LOADS[tag]])
        elif tag == "link" and LOADING_LINKS & set(found.get("rel", "").split()):
            self.loads.add(found.get("href", ""))
        elif tag in ("a", "link") and "href" in found:
            self.links.add(found["href"])


def check(site: Path) -> list[str]:
    """Every fault of the site, one line each: ``page: what``."""
    site = site.resolve()
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    faults = [f"{path.relative_to(site)}: {fault}" for path in pages for fault in _faults(path, pages)]
    for style in sorted(site.rglob("*.css")):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", style.read_text())
        faults += [f"{style.relative_to(site)}: loads {address}" for address in found]
    return faults


def _faults(path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    page = pages[path]
    yield from (f"loads {address}" for address in sorted(page.loads) if urlsplit(address).netloc)
    for address in sorted(page.links | page.loads):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc or not address:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.exists():
            yield f"no file for {address}"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"no anchor for {address}"


def main(argv: Sequence[str]) -> int:
    """Print the faults; exit code 1 if there are any, 2 if there is no site."""
    site = Path(argv[0] if argv else "docs/_build/html")
    if not (site / "index.html").exists():
        print(f"no site in {site}: run make docs first", file=sys.stderr)
        return 2
    faults = check(site)
    good = f"{len(list(site.rglob('*.html')))} pages: every internal link and anchor leads somewhere"
    print("\n".join(faults) or f"{good}, nothing is loaded from elsewhere")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
