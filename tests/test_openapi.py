"""The OpenAPI document is valid, and every operation has examples and its errors."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from openapi_spec_validator import validate

from sessionapi import models
from sessionapi.web.problems import STATUS
from tests.support.app import Running

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

NAMES = """
adminDeleteUser adminGetUser adminListEvents adminListSessions adminListUsers adminRevokeSession
adminRevokeSessions adminUpdateUser changePassword currentSession deleteMe healthz introspect jwks
listSessions login logout me metadata metrics protected readyz reauthenticate refresh resetPassword
revocations revokeSession revokeSessions signup updateCurrentSession updateMe
"""


@pytest.fixture
async def document(service: Running) -> dict[str, Any]:
    return (await service.client.get("/openapi.json")).json()


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


async def test_the_document_is_valid(document):
    validate(document)


async def test_the_names_of_the_operations_are_an_interface(document):
    assert sorted(each["operationId"] for each in operations(document)) == NAMES.split()


async def test_every_operation_says_what_it_does(document):
    for each in operations(document):
        assert each["summary"], each["operationId"]
        assert each["description"], each["operationId"]


async def test_every_error_is_a_problem_with_an_example_of_each_code(document):
    for each in operations(document):
        refused = {status: answer for status, answer in each["responses"].items() if status >= "4"}
        assert "500" in refused
        for status, answer in refused.items():
            assert list(answer["content"]) == ["application/problem+json"], each["operationId"]
            for code, example in answer["content"]["application/problem+json"]["examples"].items():
                assert STATUS[code][0] == int(status) == example["value"]["status"]


async def test_every_member_of_a_body_has_an_example_or_a_default(document):
    bodies = [name for name in document["components"]["schemas"] if name.endswith("In")]
    assert "LoginIn" in bodies
    for name in bodies:
        for member, schema in document["components"]["schemas"][name]["properties"].items():
            options = [schema, *schema.get("anyOf", [])]
            told = any({"examples", "default", "enum"} & option.keys() for option in options)
            assert told or {"type": "boolean"} in options, f"{name}.{member}"


async def test_protected_operations_name_their_credential(document):
    schemes = document["components"]["securitySchemes"]
    assert set(schemes) == {"AccessToken", "ServiceToken", "SessionCookie"}
    assert schemes["SessionCookie"]["name"] == "__Host-session"
    for each in operations(document):
        if "expired_token" in str(each["responses"]) and each["operationId"] != "logout":
            assert each["security"] == [{"AccessToken": []}], each["operationId"]
    security = {each["operationId"]: each.get("security") for each in operations(document)}
    assert security["logout"] == [{"AccessToken": []}, {"SessionCookie": []}, {}]
    assert security["refresh"] == [{"SessionCookie": []}, {}]


async def test_times_have_the_format_of_a_time(document):
    """A generated client then reads them as times."""
    times = {
        f"{name}.{field}": schema
        for name, body in document["components"]["schemas"].items()
        for field, schema in body.get("properties", {}).items()
        if field == "at" or (field.endswith(("_at", "_time")) and schema.get("type") != "integer")
    }
    times.pop("IntrospectionOut.auth_time")  # in seconds, as in the token
    assert len(times) == 13
    for name, schema in times.items():
        assert {each.get("format") for each in schema.get("anyOf", [schema])} - {None} == {"date-time"}, name


async def test_the_reasons_of_an_ended_session_are_listed(document):
    reason = document["components"]["schemas"]["Problem"]["properties"]["reason"]
    assert {"logout", "idle", "unknown"} <= set(reason["enum"]) == set(get_args(models.EndReason))


def schemas(value: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of the document that is, or may be, a schema."""
    if isinstance(value, dict):
        yield at, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if name not in ("examples", "example"):
            yield from schemas(item, f"{at}/{name}")


async def test_every_schema_has_a_type_that_a_generator_can_compile(document):
    """Fails with the `locked` that had a `const` and no type."""
    for at, schema in schemas(document):
        if "const" in schema or "enum" in schema:
            assert isinstance(schema["type"], str), at


async def test_every_body_is_one_named_schema(document):
    """Fails with the two bodies of /introspect, for which generators wrote code that does not compile.

    A body that may be left out is not `null`. /logout had `anyOf` with null.
    """
    for each in operations(document):
        if "requestBody" in each:
            [content] = each["requestBody"]["content"].values()
            assert list(content["schema"]) == ["$ref"], each["operationId"]
            name = content["schema"]["$ref"].removeprefix("#/components/schemas/")
            assert document["components"]["schemas"][name]["type"] == "object"


async def test_head_and_options_are_not_operations_of_their_own(document):
    for path in document["paths"].values():
        assert path.keys() <= {"get", "post", "patch", "delete"}
