"""The command line in this process: accounts, the audit log, and their output."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import bcrypt
import httpx
import pytest
from click.testing import Result

from sessionapi import __version__, ids
from sessionapi.cli import prompts, settings_table
from sessionapi.cli.context import missing_database
from sessionapi.clock import system_clock
from sessionapi.errors import Unavailable
from sessionapi.sessions import lifecycle
from sessionapi.tokens import access_token
from tests.support.api_client import PASSWORD
from tests.support.app import Running, running
from tests.support.commands import Commands

TYPED = PASSWORD + "\n"


@pytest.fixture
async def beside(commands: Commands, make_settings) -> AsyncIterator[Running]:
    """The app in this process, with the data folder and the clock of the commands."""
    async with running(make_settings(), system_clock) as it:
        yield it


def lines(done: Result) -> list[dict[str, Any]]:
    """Return the objects of --json."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def table(output: str) -> list[list[str]]:
    """Return the rows of a table without its head; an empty cell vanishes."""
    return [line.split() for line in output.splitlines()[2:]]


@pytest.mark.engines("sqlite")
def test_the_first_command_on_an_empty_folder_prepares_it(commands: Commands):
    done = commands("users", "list", "--json")
    database = commands.data / "sessionapi.db"
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith(f"Created a new database at {database}. If you expected existing data, ")
    assert database.exists()
    assert commands("users", "list", "--json").stderr == ""
    assert commands("migrate", "--check").exit_code == 0


def test_a_database_server_of_several_hosts_is_no_file_that_is_missing(make_settings):
    hosts = "postgresql://sessionapi@one:5432,two:5433/app"
    assert missing_database(make_settings(database_url=hosts)) is None


async def test_a_password_may_end_in_either_line_ending_and_nothing_more_of_it_is_cut(
    commands: Commands, beside: Running
):
    for name, given in {
        "ada": "  with spaces  \n",
        "bob": "  with spaces  \r\n",
        "eve": "  with spaces  ",
    }.items():
        done = await commands.beside("users", "add", name, "--email", f"{name}@example.com", given=given)
        assert done.exit_code == 0
        assert (await beside.log_in(name, "  with spaces  "))["user"] == {
            "id": done.stdout.strip(),
            "username": name,
            "email": f"{name}@example.com",
        }


async def test_a_hash_of_another_system_opens_the_account_with_its_password(
    commands: Commands, beside: Running
):
    old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    assert (await commands.beside("users", "add", "ada", "--hash", given=old + "\n")).exit_code == 0
    await beside.log_in("ada")


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("ada",), "seven77\n", "password: Use at least 8 characters."),
        (("ada",), "x" * 257 + "\n", "password: Use at most 256 characters."),
        (("ada",), "", "Password: send it as one line on standard input."),
        (("ada",), b"\xff\xfe long enough\n", "Standard input is not UTF-8. Send UTF-8 text."),
        (("two words",), TYPED, r"username: Use 1 to 150 letters, digits and @ \. \+ - _"),
        (("Taken",), TYPED, "This username is taken. Choose another."),
        (("ada", "--email", "nowhere"), TYPED, "email: Use an address such as ada@example.com."),
        (("ada", "--email", "a@" + "b" * 320), TYPED, "email: Use an address such as ada@example.com."),
        (("ada", "--hash"), "", "Hash: send it as one line on standard input."),
        (("ada", "--hash"), "$2b$12$cut\n", "This looks like bcrypt, but it is truncated or malformed."),
        (
            ("ada", "--hash"),
            "{SHA}plain\n",
            "This looks like an LDAP hash, which cannot be verified here. .*",
        ),
        (
            ("ada", "--hash"),
            "$argon2id$" + "x" * 600,
            "This looks like Argon2, but it is truncated or malformed.",
        ),
    ],
)
def test_a_user_who_can_not_be_added_is_refused_in_one_line(commands: Commands, arguments, given, said):
    commands("users", "add", "taken", given=TYPED)
    assert re.fullmatch(said, commands.refused("users", "add", *arguments, given=given))
    assert [each["username"] for each in lines(commands("users", "list", "--json"))] == ["taken"]


async def test_json_lines_have_the_members_of_http(commands: Commands, beside: Running):
    for name in ("ada", "bob"):
        await commands.beside("users", "add", name, given=TYPED)
    await commands.beside("users", "set-roles", "ada", "admin", "editor")
    tokens = await beside.log_in("ada")
    users = (await beside.get("/admin/users", tokens)).json()["items"]
    assert lines(await commands.beside("users", "list", "--json")) == users
    assert lines(await commands.beside("users", "show", "ada", "--json")) == users[:1]
    events = (await beside.get("/admin/events", tokens)).json()["items"]
    assert lines(await commands.beside("audit", "--json")) == events
    sessions = (await beside.get(f"/admin/users/{users[0]['id']}/sessions", tokens)).json()["items"]
    told = lines(await commands.beside("sessions", "list", "--json"))
    assert [{**each, "current": True} for each in told] == [
        {"user_id": users[0]["id"], **each} for each in sessions
    ]


def test_tables_tell_people_the_same(commands: Commands):
    user_id = commands("users", "add", "ada", given=TYPED).stdout.strip()
    commands("users", "set-roles", "ada", "admin", "editor")
    commands("users", "set-claims", "ada", '{"plan": "team"}')
    listed = table(commands("users", "list").stdout)
    assert [row[:4] for row in listed] == [[user_id, "ada", "admin,", "editor"]]
    shown = {row[0]: " ".join(row[1:]) for row in table(commands("users", "show", "ada").stdout)}
    assert (shown["roles"], shown["claims"], shown["email"]) == ("admin, editor", '{"plan": "team"}', "")
    kinds = [row[1] for row in table(commands("audit", "--user", "ada").stdout)]
    assert kinds == ["user.changed", "user.changed", "user.created"]


def test_a_list_is_paged_to_its_limit_and_says_when_there_is_more(commands: Commands):
    commands("users", "add", "first", given=TYPED)
    for number in range(3):
        commands("users", "set-roles", "first", f"role{number}")
    whole = commands("audit", "--json")
    assert (len(whole.stdout.splitlines()), whole.stderr) == (4, "")
    assert len(commands("audit", "--limit", "4", "--json").stdout.splitlines()) == 4
    cut = commands("audit", "--limit", "3", "--json")
    assert (len(cut.stdout.splitlines()), cut.stderr) == (3, "There are more: see --limit.\n")
    assert cut.stdout == "".join(whole.stdout.splitlines(keepends=True)[:3])


async def test_a_list_longer_than_a_page_is_whole(commands: Commands, beside: Running):
    add = beside.container.accounts.add
    added = [await add(f"u{number}", None, password=PASSWORD, hashed=None) for number in range(205)]
    everybody = [ids.public("user", each.id) for each in added]
    whole = lines(await commands.beside("users", "list", "--limit", "1000", "--json"))
    assert [each["id"] for each in whole] == everybody
    cut = await commands.beside("users", "list", "--limit", "150", "--json")
    assert [each["id"] for each in lines(cut)] == everybody[:150]
    assert cut.stderr == "There are more: see --limit.\n"


async def test_nothing_that_a_client_sent_steers_the_terminal(commands: Commands, beside: Running):
    """Fails without `shown` in cli.lists._cell, and in JSON without the escapes of json.dumps."""
    await commands.beside("users", "add", "ada", given=TYPED)
    claims = await beside.container.checks.genuine((await beside.log_in())["access_token"])
    user_id, session_id = lifecycle.owner(claims)
    async with beside.container.store.begin() as tx:  # stored by versions before the rule for names
        await tx.sessions.name_device(user_id, session_id, "\x9b31m\u202e[red]:bomb:")
    done = await commands.beside("sessions", "list", "--user", "ada")
    assert r"\x9b31m\u202e[red]:bomb:" in done.stdout
    done = await commands.beside("sessions", "list", "--json")
    assert done.stdout.isascii()
    assert lines(done)[0]["device_name"] == "\x9b31m\u202e[red]:bomb:"
    done = await commands.beside("sessions", "revoke", "sess\x1b[2J", "--user", "ada")
    assert done.stderr == "sessionapi: ada has no active session sess\\x1b[2J.\n"


async def test_claims_come_from_the_argument_or_standard_input_into_the_next_token(
    commands: Commands, beside: Running
):
    await commands.beside("users", "add", "ada", given=TYPED)
    await commands.beside("users", "set-claims", "ada", '{"plan": "team", "sub": "root"}')
    assert claims_of(await beside.log_in())["plan"] == "team"
    done = await commands.beside("users", "set-claims", "ada", "-", given='{"tier": "λ"}\n')
    assert done.stderr == 'Claims of ada: {"tier": "\\u03bb"}\n'
    claims = claims_of(await beside.log_in())
    assert (claims["tier"], "plan" in claims) == ("λ", False)


def claims_of(answer: dict) -> dict:
    return access_token.jwt.decode(answer["access_token"], options={"verify_signature": False})


@pytest.mark.parametrize(
    ("claims", "given", "said"),
    [
        ("{", "", "The claims are not valid JSON. .*"),
        ("-", b"\xff", "Standard input is not UTF-8. Send UTF-8 text."),
        ("-", "[" * 100_000, "The claims are not valid JSON. .*"),
        ("[1]", "", "The claims must be one JSON object.*"),
        ('{"a": NaN}', "", "data: It contains a number or string that is not valid JSON, .*"),
        ('{"a": "' + "x" * 5000 + '"}', "", "data: The whole object would have 5008 bytes; .*"),
    ],
)
def test_claims_that_can_not_be_kept_are_refused(commands: Commands, claims, given, said):
    commands("users", "add", "ada", given=TYPED)
    assert re.fullmatch(said, commands.refused("users", "set-claims", "ada", claims, given=given))
    assert lines(commands("users", "show", "ada", "--json"))[0]["claims"] == {}


def test_roles_are_replaced_and_none_takes_them_all(commands: Commands):
    commands("users", "add", "ada", given=TYPED)
    assert commands("users", "set-roles", "ada", "admin", "editor").stderr == (
        "Roles of ada: admin, editor\n"
    )
    assert commands.refused("users", "set-roles", "ada", "not a role").startswith("roles: Use at most 32")
    assert commands.refused("users", "set-roles", "ada", *map(str, range(33))).startswith("roles: ")
    assert commands("users", "set-roles", "ada").stderr == "Roles of ada: none\n"
    assert lines(commands("users", "show", "ada", "--json"))[0]["roles"] == []


async def test_disabling_ends_the_sessions_and_enabling_brings_none_back(commands: Commands, beside: Running):
    await commands.beside("users", "add", "ada", given=TYPED)
    tokens = await beside.log_in()
    assert (
        await commands.beside("users", "disable", "Ada")
    ).stderr == "Disabled ada and ended its sessions.\n"
    assert (await beside.refresh(tokens)).json()["reason"] == "user_disabled"
    assert (await commands.beside("users", "enable", "ada")).stderr == "Enabled ada.\n"
    assert (await beside.refresh(tokens)).json()["reason"] == "user_disabled"
    await beside.log_in()


async def test_a_deleted_user_is_gone_and_the_name_is_free(commands: Commands, beside: Running):
    user_id = (await commands.beside("users", "add", "ada", given=TYPED)).stdout.strip()
    tokens = await beside.log_in()
    assert (await commands.beside("users", "delete", "ada", "--yes")).stderr == "Deleted ada.\n"
    assert (await beside.refresh(tokens)).json()["reason"] == "user_deleted"
    assert (
        await commands.beside("users", "show", user_id)
    ).stderr == f"sessionapi: The user {user_id} does not exist. See: sessionapi users list\n"
    told = lines(await commands.beside("audit", "--user", user_id, "--json"))
    assert [each["kind"] for each in told][:2] == ["session.ended", "user.deleted"]
    assert (await commands.beside("users", "add", "ada", given=TYPED)).exit_code == 0


def test_without_a_terminal_a_delete_needs_its_yes(commands: Commands):
    commands("users", "add", "ada", given=TYPED)
    said = commands.refused("users", "delete", "ada", given="y\n")
    assert said == "Delete ada permanently? Without a terminal, confirm with --yes."
    assert commands("users", "show", "ada").exit_code == 0


def test_a_reset_prints_a_link_whose_token_no_server_sees(commands: Commands, monkeypatch):
    monkeypatch.setenv("SESSIONAPI_PUBLIC_URL", "https://login.example.com/")
    commands("users", "add", "ada", given=TYPED)
    done = commands("users", "reset-password", "ada")
    token = done.stdout.split()[1]
    link = f"https://login.example.com/reset-password#token={token}"
    assert done.stdout == f"Token  {token}\nLink   {link}\n"
    assert httpx.URL(link).raw_path == b"/reset-password"
    assert done.stderr == "Valid once, for 30 minutes. Earlier tokens are no longer valid.\n"


@pytest.mark.parametrize(
    "command",
    [
        ("users", "show"),
        ("users", "disable"),
        ("users", "enable"),
        ("users", "delete", "--yes"),
        ("users", "set-roles"),
        ("users", "reset-password"),
        ("sessions", "list", "--user"),
        ("sessions", "revoke", "--user"),
        ("audit", "--user"),
    ],
)
def test_an_unknown_user_is_told_in_one_line(commands: Commands, command):
    assert commands.refused(*command, "nobody").startswith("The user nobody does not exist.")
    assert commands("users", "set-claims", "nobody", "{}").exit_code == 1
    if command != ("audit", "--user"):  # the log may be all that is left of a deleted user
        unknown = ids.public("user", ids.new_id())
        assert commands.refused(*command, unknown).startswith(f"The user {unknown} does not exist.")


def test_nobody_takes_anothers_place_by_a_name_that_looks_like_an_id(commands: Commands):
    """Fails if cli.context.find doesn't look for an id first."""
    ada = commands("users", "add", "ada", given=TYPED).stdout.strip()
    commands("users", "add", ada, given=TYPED)
    commands("users", "set-roles", ada, "admin")
    roles = {each["username"]: each["roles"] for each in lines(commands("users", "list", "--json"))}
    assert roles == {"ada": ["admin"], ada: []}


@pytest.mark.engines("sqlite")
def test_the_small_commands_say_what_they_are_for(commands: Commands):
    assert commands("version").stdout == f"{__version__}\n"
    assert commands("settings").stdout == f"{settings_table.table()}\n"
    assert commands.refused("migrate").startswith("the database at ")
    commands("users", "list")
    assert commands("migrate").stdout == "The schema is up to date.\n"
    assert commands("migrate", "--check").stdout == "The schema is up to date.\n"


def test_a_refusal_of_the_database_says_what_the_driver_said(capsys):
    problem = Unavailable()
    problem.cause = "database is locked\x1b[2J"
    prompts.complain(problem)
    assert capsys.readouterr().err == (
        "sessionapi: The database can't be reached. Nothing was changed. Try again shortly."
        " (database is locked\\x1b[2J)\n"
    )
