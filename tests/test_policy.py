"""The rules of a session as tables, with every edge of every timeout, and of design 4.3."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from sessionapi.errors import ValidationFailed
from sessionapi.models import Attempt, Session
from sessionapi.sessions import json_data, policy
from sessionapi.sessions.policy import Ended, Policy, decide
from sessionapi.tokens import issuer

T0 = datetime(2026, 11, 24, tzinfo=UTC)
US = timedelta(microseconds=1)
DAY = 86_400
KEY, OTHER = "a" * 32, "b" * 32


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def session(**changes: Any) -> Session:
    fields: dict[str, Any] = {
        "user_id": UUID(int=1),
        "id": UUID(int=2),
        "generation": 5,
        "secret_digest": b"",
        "rotated_at": T0,
        "repeated_at": None,
        "retry_digests": KEY,
        "created_at": T0,
        "auth_time": T0,
        "last_seen_at": T0,
        "idle_timeout": 7 * DAY,
        "expires_at": T0 + seconds(30 * DAY),
        "revoked_at": None,
        "revoke_reason": None,
        "ip": None,
        "user_agent": None,
        "device_name": None,
        "amr": ("pwd",),
        "transport": "body",
        "remember": True,
    }
    return Session(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "now", "expected"),
    [
        ({}, T0 + seconds(7 * DAY) - US, None),
        ({}, T0 + seconds(7 * DAY), Ended("expired", "idle")),
        ({"last_seen_at": T0 + seconds(25 * DAY)}, T0 + seconds(30 * DAY) - US, None),
        ({"last_seen_at": T0 + seconds(25 * DAY)}, T0 + seconds(30 * DAY), Ended("expired", "absolute")),
        ({"last_seen_at": T0 + seconds(23 * DAY)}, T0 + seconds(40 * DAY), Ended("expired", "idle")),
        ({"revoked_at": T0, "revoke_reason": "logout"}, T0, Ended("revoked", "logout")),
        ({"revoked_at": T0, "revoke_reason": "logout"}, T0 + seconds(99 * DAY), Ended("revoked", "logout")),
    ],
)
def test_when_a_session_has_ended(changes, now, expected):
    assert policy.ended(session(**changes), now) == expected


@pytest.mark.parametrize(
    ("changes", "now", "lives"),
    [
        ({}, T0, 60),
        ({}, T0 + seconds(7 * DAY - 60), 60),
        ({}, T0 + seconds(7 * DAY - 59), 59),
        ({"expires_at": T0 + seconds(30)}, T0, 30),
    ],
)
def test_no_access_token_outlives_its_session(changes, now, lives):
    end = session(**changes).ends_at
    assert issuer.access_token_expiry(end, now, Policy().access_token_ttl) - now == seconds(lives)


SEEN = {"last_seen_at": T0 + seconds(300)}


@pytest.mark.parametrize(
    ("changes", "presented", "key", "active", "after", "outcome"),
    [
        # the present token: a renewal until the rotation is due
        ({}, 5, None, True, seconds(600) - US, ("renewal", 5, False)),
        ({}, 5, None, True, seconds(600), ("rotation", 6, True)),
        ({}, 5, None, False, seconds(600), ("rotation", 6, False)),
        # due by the idle clock, but never within three graces of the last rotation
        ({"last_seen_at": T0 - seconds(600)}, 5, None, True, seconds(30) - US, ("renewal", 5, True)),
        ({"last_seen_at": T0 - seconds(600)}, 5, None, True, seconds(30), ("rotation", 6, True)),
        ({"last_seen_at": T0 - seconds(600)}, 5, None, False, seconds(30), ("renewal", 5, False)),
        # a tenth of a short idle timeout, but not less than three graces
        ({"idle_timeout": 3000}, 5, None, True, seconds(300) - US, ("renewal", 5, False)),
        ({"idle_timeout": 3000}, 5, None, True, seconds(300), ("rotation", 6, True)),
        ({"idle_timeout": 200}, 5, None, True, seconds(30) - US, ("renewal", 5, False)),
        ({"idle_timeout": 200}, 5, None, True, seconds(30), ("rotation", 6, True)),
        # a late repeat makes the next rotation wait
        ({"repeated_at": T0 + seconds(590)}, 5, None, True, seconds(620) - US, ("renewal", 5, True)),
        ({"repeated_at": T0 + seconds(590)}, 5, None, True, seconds(620), ("rotation", 6, True)),
        # the previous token: a repeat within the grace, or with a key of the rotation
        ({}, 4, None, True, seconds(10), ("repeat", 5, False)),
        ({}, 4, None, True, seconds(10) + US, ("reuse", 5, False)),
        ({}, 4, OTHER, True, seconds(10) + US, ("reuse", 5, False)),
        ({}, 4, KEY, True, seconds(3600), ("repeat", 5, True)),
        ({}, 4, KEY, False, seconds(3600), ("repeat", 5, False)),
        # older tokens, and those that the database has lost
        ({}, 3, KEY, True, seconds(0), ("reuse", 5, False)),
        ({}, 0, KEY, True, seconds(0), ("reuse", 5, False)),
        ({}, 6, None, True, seconds(0), ("rotation", 7, True)),
        ({}, 9, None, False, seconds(0), ("rotation", 10, False)),
    ],
)
def test_what_a_refresh_leads_to(changes, presented, key, active, after, outcome):
    decision = decide(session(**changes), Attempt(presented, key, active), T0 + after, Policy())
    assert (decision.outcome, decision.generation, decision.moves_idle_clock) == outcome


@pytest.mark.parametrize(
    ("changes", "key", "after", "keeps", "marks"),
    [
        ({}, None, 5, False, False),
        ({}, OTHER, 5, True, False),
        ({}, KEY, 5, False, False),
        ({}, KEY, 11, False, True),
        ({"repeated_at": T0 + seconds(11)}, KEY, 12, False, False),
        ({"retry_digests": KEY * 4}, OTHER, 5, False, False),
        ({"retry_digests": KEY * 3}, OTHER, 5, True, False),
    ],
)
def test_what_a_repeat_leaves_behind(changes, key, after, keeps, marks):
    decision = decide(session(**changes), Attempt(4, key, active=False), T0 + seconds(after), Policy())
    assert decision.outcome == "repeat"
    assert (decision.stores_key, decision.records_late_repeat) == (keeps, marks)
    assert decision.writes is (keeps or marks)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A, as far as both are objects
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({"a": "foo"}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_an_object_is_merged_as_the_rfc_says(target, patch, result):
    before = repr(target)
    assert json_data.merge(target, patch) == result
    assert repr(target) == before


@pytest.mark.parametrize("size", [4096, 4097])
def test_an_object_has_at_most_four_kibibytes(size):
    value = {"x": "é" * ((size - 8) // 2) + "a" * ((size - 8) % 2)}
    if size <= 4096:
        assert json_data.bounded(value) == value
    else:
        with pytest.raises(ValidationFailed):
            json_data.bounded(value)


@pytest.mark.parametrize(("age", "recent"), [(0, True), (299, True), (300, False)])
def test_a_login_is_recent_for_five_minutes(age, recent):
    assert policy.is_recent(int(T0.timestamp()), T0 + seconds(age), Policy()) is recent
