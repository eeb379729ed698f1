#!/usr/bin/env python3
"""Check the language of documentation, docstrings, comments and messages against the ten rules of plain English.

Usage: .ci/prose.py [PATH ...]   (all files that git tracks, if no path is given)

Prints one line per finding, `path:line: rule N: "text" (hint)`, and exits with 1 if there is one. The rules are listed
in CONTRIBUTING.md. A word in a code span, a code block or a name with underscores is never a finding.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple


class Text(NamedTuple):
    """One paragraph, comment, docstring or message."""

    line: int
    kind: str
    text: str


class Finding(NamedTuple):
    """A rule that a text breaks."""

    line: int
    rule: int
    words: str
    hint: str


WORDS: list[tuple[int, str, str]] = [
    (
        2,
        r"whoever|nobody|everybody|somebody|whosoever|whomever",
        "name the actor: client, caller, user, process",
    ),
    (2, r"(?<=[.!?] )Who(?= [a-z]+s\b)|^Who(?= [a-z]+s\b)", "name the actor: client, caller, user, process"),
    (3, r"but for(?! the (first|last|next))", "except"),
    (3, r"beside", "next to, or as well as"),
    (3, r"anew", "again"),
    (3, r"lately", "recently"),
    (
        3,
        r"of (its|their|his|our|ones?'s) own(?! (row|key|origin|account|name|form|form\b))",
        "usually nothing",
    ),
    (3, r"at this moment|at that moment", "now, or nothing"),
    (3, r"meanwhile", "usually nothing, or 'in the meantime'"),
    (3, r", for (?:it|they|he|she|we|there|this|that|these|those|no|its|their) ", "because"),
    (4, r"told|tells|tell|hears?|heard|says|said|asks", "returned, raised, recorded, logged, contains"),
    (
        4,
        r"(?:setting|value|error|token|row|field|log|line|response|server|process|database)s? knows?",
        "has, contains",
    ),
    (
        5,
        r"alive|dead|dies|died|living|lives (?:a|in|for|one|on|at|until|to)\b|outlives|lived",
        "active, expired, revoked, ended",
    ),
    (
        6,
        r"(?:is|are|was|be) no (?!longer\b|more than\b|one\b|such\b|need\b|way\b|limit\b|difference\b|faster\b|slower\b|larger\b|smaller\b)[a-z]+",
        "is not a ...",
    ),
    (6, r"(?:is|are|was|be) none", "there is no ..., or is not a ..."),
    (
        7,
        r"(?:unknown |JSON |request |body )?members? (?:of the (?:body|request|response|object|JSON))|unknown members?",
        "field",
    ),
    (7, r"moments?", "time, or a number of seconds"),
    (
        7,
        r"(?:a|the|each|every|one|another|last|first|next|failed|wrong|this|of|per) (?:try|tries)|tries (?:of|are|were|that)",
        "attempt",
    ),
    (
        7,
        r"(?:the|an|its|every|each|late|lost|first|that) answers?|is answered|are answered|answered by",
        "response",
    ),
    (7, r"letters? (?:and digits)", "characters"),
    (
        10,
        r"till|for ever|hardly meant|so long as|for so long|so many (?:as|of)|there and back|wherever that is|once and for all|whatever comes",
        "the ordinary word",
    ),
    (
        10,
        r"as (?:it|they) (?:was|were|came|is|are) (?:sent|kept)|to the letter|in its middle|by comma",
        "the ordinary word",
    ),
]
RULES = [
    (
        rule,
        re.compile(rf"\b(?:{pattern})\b" if not pattern.startswith(("(?<", ",")) else pattern, re.IGNORECASE),
        hint,
    )
    for rule, pattern, hint in WORDS
]
FIRST_WORD = re.compile(r"(What|Who|Whoever|Whether|Where|How|About|Of|For|Here|If|When) ")
PAST = re.compile(
    r"(Returns|Raises|Checks|Sets|Gets|Makes|Reads|Writes|Creates|Deletes|Ends|Adds|Removes|Tells|Says)\b"
)
ADVICE = re.compile(
    r"\b(use|send|set|must|log in|sign in|wait|check|remove|choose|try|start|run|install|see|retry|shorten|add|create|"
    r"give|ask|close|open|stop|fix|change|pass|expected|requires?|required|allowed|at most|at least|supported)\b",
    re.IGNORECASE,
)
CODE = re.compile(r"`[^`]*`|\bhttps?://\S+|\[[^\]]*\]\([^)]*\)(?=\{)")


def markdown(source: str) -> Iterator[Text]:
    """Yield the paragraphs and table rows of a Markdown file, without code blocks and comments."""
    source = re.sub(r"<!--.*?-->", lambda found: "\n" * found.group().count("\n"), source, flags=re.DOTALL)
    paragraph: list[str] = []
    begin, fenced = 1, False
    for number, line in enumerate([*source.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        ends = fence or fenced or not line.strip() or re.match(r"\s*([-*+]|\d+\.|#+|\|)( |$|-)|\|", line)
        if ends and paragraph:
            yield Text(
                begin, "table" if paragraph[0].lstrip().startswith("|") else "paragraph", " ".join(paragraph)
            )
            paragraph = []
        fenced = fenced != fence
        if fenced or fence or not line.strip():
            continue
        if not paragraph:
            begin = number
        paragraph.append(re.sub(r"\]\([^)]*\)", "]", line.strip()))


def python(source: str, messages: bool) -> Iterator[Text]:
    """Yield the docstrings and comments of a module, and its messages if asked for."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for index, statement in enumerate(body if isinstance(body, list) else []):
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                docstrings.add(id(statement.value))
                of_definition = index == 0 and isinstance(
                    node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
                )
                kind = "docstring" if of_definition else "note"
                for offset, part in enumerate(re.split(r"\n\s*\n", statement.value.value)):
                    yield Text(
                        statement.lineno, kind if offset == 0 else "note", re.sub(r"\s+", " ", part).strip()
                    )
        if (
            messages
            and isinstance(node, ast.Assign)
            and any(getattr(target, "id", "") == "detail" for target in node.targets)
        ):
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                yield Text(node.lineno, "error", node.value.value)
    if messages:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                if node.value.count(" ") >= 2 and not re.search(
                    r"\b(SELECT|UPDATE|INSERT|DELETE|CREATE|PRAGMA)\b|^\w+ '", node.value
                ):
                    yield Text(node.lineno, "message", re.sub(r"\s+", " ", node.value).strip())
    previous, comment, begin = -1, "", 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("#!"):
            text = token.string.lstrip("# ")
            if re.match(r"(noqa|type:|pragma|nosec)", text):
                text = text.partition(" - ")[2] if " - " in text else ""
            if token.start[0] == previous + 1 and comment:
                comment += " " + text
            else:
                if comment:
                    yield Text(begin, "comment", comment)
                comment, begin = text, token.start[0]
            previous = token.start[0]
    if comment:
        yield Text(begin, "comment", comment)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[Text] = []
        self._skip = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skip = False

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._skip:
            text = re.sub(r"\{[{%#].*?[}%#]\}", "", data, flags=re.DOTALL)
            self.texts.append(Text(self.getpos()[0], "message", re.sub(r"\s+", " ", text).strip()))


def html(source: str) -> Iterator[Text]:
    """Yield the visible texts of a page template."""
    page = _Page()
    page.feed(source)
    yield from page.texts


def javascript(source: str) -> Iterator[Text]:
    """Yield the comments and the sentences in string literals of a script."""
    for found in re.finditer(r"/\*\*?(.*?)\*/|(?:(?:^|\s)//[^\n]*\n?)+", source, re.DOTALL):
        text = re.sub(r"^\s*(\*|//)\s?", "", found.group(1) or found.group(), flags=re.MULTILINE)
        for part in re.split(r"\n\s*\n|\n(?=@)", text):
            yield Text(
                source.count("\n", 0, found.start()) + 1, "comment", re.sub(r"\s+", " ", part).strip(" /")
            )
    for found in re.finditer(r"\"([^\"\n]* [^\"\n]* [^\"\n]*)\"", source):
        yield Text(source.count("\n", 0, found.start()) + 1, "message", found.group(1))


def check(text: Text) -> Iterator[Finding]:
    """Yield what is wrong with one text."""
    plain = CODE.sub("`code`", text.text)
    for rule, pattern, hint in RULES:
        for found in pattern.finditer(plain):
            yield Finding(text.line, rule, found.group().strip(), hint)
    if (
        text.kind in ("paragraph", "docstring", "note", "comment")
        and len(re.findall(r"[^:]:(?= )", plain)) > 1
    ):
        yield Finding(text.line, 1, plain[:60], "at most one colon a paragraph")
    if text.kind == "docstring" and (FIRST_WORD.match(plain) or PAST.match(plain)):
        yield Finding(
            text.line, 8, plain[:40], "begin with an imperative verb or the noun of a known concept"
        )
    if text.kind == "error" and not ADVICE.search(plain):
        yield Finding(text.line, 9, plain[:60], "say what to do")


def texts(path: Path) -> Iterator[Text]:
    """Yield every text of a file."""
    source = path.read_text()
    match path.suffix:
        case ".md":
            yield from markdown(source)
        case ".py":
            yield from python(source, messages="src" in path.parts)
        case ".html":
            yield from html(source)
        case ".js" | ".ts":
            yield from javascript(source)


def main(paths: list[str]) -> int:
    """Check the files and return the exit status."""
    if not paths:
        listed = subprocess.run(
            ["git", "ls-files"], capture_output=True, text=True, check=True
        ).stdout.splitlines()  # noqa: S607
        paths = [path for path in listed if Path(path).suffix in (".md", ".py", ".html", ".js", ".ts")]
    count = 0
    for path in paths:
        for text in texts(Path(path)):
            for finding in check(text):
                count += 1
                print(f'{path}:{finding.line}: rule {finding.rule}: "{finding.words}" ({finding.hint})')
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
