#!/usr/bin/env python3
"""Check the language of documentation, docstrings, comments and messages.

Usage: .ci/prose.py [PATH ...]   (all files that git tracks, if no path is given)

Prints one line per finding, `path:line: rule N: "text" (hint)`, and exits with 1 if there is one.
CONTRIBUTING.md lists the ten rules. A word in a code span, a code block or a name with underscores is never a
finding.
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
    """One paragraph, table row, comment, docstring or message, with the number of its first line."""

    line: int
    kind: str
    text: str


class Finding(NamedTuple):
    """A text that breaks a rule."""

    line: int
    rule: int
    words: str
    hint: str


ACTOR = "name the actor: client, caller, user, process"
SPEECH = "returned, raised, recorded, logged, contains"
ORDINARY = "the ordinary word"

WORDS: list[tuple[int, str, str]] = [
    (2, r"whoever|nobody|everybody|somebody|whosoever|whomever", ACTOR),
    (2, r"(?<=[.!?] )Who(?= [a-z]+s\b)|^Who(?= [a-z]+s\b)", ACTOR),
    (3, r"but for(?! the (first|last|next))", "except"),
    (3, r"beside", "next to, or as well as"),
    (3, r"anew", "again"),
    (3, r"lately", "recently"),
    (3, r"of (its|their|his|our|ones?'s) own(?! (row|key|origin|account|name|form)\b)", "usually nothing"),
    (3, r"at this moment|at that moment", "now, or nothing"),
    (3, r"meanwhile", "usually nothing, or 'in the meantime'"),
    (3, r", for (?:it|they|he|she|we|there|this|that|these|those|no|its|their) ", "because"),
    (4, r"told|tells|tell|hears?|heard|says|said|asks", SPEECH),
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
        r"(?:(?<!there )(?:is|are|was|be) no "
        r"(?!(?:longer|more than|one|such|need|way|limit|difference|faster|slower|larger|smaller)\b)[a-z]+)",
        "is not a ...",
    ),
    (6, r"(?:(?<!there )(?:is|are|was|be) (?-i:none))", "there is no ..., or is not a ..."),
    (
        7,
        r"(?:unknown |JSON |request |body )?members? (?:of the (?:body|request|response|object|JSON))"
        r"|unknown members?",
        "field",
    ),
    (7, r"moments?", "time, or a number of seconds"),
    (
        7,
        r"(?:a|the|each|every|one|another|last|first|next|failed|wrong|this|of|per) (?:try|tries)"
        r"|tries (?:of|are|were|that)",
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
        r"till|for ever|hardly meant|so long as|for so long|so many (?:as|of)|there and back|wherever that is"
        r"|once and for all|whatever comes",
        ORDINARY,
    ),
    (
        10,
        r"as (?:it|they) (?:was|were|came|is|are) (?:sent|kept)|to the letter|in its middle|by comma",
        ORDINARY,
    ),
]


def _compiled(pattern: str) -> re.Pattern[str]:
    bounded = pattern if pattern.startswith(("(?<", ",")) else rf"\b(?:{pattern})\b"
    return re.compile(bounded, re.IGNORECASE)


RULES = [(rule, _compiled(pattern), hint) for rule, pattern, hint in WORDS]
FIRST_WORD = re.compile(r"(What|Who|Whoever|Whether|Where|How|About|Of|For|Here|If|When) ")
THIRD_PERSON = re.compile(
    r"(Returns|Raises|Checks|Sets|Gets|Makes|Reads|Writes|Creates|Deletes|Ends|Adds|Removes|Tells|Says)\b"
)
ADVICE = re.compile(
    r"\b(get|confirm|report|use|send|set|must|log in|sign in|wait|check|remove|choose|try|start|run|install|"
    r"see|retry|shorten|add|create|give|ask|close|open|stop|fix|change|pass|expected|requires?|required|allowed|"
    r"at most|at least|supported)\b",
    re.IGNORECASE,
)
CODE = re.compile(r"`[^`]*`|\bhttps?://\S+|\[[^\]]*\]\([^)]*\)(?=\{)")
BLOCK_START = re.compile(r"\s*([-*+]|\d+\.|#+|\|)( |$|-)|\|")
STATEMENT = re.compile(r"\b(SELECT|UPDATE|INSERT|DELETE|CREATE|PRAGMA)\b|^\w+ '")
DIRECTIVE = re.compile(r"(noqa|type:|pragma|nosec)")
DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def markdown(source: str) -> Iterator[Text]:
    """Yield the paragraphs and table rows of a Markdown file, without code blocks and comments."""
    source = re.sub(r"<!--.*?-->", lambda found: "\n" * found.group().count("\n"), source, flags=re.DOTALL)
    paragraph: list[str] = []
    begin, fenced = 1, False
    for number, line in enumerate([*source.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        in_code = fence or fenced
        fenced = fenced != fence
        if paragraph and (in_code or not line.strip() or BLOCK_START.match(line)):
            yield Text(begin, "table" if paragraph[0].startswith("|") else "paragraph", " ".join(paragraph))
            paragraph = []
        if in_code or not line.strip():
            continue
        begin = begin if paragraph else number
        paragraph.append(re.sub(r"\]\([^)]*\)", "]", line.strip()))


def python(source: str, *, messages: bool) -> Iterator[Text]:
    """Yield the docstrings and comments of a module and, if `messages` is set, its messages."""
    tree = ast.parse(source)
    docstrings = dict(_docstrings(tree))
    for constant, kind in docstrings.items():
        for offset, part in enumerate(re.split(r"\n\s*\n", str(constant.value))):
            yield Text(constant.lineno, kind if offset == 0 else "note", _one_line(part))
    if messages:
        yield from _details(tree)
        yield from _messages(tree, docstrings)
    yield from _comments(source)


def _docstrings(tree: ast.AST) -> Iterator[tuple[ast.Constant, str]]:
    """Yield each string statement, as a docstring or as the note of an attribute."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for index, statement in enumerate(body if isinstance(body, list) else []):
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value, "docstring" if index == 0 and isinstance(node, DEFINITIONS) else "note"


def _details(tree: ast.AST) -> Iterator[Text]:
    """Yield the texts of `default_detail`, which are the default messages of the error classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            names = [getattr(target, "id", "") for target in targets]
            if "default_detail" in names and isinstance(node.value.value, str):
                yield Text(node.lineno, "error", node.value.value)


def _messages(tree: ast.AST, docstrings: dict[ast.Constant, str]) -> Iterator[Text]:
    """Yield the string literals of three words or more that are not SQL."""
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) and node not in docstrings else None
        if isinstance(value, str) and value.count(" ") >= 2 and not STATEMENT.search(value):
            yield Text(getattr(node, "lineno", 1), "message", _one_line(value))


def _comments(source: str) -> Iterator[Text]:
    """Yield the comments; those that fill consecutive lines are one text."""
    lines: list[str] = []
    begin = previous = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith("#!"):
            continue
        number, alone = token.start[0], token.line.lstrip().startswith("#")
        if not (alone and number == previous + 1):
            yield from _comment(begin, lines)
            lines, begin = [], number
        previous = number if alone else -1
        lines.append(_without_directive(token.string.lstrip("# ")))
    yield from _comment(begin, lines)


def _comment(begin: int, lines: list[str]) -> Iterator[Text]:
    text = " ".join(lines).strip()
    if text:
        yield Text(begin, "comment", text)


def _without_directive(comment: str) -> str:
    return comment.partition(" - ")[2] if DIRECTIVE.match(comment) else comment


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[Text] = []
        self._skip = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the signature of HTMLParser
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the signature of HTMLParser
        self._skip = False

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._skip:
            text = re.sub(r"\{[{%#].*?[}%#]\}", "", data, flags=re.DOTALL)
            self.texts.append(Text(self.getpos()[0], "message", _one_line(text)))


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
            yield Text(source.count("\n", 0, found.start()) + 1, "comment", _one_line(part).strip(" /"))
    for found in re.finditer(r"\"([^\"\n]* [^\"\n]* [^\"\n]*)\"", source):
        yield Text(source.count("\n", 0, found.start()) + 1, "message", found.group(1))


def check(text: Text) -> Iterator[Finding]:
    """Yield each rule that a text breaks."""
    plain = CODE.sub("`code`", text.text)
    for rule, pattern, hint in RULES:
        for found in pattern.finditer(plain):
            yield Finding(text.line, rule, found.group().strip(), hint)
    is_prose = text.kind in ("paragraph", "docstring", "note", "comment")
    if is_prose and len(re.findall(r"[^:]:(?= )", plain)) > 1:
        yield Finding(text.line, 1, plain[:60], "at most one colon per paragraph")
    if text.kind == "docstring" and (FIRST_WORD.match(plain) or THIRD_PERSON.match(plain)):
        hint = "begin with an imperative verb or the noun of a known concept"
        yield Finding(text.line, 8, plain[:40], hint)
    if text.kind == "error" and not ADVICE.search(plain):
        yield Finding(text.line, 9, plain[:60], "add what to do")


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


def tracked() -> list[str]:
    """Return the files that git tracks and this script can read."""
    command = ["git", "ls-files", "*.md", "*.py", "*.html", "*.js", "*.ts"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - it is constant
    return listed.stdout.splitlines()


def main(paths: list[str]) -> int:
    """Check the files and return the exit status."""
    count = 0
    for path in paths or tracked():
        for text in texts(Path(path)):
            for finding in check(text):
                count += 1
                line, rule, words, hint = finding
                sys.stdout.write(f'{path}:{line}: rule {rule}: "{words}" ({hint})\n')
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
