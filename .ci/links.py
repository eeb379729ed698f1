#!/usr/bin/env python3
"""Check the relative links and anchors of every Markdown file.

Usage: .ci/links.py [FILE ...]   (all *.md files that git tracks, if no file is given)

Prints one line per broken link, `path:line: reason`, and exits with 1 if there is one. It skips links
to other hosts, and expects the anchors that GitHub makes from headings.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

FENCE = re.compile(r"^[ >]*(`{3,}|~{3,})")
HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$|^ {0,3}([^\s#>|-].*)\n {0,3}(?:=+|-+)[ \t]*$", re.MULTILINE
)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
DESTINATION = r"<[^>\n]*>|[^\s()]*(?:\([^\s()]*\)[^\s()]*)*"
INLINE = re.compile(rf"\]\(\s*({DESTINATION})(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[([^\]^][^\]]*)\]:[ \t]*(\S+)", re.MULTILINE)
REFERENCE = re.compile(r"\[[^\[\]]+\]\[([^\[\]]*)\]")
ATTRIBUTE = re.compile(
    r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=[\"']\s*([^\"'\s][^\"']*)[\"']", re.IGNORECASE
)
IDENTIFIER = re.compile(r"<\w+\b[^>]*?\b(?:id|name)=[\"']([^\"']+)[\"']", re.IGNORECASE)
SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
LINES = re.compile(r"^L\d+(?:-L\d+)?$")


def blank(match: re.Match[str]) -> str:
    """Replace a match with spaces but keep its line breaks, so that line numbers stay the same."""
    return re.sub(r"[^\n]", " ", match.group())


@cache
def prose(path: Path) -> str:
    """Return a Markdown file without its code blocks and comments, line for line."""
    lines = []
    fence = ""
    for line in path.read_text().splitlines():
        mark = FENCE.match(line)
        inside = bool(fence)
        if mark and not fence:
            fence = mark.group(1)
            inside = True
        elif mark and mark.group(1).startswith(fence) and line.strip(" >").strip(fence[0]) == "":
            fence = ""
        lines.append("" if inside else line)
    return COMMENT.sub(blank, "\n".join(lines))


def slug(heading: str) -> str:
    """Return GitHub's anchor of a heading: lower case, no punctuation, a hyphen for each space."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", heading)
    text = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text)
    text = re.sub(r"<[^>]+>", "", text)
    text = re.sub(r"(?<!\w)(_{1,3})(?=\S)(.+?)(?<=\S)\1(?!\w)", r"\2", text)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors of a Markdown file. Repeated headings get the suffixes -1, -2 and so on."""
    text = prose(path)
    found = set(IDENTIFIER.findall(CODE.sub(blank, text)))
    seen: Counter[str] = Counter()
    for heading in HEADING.finditer(text):
        name = slug(heading.group(1) or heading.group(2))
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return frozenset(found)


def targets(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and target of each link. The target of a reference without a definition is `[name]`."""
    text = CODE.sub(blank, prose(path))
    definitions = {name.lower() for name, _ in DEFINITION.findall(text)}
    found = [(match.start(), match.group(1).strip("<>")) for match in INLINE.finditer(text)]
    found += [(match.start(), match.group(2).strip("<>")) for match in DEFINITION.finditer(text)]
    found += [(match.start(), match.group(1).split()[0]) for match in ATTRIBUTE.finditer(text)]
    for match in REFERENCE.finditer(text):
        name = match.group(1) or match.group()[1:-3]
        if name.lower() not in definitions:
            found.append((match.start(), f"[{name}]"))
    for start, target in sorted(found):
        yield text.count("\n", 0, start) + 1, target


def reason(path: Path, target: str, root: Path) -> str | None:
    """Return why a link is broken, or None."""
    place, _, anchor = target.partition("#")
    file = (path.parent / unquote(place)).resolve() if place else path.resolve()
    if SCHEME.match(target):
        return None
    if target.startswith("["):
        return f"{target} has no definition"
    if place.startswith("/"):
        return f"{target} starts with a slash; write it relative to this file"
    if not file.is_relative_to(root):
        return f"{target} is outside of the repository"
    if not file.exists():
        return f"{target} does not exist"
    return None if not anchor or has_anchor(file, unquote(anchor)) else f"{target} has no such anchor"


def has_anchor(file: Path, anchor: str) -> bool:
    """Return whether a file has an anchor. Except in Markdown, GitHub's anchors are line numbers."""
    return anchor in anchors(file) if file.suffix == ".md" else bool(LINES.match(anchor))


def broken(paths: list[Path], root: Path) -> Iterator[str]:
    """Yield `path:line: reason` for each broken link."""
    for path in paths:
        for line, target in targets(path):
            why = reason(path, target, root.resolve())
            if why:
                yield f"{path}:{line}: {why}"


def tracked(root: Path) -> list[Path]:
    """Return the Markdown files that git tracks."""
    command = ["git", "-C", str(root), "ls-files", "*.md"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - it is constant
    return [root / name for name in listed.stdout.splitlines()]


def main(names: list[str]) -> int:
    """Print the broken links of the files, and return the exit status."""
    root = Path(__file__).parents[1]
    if not names:
        names = [str(path) for path in tracked(root)]
    lines = list(broken([path for name in names if (path := Path(name)).exists()], root))
    for line in lines:
        print(line.removeprefix(f"{root}/"))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
