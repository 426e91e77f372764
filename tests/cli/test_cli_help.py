"""What needs no server: help, version, and the imports at start-up."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from time_limits import PATIENCE
from tus_services import Plain
from typer.main import get_command

from uploader_cli import __version__, build
from uploader_cli.__main__ import main
from uploader_cli.cli.app import COMMANDS, app
from uploader_cli.feature import features
from uploader_cli.settings import OPTIONS
from uploader_cli.settings.model import SECTIONS

COMMAND_OBJECTS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
HEAVY = {
    "requests",
    "urllib3",
    "socketio",
    "engineio",
    "rich",
    "pydantic",
    "starlette",
    "granian",
    "platformdirs",
    "tomllib",
}

FOR_FEW_UPLOADS = "requests urllib3 socketio engineio websocket rich pathspec fsspec distributed pydantic xml tomllib"
"""Imported for TLS, a proxy, a followed session, a terminal, patterns, URLs, a cluster, a report or a config file."""


def modules_after(*argv: str) -> tuple[int, str, set[str]]:
    """Return exit code, stdout and imported modules of one run in its own process."""
    return modules_of(f"from uploader_cli.__main__ import main\ncode = main({list(argv)!r})")


def modules_of(body: str) -> tuple[int, str, set[str]]:
    """Return exit code (`code` of the body), stdout and imported modules of a script in its own process."""
    script = (
        f"import sys, json\nbefore, code = set(sys.modules), 0\n{body}\n"
        "sys.stderr.write(json.dumps(sorted(set(sys.modules) - before)))\nsys.exit(code)"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", script]  # measuring coverage would import its own modules
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=plain)
    return done.returncode, done.stdout, set(json.loads(done.stderr))


def test_help_and_version_import_nothing_heavy() -> None:
    """All calls are made in one process, which has the imports of each."""
    calls = [["--version"], ["--help"], *([command, "--help"] for command in COMMANDS)]
    code, stdout, modules = modules_of(
        "from uploader_cli.__main__ import main\n"
        f"for argv in {calls}:\n"
        "    code = code or main(argv)\n"
        "    print('end of', argv)"
    )
    assert code == 0
    *printed, rest = re.split("^end of .*\n", stdout, flags=re.MULTILINE)
    assert (len(printed), all(printed), rest) == (len(calls), True, "")
    assert not {module.partition(".")[0] for module in modules} & HEAVY


def test_version_goes_to_stdout() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uploader_cli", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("uploader ")


def test_version_with_v_names_commit_and_python(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version", "-v"]) == 0
    version, commit, python = capsys.readouterr().out.splitlines()
    assert version == f"uploader {__version__}"
    assert re.fullmatch(r"commit ([0-9a-f]{40}(-dirty)?|unknown)", commit)
    assert python.startswith(f"Python {platform.python_version()} on ")


def test_commit_of_a_clone_is_a_hash_also_at_a_tag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "src" / "uploader_cli"
    package.mkdir(parents=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "One"], ["tag", "-a", "v1", "-m", "One"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True)
    monkeypatch.setattr(build, "PACKAGE", package)
    assert build.build().startswith(f"commit {commit}")


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["upload", "--help"]], ids=" ".join)
def test_help_and_version_start_with_typer_alone(argv: list[str]) -> None:
    """Imports decide the start-up time; `python -m benchmarks startup` measures it."""
    _, _, modules = modules_after(*argv)
    foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert foreign <= {"uploader_cli", "uploader_server", "typer", "annotated_doc", "shellingham"}
    assert "importlib.metadata" not in modules


def test_version_imports_only_the_entry_point() -> None:
    _, _, modules = modules_after("--version")
    assert {module for module in modules if module.startswith("uploader_cli")} == {
        "uploader_cli",
        "uploader_cli.__main__",
    }
    assert not {"typer", "inspect", "dataclasses", "enum", "importlib.metadata"} & modules


def test_help_of_a_command_imports_that_command_alone() -> None:
    _, _, modules = modules_after("status", "--help")
    shared = {"uploader_cli.cli.app", "uploader_cli.cli.options"}
    assert {module for module in modules if module.startswith("uploader_cli.cli.")} - shared == {
        "uploader_cli.cli.sessions"
    }
    assert not {module for module in modules if module.startswith(("uploader_cli.run", "uploader_cli.core.events"))}


def test_upload_imports_only_what_every_upload_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no config file
    (tmp_path / "one.bin").write_bytes(b"content")
    with Plain() as plain:
        code, _, modules = modules_after("upload", "--tus-endpoint", plain.url, "--json", "--quiet", "one.bin")
    assert (code, len(plain.uploads)) == (0, 1)
    assert {module for module in modules if module.partition(".")[0] in FOR_FEW_UPLOADS.split()} == set()
    rare = (
        "checks",
        "features.fleet.driver",
        "features.urls.reading",
        "realtime.socket",
        "render.live",
        "report.document",
        "features.analysis.phase",
        "selection.manifest",
    )
    assert not {module for module in modules if module.startswith(tuple(f"uploader_cli.{name}" for name in rare))}


def test_help_has_sections_and_the_width_of_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    assert main(["upload", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == ["Arguments:", *(f"{section}:" for section in SECTIONS)]
    assert 100 < max(map(len, lines)) <= 150


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert "Usage: uploader" in stderr


def test_settings_and_options_of_upload_are_the_same() -> None:
    """But those of other commands of features, and the token: a command line is read by everybody on the machine."""
    upload = COMMAND_OBJECTS["upload"]
    flags = {param.opts[0] for param in upload.params if param.param_type_name == "option"}
    others = {option.name for feature in features() for option in feature.options if "upload" not in option.commands}
    table = {option.flag for option in OPTIONS.values() if option.commands and option.name not in others}
    assert flags == table | {"--json-schema"}
    assert "--token" not in flags


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"serve", "report", "presets", "import"}))
def test_help_names_the_variable_of_each_setting(command: str) -> None:
    for param in COMMAND_OBJECTS[command].params:
        if param.name in OPTIONS:
            assert OPTIONS[param.name].variable in param.help


def test_command_has_the_name_of_the_package_as_well() -> None:
    """`uvx uploader-cli` runs the script of that name."""
    scripts = {
        entry.name: entry.value for entry in distribution("uploader-cli").entry_points.select(group="console_scripts")
    }
    assert scripts["uploader-cli"] == scripts["uploader"]
