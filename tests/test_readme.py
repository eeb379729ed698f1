"""The documents match the code: the README's commands run, its table is current, every error is listed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer.main

from sessionapi import cli
from sessionapi.cli import settings_table
from sessionapi.web.problems import STATUS
from tests.support.server import serving
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_the_first_two_commands_are_targets_of_the_makefile():
    targets = re.findall(r"^make (\w+)", SHELL[0], re.MULTILINE)
    assert targets == ["run", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_curl_line_of_the_readme_works(tmp_path):
    with serving(tmp_path / "var") as server:
        said = []
        for block in SHELL[1:]:
            script = block.replace("http://localhost:8000", server.url)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
            )
            said.append(done.stdout)
    kept = (tmp_path / "tokens.json").read_text()
    subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / "tokens.json").read_text() == kept  # a failed attempt loses nothing
    assert '"token_type": "Bearer"' in said[0]
    assert '"data":"Protected data"' in said[1]
    assert "access_token" in (tmp_path / "tokens.json").read_text()
    assert len(said) == 3


def test_the_table_of_the_settings_is_made_from_the_code():
    page = (ROOT / "docs" / "settings.md").read_text()
    shown = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", page, re.DOTALL)
    assert shown
    assert shown.group(1) == settings_table.table(), (
        "copy what `sessionapi settings` prints to docs/settings.md"
    )


def test_every_error_code_is_told_with_its_status_and_none_more():
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert {code: int(status) for code, status in rows} == {
        code: status for code, (status, _) in STATUS.items()
    }


def commands_of(group: typer.core.TyperGroup, before: str = "") -> set[str]:
    """Return all commands as they are typed."""
    found = set()
    for name, command in group.commands.items():
        found |= commands_of(command, f"{name} ") if hasattr(command, "commands") else {before + name}
    return found


def test_every_command_is_told_with_an_example_and_none_more():
    page = (ROOT / "docs" / "cli.md").read_text()
    told = dict(re.findall(r"^\| `([a-z -]+)` \| `sessionapi ([^`]+)` \|", page, re.MULTILINE))
    assert set(told) == commands_of(typer.main.get_command(cli.app))
    assert all(example.startswith(name) for name, example in told.items())


def test_every_link_to_a_file_leads_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")


def install_steps() -> list[str]:
    """Return the commands of the Dockerfile that install, in order."""
    runs = re.findall(r"^RUN (.*(?:venv|pip).*)$", DOCKERFILE, re.MULTILINE)
    return [run.replace(" --no-cache-dir", "") for run in runs]


def test_the_dockerfile_and_the_makefile_install_only_what_is_pinned_with_hashes():
    for text in ("\n".join(install_steps()), (ROOT / "Makefile").read_text()):
        installs = re.findall(r"(?:pip|\$\(PIP\)) (?:install|wheel) .*", text)
        ours = [line for line in installs if "--no-deps" in line]
        pinned = [line for line in installs if "--require-hashes" in line]
        assert ours
        assert all("--no-build-isolation" in line or "/dist/*.whl" in line for line in ours)
        assert {line for line in installs if "pip-tools" not in line} == {*ours, *pinned}
        assert "requirements-build.lock" in " ".join(pinned)


def test_the_image_runs_as_a_user_with_a_number():
    """Kubernetes' `runAsNonRoot` accepts only a numeric user."""
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_the_health_check_of_the_image_uses_the_port_that_the_service_listens_on(tmp_path):
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found
    command = [sys.executable, *json.loads(found.group(1))[1:]]
    (default,) = re.findall(r"^ENV .*\bPORT=(\d+)", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE) == [default]
    with serving(tmp_path / "var") as server:
        port = {**os.environ, "PORT": str(httpx.URL(server.url).port)}
        eventually(lambda: subprocess.run(command, env=port, capture_output=True).returncode == 0)
    assert subprocess.run(command, env=port, capture_output=True).returncode == 1


@pytest.mark.prove
@pytest.mark.skipif(
    "SESSIONAPI_PROVE" not in os.environ, reason="installs everything anew: run by make prove"
)
def test_the_install_steps_of_the_dockerfile_work_in_a_clean_environment(tmp_path):
    for step in install_steps():
        command = step.replace("/opt/sessionapi", str(tmp_path / "venv"))
        command = command.replace("/opt/build", f"{tmp_path}/build").replace("/dist", f"{tmp_path}/dist")
        subprocess.run(["bash", "-c", command], cwd=ROOT, check=True)
    said = subprocess.check_output([tmp_path / "venv/bin/sessionapi", "version"], cwd=tmp_path, text=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", said)
