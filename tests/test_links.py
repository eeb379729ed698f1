"""The check of links and anchors that `make check` runs."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "links.py"
SPEC = importlib.util.spec_from_file_location("links", SCRIPT)
links = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(links)

OTHER = """# Other

## What it `does`, and *why*
## A & B
## Again
## Again
<a id="by-hand"></a>
```sh
# not a heading
```
"""


def broken(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "other.md").write_text(OTHER)
    (tmp_path / "code.py").write_text("")
    page = tmp_path / "page.md"
    page.write_text(text)
    return [line.removeprefix(f"{tmp_path}/") for line in links.broken([page], tmp_path)]


@pytest.mark.parametrize(
    "link",
    [
        "[a](other.md)",
        "[a](other.md#what-it-does-and-why)",
        "[a](other.md#a--b)",
        "[a](other.md#again-1)",
        "[a](other.md#by-hand)",
        '[a](<other.md> "title")',
        "[a][b]\n\n[b]: other.md#again",
        "# Here\n[a](#here)",
        "[a](code.py#L10-L20)",
        "[a](https://example.com/nowhere#else)",
        "`[a](nowhere.md)`",
        "```\n[a](nowhere.md)\n```",
        "<!-- [a](nowhere.md) -->",
    ],
)
def test_a_link_that_works_is_not_reported(tmp_path: Path, link: str):
    assert broken(tmp_path, link) == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("[a](nowhere.md)", "nowhere.md does not exist"),
        ("[a](Other.md)", "Other.md does not exist"),
        ("![a](nowhere.svg)", "nowhere.svg does not exist"),
        ('<img src="nowhere.svg">', "nowhere.svg does not exist"),
        ("[a](#nowhere)", "#nowhere has no such anchor"),
        ("[a](other.md#not-a-heading)", "other.md#not-a-heading has no such anchor"),
        ("[a](other.md#again-2)", "other.md#again-2 has no such anchor"),
        ("[a](code.py#main)", "code.py#main has no such anchor"),
        ("[a](../../etc/passwd)", "../../etc/passwd is outside of the repository"),
        ("[a](/other.md)", "/other.md starts with a slash; write it relative to this file"),
        ("[a][b]", "[b] has no definition"),
    ],
)
def test_a_broken_link_is_reported_with_its_line_and_the_reason(tmp_path: Path, link: str, reason: str):
    assert broken(tmp_path, f"# Page\n\ntext\n{link}\n") == [f"page.md:4: {reason}"]
