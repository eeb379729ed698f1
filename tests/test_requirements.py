"""The table in docs/security.md lists exactly the tests that are marked with a requirement."""

from tests.support import requirements


def test_every_requirement_has_a_test():
    assert [requirement for requirement, named in requirements.tests().items() if not named] == []


def test_the_page_shows_the_table_that_the_marks_make():
    """After a change of a mark, run `python -m tests.support.requirements`."""
    assert requirements.table() in requirements.PAGE.read_text()
