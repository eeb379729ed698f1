"""Rows are mapped to records by position, so the order of the columns is compared with that of the fields."""

from dataclasses import fields
from typing import Any

from sessionapi.storage.sessions import session_of
from sessionapi.storage.tables import sessions, users
from sessionapi.storage.users import user_of

LISTS = {"amr", "roles"}
"""The fields that are lists in the database and tuples in the record."""


def assert_each_field_has_its_column(record: Any) -> None:
    """Check a record that was made from a row with the names of the columns as its values."""
    for field in fields(record):
        value = getattr(record, field.name)
        assert value == (tuple(field.name) if field.name in LISTS else field.name)


def test_each_field_of_a_session_is_read_from_its_column():
    assert_each_field_has_its_column(session_of([column.name for column in sessions.c]))


def test_each_field_of_a_user_is_read_from_its_column():
    names = [column.name for column in users.c if column.name != "username_key"]
    assert_each_field_has_its_column(user_of(names))
