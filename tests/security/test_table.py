"""The table in docs/security.md lists exactly the tests that exist."""

from tests.security import table


def test_every_line_of_the_list_has_a_test_of_its_id():
    assert [key for key, named in table.tests().items() if not named] == []


def test_the_page_shows_the_table_that_the_script_makes():
    """After a change of a test, run `python -m tests.security.table`; CI shows that the tests pass."""
    passed = {name: "passed" for named in table.tests().values() for name in named}
    assert table.table(passed) in table.PAGE.read_text()
