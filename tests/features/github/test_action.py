"""`action.yml`: the script of the composite action, with the inputs, files and variables of a runner."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from command import DEADLINE, environment
from docs_pages import ROOT
from forking import make_program
from junit_rules import check_junit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
"""What a runner calls for `shell: bash`."""


class Runner:
    """A runner's machine on which the first step has installed the package."""

    def __init__(self, place: Path) -> None:
        self.place = place
        program = place / "temp/uploader/bin/uploader"
        program.parent.mkdir(parents=True)
        make_program(program)

    def run(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run the last step with these inputs, the others with their defaults."""
        step = STEPS[-1]
        given = {name: str(spec.get("default", "")) for name, spec in ACTION["inputs"].items()} | inputs
        variables = {
            name: given[re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)[1]]  # type: ignore[index]
            for name, value in step["env"].items()
        }
        files = {name: str(self.place / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        job = {"GITHUB_ACTIONS": "true", "CI": "true", "RUNNER_TEMP": str(self.place / "temp")}
        return subprocess.run(
            [*SHELL, "-c", step["run"]],
            cwd=self.place,
            env=environment(self.place, **variables, **files, **job),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )

    @property
    def outputs(self) -> dict[str, str]:
        """The outputs of the step."""
        return dict(line.split("=", 1) for line in (self.place / "GITHUB_OUTPUT").read_text().splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_action_uploads_with_a_report_and_a_summary(
    runner: Runner, server: EmbeddedServer, make_files: Callable[..., Path]
) -> None:
    files = make_files(**{"a b.mp4": 10, "--odd.mp4": 10, "left out.tmp": 10})
    paths, arguments = f"{files}\n", "--exclude\n*.tmp\n"
    done = runner.run(paths=paths, server=server.url, deadline="10m", args=arguments)
    assert done.returncode == 0, done.stderr
    assert runner.outputs["exit-code"] == "0"
    with open(runner.outputs["report"], encoding="utf-8") as stream:
        assert json.load(stream)["counts"]["completed"] == 2
    assert (runner.place / "GITHUB_STEP_SUMMARY").read_text().startswith("## ✓ 2 files uploaded")


def test_action_fails_with_annotations_and_the_exit_code(
    runner: Runner, server: EmbeddedServer, make_files: Callable[..., Path]
) -> None:
    server.faults.fail_files = ["bad*"]
    done = runner.run(paths=str(make_files(**{"bad.mp4": 10})), server=server.url)
    assert done.returncode == 4
    assert runner.outputs["exit-code"] == "4"
    assert "::error file=" in done.stderr


@pytest.mark.feature("smoke")
def test_action_checks_a_server(runner: Runner, server: EmbeddedServer) -> None:
    done = runner.run(command="smoke", server=server.url, args="--only\nhealth")
    assert done.returncode == 0, done.stderr
    with open(runner.outputs["report"], encoding="utf-8") as stream:
        assert check_junit(stream.read())[0].get("tests") == "1"
    assert (runner.place / "GITHUB_STEP_SUMMARY").read_text().startswith("## ✓ 1 check passed")


def test_action_refuses_another_command(runner: Runner) -> None:
    done = runner.run(command="serve")
    assert (done.returncode, done.stdout.startswith("::error::uploader: the input command")) == (2, True)


def test_every_output_of_the_action_is_set_by_its_step() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for name, spec in ACTION["outputs"].items():
        assert spec["value"] == f"${{{{ steps.{STEPS[-1]['id']}.outputs.{name} }}}}"
        assert f'echo "{name}=$' in STEPS[-1]["run"]
