"""The file of the client: its size, how it is served, and that its types name exactly its exports."""

import gzip
import re

import pytest

from sessionapi.web.routes.session_client import STATIC
from tests.support.app import Running, running

SOURCE = (STATIC / "session-client.js").read_text()
TYPES = (STATIC / "session-client.d.ts").read_text()
BOTH = [("/session-client.js", "text/javascript"), ("/session-client.d.ts", "text/plain")]


def test_it_has_at_most_five_kilobytes_and_no_dependencies():
    assert len(gzip.compress(SOURCE.encode(), mtime=0)) <= 5_000
    assert "import " not in SOURCE


@pytest.mark.parametrize(("path", "media_type"), BOTH)
async def test_any_origin_may_load_it_and_whoever_has_it_is_answered_304(service: Running, path, media_type):
    answer = await service.client.get(path, headers={"Origin": "https://app.example.com"})
    assert answer.headers["content-type"].startswith(media_type)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for known in (tag, f"W/{tag}", f'"another", {tag}'):
        again = await service.client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["access-control-allow-origin"] == "*"
    assert (await service.client.get(path, headers={"If-None-Match": '"another"'})).status_code == 200


async def test_it_is_there_without_the_pages(make_settings, clock):
    async with running(make_settings(pages=False), clock) as service:
        assert (await service.client.get("/session-client.js")).status_code == 200


def test_the_types_name_every_member_and_no_other():
    returned = SOURCE[SOURCE.rindex("  return {") :]
    members = set(re.findall(r"^    (?:get )?(\w+)", returned, re.MULTILINE))
    declared = TYPES[TYPES.index("export interface Client {") :]
    assert members == set(re.findall(r"^  (?:readonly )?(\w+)", declared.split("\n}")[0], re.MULTILINE))
    options = re.search(r"createClient\(\{ (.*?) \} = \{\}\)", SOURCE)
    assert options
    named = set(re.findall(r"(\w+) =", options.group(1)))
    declared = TYPES[TYPES.index("export interface Options {") :].split("\n}")[0]
    assert named == set(re.findall(r"^  (\w+)\?", declared, re.MULTILINE))
