"""Routes for administrators. They need the role `admin`, read from the database, and a recent login."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from sessionapi import ids
from sessionapi.container import Container
from sessionapi.web.dependencies import Admin, ContainerDep, Paging, id_in_path, next_cursor
from sessionapi.web.json_io import JsonRoute
from sessionapi.web.openapi import BEARER, BODY, STORE, answers
from sessionapi.web.schemas import (
    AdminUserIn,
    AdminUserOut,
    EventsOut,
    RevokedOut,
    SessionsOut,
    UsersOut,
    admin_user_out,
    event_out,
    session_out,
)

router = APIRouter(prefix="/admin", tags=["admin"], route_class=JsonRoute)

REFUSED = (*BEARER, "forbidden", "reauthentication_required", "validation_failed", *STORE)
CHANGES = ("rate_limited", "csrf_rejected", *REFUSED)


async def events_of(
    user_id: Annotated[str | None, Query(description="Only the events of this user.")] = None,
) -> UUID | None:
    """Return the id of the user whose events are listed, or None to list those of all users."""
    return id_in_path("user", user_id) if user_id else None


EventsOf = Annotated[UUID | None, Depends(events_of)]


@router.get("/users", operation_id="adminListUsers", summary="All users", responses=answers(*REFUSED))
async def list_users(
    admin: Admin,
    container: ContainerDep,
    paging: Paging,
) -> UsersOut:
    """Return users, the oldest first."""
    page = await container.accounts.page(paging.limit, paging.after("user"))
    locked = await container.throttle.locked([user.id for user in page.items])
    return UsersOut(
        items=[admin_user_out(user, locked=user.id in locked) for user in page.items],
        next_cursor=next_cursor("user", page),
    )


@router.get(
    "/users/{user_id}",
    operation_id="adminGetUser",
    summary="One user",
    responses=answers(*REFUSED, "not_found"),
)
async def get_user(user_id: str, admin: Admin, container: ContainerDep) -> AdminUserOut:
    """Return one user."""
    return await _shown(container, id_in_path("user", user_id))


@router.patch(
    "/users/{user_id}",
    operation_id="adminUpdateUser",
    summary="Disable, enable, unlock, set roles or claims",
    responses=answers(*CHANGES, "not_found", *BODY),
)
async def update_user(user_id: str, body: AdminUserIn, admin: Admin, container: ContainerDep) -> AdminUserOut:
    """Change the given fields, all or none. Disabling ends all sessions of the user at once."""
    target = id_in_path("user", user_id)
    await container.accounts.change(target, admin, body.model_dump(exclude_unset=True))
    return await _shown(container, target)


@router.delete(
    "/users/{user_id}",
    operation_id="adminDeleteUser",
    status_code=204,
    summary="Delete a user",
    responses=answers(*CHANGES, "not_found"),
)
async def delete_user(user_id: str, admin: Admin, container: ContainerDep) -> None:
    """Erase the account and end its sessions."""
    await container.accounts.delete(id_in_path("user", user_id), admin)


@router.get(
    "/users/{user_id}/sessions",
    operation_id="adminListSessions",
    summary="A user's sessions",
    responses=answers(*REFUSED, "not_found"),
)
async def list_sessions(
    user_id: str,
    admin: Admin,
    container: ContainerDep,
    paging: Paging,
) -> SessionsOut:
    """Return the active sessions of a user, the newest first."""
    user = await container.accounts.get(id_in_path("user", user_id))
    page = await container.sessions.list_active(user.id, paging.limit, paging.after("sess"))
    current = ids.public("sess", admin.session_id)
    return SessionsOut(
        items=[session_out(session, current) for session in page.items],
        next_cursor=next_cursor("sess", page),
    )


@router.delete(
    "/users/{user_id}/sessions",
    operation_id="adminRevokeSessions",
    summary="End all sessions of a user",
    responses=answers(*CHANGES, "not_found"),
)
async def revoke_sessions(user_id: str, admin: Admin, container: ContainerDep) -> RevokedOut:
    """End all sessions of a user, and return how many there were."""
    target = id_in_path("user", user_id)
    return RevokedOut(revoked=await container.sessions.revoke_all(target, "revoked_by_admin", admin))


@router.delete(
    "/users/{user_id}/sessions/{session_id}",
    operation_id="adminRevokeSession",
    status_code=204,
    summary="End one session of a user",
    responses=answers(*CHANGES, "not_found"),
)
async def revoke_session(user_id: str, session_id: str, admin: Admin, container: ContainerDep) -> None:
    """End an active session."""
    await container.sessions.revoke(
        id_in_path("user", user_id), id_in_path("sess", session_id), "revoked_by_admin", admin
    )


@router.get(
    "/events",
    operation_id="adminListEvents",
    summary="The audit log",
    responses=answers("not_found", *REFUSED),
)
async def list_events(
    admin: Admin,
    container: ContainerDep,
    paging: Paging,
    user_id: EventsOf,
) -> EventsOut:
    """Return events, the newest first."""
    page = await container.accounts.events(paging.limit, paging.after("event"), user_id)
    return EventsOut(
        items=[event_out(event) for event in page.items],
        next_cursor=next_cursor("event", page),
    )


async def _shown(container: Container, user_id: UUID) -> AdminUserOut:
    user = await container.accounts.get(user_id)
    return admin_user_out(user, locked=bool(await container.throttle.locked([user_id])))
