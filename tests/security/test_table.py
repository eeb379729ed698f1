"""The table of docs/security.md is that of the tests there are."""

from tests.security import table


def test_every_line_of_the_list_has_a_test_of_its_id():
    assert [key for key, named in table.tests().items() if not named] == []


def test_the_page_shows_the_table_that_the_script_makes():
    """Whoever changes a test runs `python -m tests.security.table`; CI shows that they pass."""
    passed = {name: "passed" for named in table.tests().values() for name in named}
    assert table.table(passed) in table.PAGE.read_text()
