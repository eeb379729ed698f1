#!/usr/bin/env python3
"""Build the documentation into site/, as `make docs` does.

The script copies the pages and the files that they link to into build/docs, in the layout of the repository.
So the same links work in both. After the build it fails if a page has a broken link or anchor, or loads a
file from another host.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import links

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"
SITE = ROOT / "site"
HOSTS = re.compile(rb"https?://(?:unpkg\.com|cdn\.jsdelivr\.net|api\.github\.com)/")
"""The hosts from which the theme's script loads optional features. None of those features is used here."""
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
METADATA = {"canonical", "alternate", "next", "prev"}
"""Kinds of `<link>` that a browser does not load."""


class Page(HTMLParser):
    """The anchors, links and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect the anchors, the link and the loaded file of a tag."""
        values = {name: value for name, value in attributes if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get(LOADS.get(tag, "")) and values.get("rel") not in METADATA:
            self.loads.append(values[LOADS[tag]])


def copy() -> None:
    """Copy the Markdown files and the files that they link to."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for source in links.tracked(ROOT):
        linked = (source.parent / unquote(urlsplit(target).path) for _, target in links.targets(source))
        for file in (source, *(path.resolve() for path in linked if path.is_file())):
            copied = PAGES / file.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copied)
    shutil.copyfile(ROOT / ".ci" / "site.css", PAGES / "site.css")


def cut_hosts() -> None:
    """Remove the hosts of optional features from the theme's scripts."""
    for script in SITE.rglob("*.js"):
        script.write_bytes(HOSTS.sub(b"/not-loaded/", script.read_bytes()))


def wrong() -> Iterator[str]:
    """Yield `page: reason` for each broken link and each file that a page loads from another host."""
    pages = {path: Page(path.read_text()) for path in SITE.rglob("*.html")}
    for path, page in pages.items():
        foreign = [target for target in page.loads if re.match(r"(?:https?:)?//", target)]
        yield from (f"{path.relative_to(ROOT)}: loads {target}" for target in foreign)
        if path.name != "404.html":  # its links start at the root of the host
            reasons = (broken(path, target, pages) for target in page.links)
            yield from (f"{path.relative_to(ROOT)}: {why}" for why in reasons if why)


def broken(path: Path, target: str, pages: dict[Path, Page]) -> str | None:
    """Return why a link of a page is broken, or None."""
    place = urlsplit(target)
    if place.scheme or place.netloc:
        return None
    file = (path.parent / unquote(place.path)).resolve() if place.path else path
    if not file.exists():
        return f"{target} does not exist"
    missing = place.fragment and file in pages and unquote(place.fragment) not in pages[file].anchors
    return f"{target} has no such anchor" if missing else None


def main() -> int:
    """Build and check the site, and return the exit status."""
    copy()
    shutil.rmtree(SITE, ignore_errors=True)
    paths = [str(ROOT / ".ci"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=ROOT, env=environment, check=False)  # noqa: S603 - it is constant
    if built.returncode:
        return built.returncode
    cut_hosts()
    lines = sorted(set(wrong()))
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
