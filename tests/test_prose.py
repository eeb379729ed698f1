"""The language check `.ci/prose.py` reports dialect in every kind of file, and accepts plain English."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[1] / ".ci" / "prose.py"
PLAIN = "Return the session of a user. Sessions are active, expired or revoked, and errors are raised."
DIALECT = {
    1: "Return two things: a session, and this: its user.",
    2: "Return the session that somebody has opened.",
    3: "Return nothing, for there are other sessions beside this one.",
    4: "Return what the log says.",
    5: "Return the living sessions.",
    6: "Return an error if it is no token.",
    7: "Return how often the answer is lost before each try.",
    10: "Return the sessions that are kept for ever.",
}
"""One sentence for each rule that applies to all prose. Rule 8 is about docstrings, rule 9 about messages."""


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_markdown(folder: Path, sentence: str) -> Path:
    path = folder / "page.md"
    path.write_text(f"# Sessions\n\nA first paragraph.\n\n- {sentence}\n")
    return path


def in_docstring(folder: Path, sentence: str) -> Path:
    path = folder / "module.py"
    path.write_text(f'"""A module."""\n\n\ndef work() -> None:\n    """{sentence}"""\n')
    return path


def in_comment(folder: Path, sentence: str) -> Path:
    path = folder / "module.py"
    path.write_text(f'"""A module."""\n\n# {sentence}\nvalue = 1\n')
    return path


def in_javascript(folder: Path, sentence: str) -> Path:
    path = folder / "script.js"
    path.write_text(f"// {sentence}\nconst value = 1;\n")
    return path


PLACES = [in_markdown, in_docstring, in_comment, in_javascript]
Write = Callable[[Path, str], Path]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rule", DIALECT)
def test_dialect_is_reported_with_its_rule(
    prose: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: Write, rule: int
):
    path = place(tmp_path, DIALECT[rule])
    assert prose.main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith(f"{path}:") and f": rule {rule}: " in line for line in lines), lines


@pytest.mark.parametrize("start", ["What a session is.", "Whether it is active.", "Returns a session."])
def test_a_docstring_that_starts_with_neither_an_imperative_nor_a_noun_is_reported(
    prose: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str
):
    assert prose.main([str(in_docstring(tmp_path, start))]) == 1
    assert "module.py:5: rule 8: " in capsys.readouterr().out
    assert prose.main([str(in_comment(tmp_path, start))]) == 0


@pytest.mark.parametrize(
    ("detail", "status"), [("The token has expired.", 1), ("The token has expired. Log in again.", 0)]
)
def test_an_error_message_without_advice_is_reported(
    prose: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], detail: str, status: int
):
    path = tmp_path / "src" / "errors.py"
    path.parent.mkdir()
    path.write_text(
        '"""Errors."""\n\n\nclass Expired(Exception):\n    """An error."""\n\n'
        f'    default_detail = "{detail}"\n'
    )
    assert prose.main([str(path)]) == status
    assert (": rule 9: " in capsys.readouterr().out) is bool(status)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "sentence",
    [
        PLAIN,
        "Return None if there is no session, if there are none, or if it is None.",
        "Return `nobody`, `told` and `the answer`, because code is not prose.",
        "Return the length of `a: b`, which is one: three characters.",
        "Return true if the session is no longer active.",
    ],
)
def test_plain_english_passes(
    prose: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: Write, sentence: str
):
    assert prose.main([str(place(tmp_path, sentence))]) == 0, capsys.readouterr().out


def test_code_blocks_and_directives_are_not_prose(
    prose: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "page.md"
    page.write_text("Run this:\n\n```text\nnobody says: the answer: lives\n```\n\n<!-- told by nobody -->\n")
    module = tmp_path / "module.py"
    module.write_text('"""A module."""\n\nvalue = 1  # noqa: S603\nother = 2  # type: ignore[told]\n')
    assert prose.main([str(page), str(module)]) == 0, capsys.readouterr().out


def test_comments_behind_two_statements_are_two_texts(
    prose: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    module = tmp_path / "module.py"
    module.write_text('"""A module."""\n\nvalue = 1  # seconds: a default\nother = 2  # bytes: a limit\n')
    assert prose.main([str(module)]) == 0, capsys.readouterr().out
