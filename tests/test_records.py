"""Each column of a table needs a field of the same name in its record, and each field a column."""

from dataclasses import fields

import pytest

from sessionapi.models import Event, RevocationMark, ServiceToken, Session, StoredKey, User
from sessionapi.storage import tables
from sessionapi.storage.queries import columns_of

WITHOUT_FIELD = {"username_key"}
"""Columns that are used only in conditions of queries."""
RECORDS = {
    User: tables.users,
    Session: tables.sessions,
    StoredKey: tables.signing_keys,
    ServiceToken: tables.service_tokens,
    RevocationMark: tables.revocation_marks,
    Event: tables.events,
}


@pytest.mark.parametrize(
    ("record", "table"), RECORDS.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_each_column_of_a_table_has_a_field_and_each_field_a_column(record, table):
    columns = {column.name for column in table.columns} - WITHOUT_FIELD
    assert columns == {field.name for field in fields(record)}, (
        f"{record.__name__} in models.py, {table} in tables.py"
    )


@pytest.mark.parametrize(
    ("record", "table"), RECORDS.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_the_columns_are_selected_in_the_order_of_the_fields(record, table):
    assert [column.name for column in columns_of(record, table)] == [field.name for field in fields(record)]
