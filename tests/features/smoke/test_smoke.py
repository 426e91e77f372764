"""`uploader smoke` as a command: its outputs and exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command import Done, environment, finish, start, uploader
from junit_rules import check_junit
from scripted_server import Peer, ScriptedServer
from serving import running_server

from uploader_cli.__main__ import main
from uploader_cli.features.smoke.runner import CHECKS, ON_REQUEST
from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SECRET = "a secret of this test that is long enough"
FEW = ("--only", "health", "--only", "session", "--only", "batch-one")


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run the command in this process, which is faster than a new one."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("UPLOADER_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> Done:
        code = main(["smoke", *arguments])
        return Done(code, *capsys.readouterr())

    return run


def lines_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.thorough
def test_output_for_people_is_on_stderr(server: EmbeddedServer, tmp_path: Path) -> None:
    """On stderr, in 80 columns, without colours, the verdict last; nothing on stdout."""
    done = uploader("smoke", "-s", server.url, home=tmp_path)
    assert (done.code, done.out) == (0, "")
    lines = done.err.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.err
    assert lines[0] == f"uploader smoke: {server.url}"
    for check in CHECKS:
        assert any(check.id in line for line in lines)
    assert lines[-1] == "✓ 31 checks passed (6 not offered, 1 skipped)"
    assert "Left on the server (8):" in done.err
    before, _, after = done.err.partition("✓ pass")
    (name,) = re.findall(r"files of the checks\s+stay\s+on\s+the\s+server,\s+as\s+(uploader-smoke-\S+-)\*", before)
    assert name in after


def test_json_and_junit_include_the_cleanup(tmp_path: Path) -> None:
    """A line per check and the verdict on stdout, nothing on stderr; with a token everything is deleted."""
    (tmp_path / "token").write_text(issue_token(SECRET))
    with running_server(jwt_secret=SECRET, fail_files=("*-one.*",)) as server:
        options = (*FEW, "--only", "clean-up", "--json", "--junit", "report.xml", "--token-file", "token")
        done = uploader("smoke", "-s", server.url, *options, home=tmp_path)
    *checks, verdict = lines_of(done.out)
    assert (done.code, done.err) == (4, "")
    assert [(check["id"], check["verdict"]) for check in checks] == [
        ("health", "pass"),
        ("session", "pass"),
        ("batch-one", "fail"),
        ("clean-up", "pass"),
    ]
    assert {check["type"] for check in checks} == {"check"}
    failure = checks[2]
    assert failure["expected"] == '"completed"'
    assert failure["got"].startswith('"failed": ')
    assert failure["means"] == "files don't arrive"
    assert verdict["type"] == "verdict"
    assert (verdict["ok"], verdict["exit_code"], verdict["against"]) == (False, 4, ["batch-one"])
    assert verdict["calls"] == sum(check["calls"] for check in checks)
    assert verdict["left"] == []
    suite = check_junit((tmp_path / "report.xml").read_text())[0]
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")


def test_optional_check_fails_the_run_only_with_strict(server: EmbeddedServer, typed: Callable[..., Done]) -> None:
    """A check that is not required fails the run only then."""
    server.faults.next_answers("POST", "/api/upload/validate", [500, 500])
    mild = typed("-s", server.url, "--only", "validate")
    hard = typed("-s", server.url, "--only", "validate", "--strict")
    assert (mild.code, hard.code) == (0, 4)
    assert "not required and failed: validate" in mild.err
    assert "1 of 1 check failed: validate" in hard.err


def test_only_and_skip_choose_checks_and_list_names_them(server: EmbeddedServer, typed: Callable[..., Done]) -> None:
    """Ids and globs; the list needs no server."""
    listed = typed("--list")
    assert (listed.code, listed.err) == (0, "")
    assert [line.split()[0] for line in listed.out.splitlines()] == [check.id for check in (*CHECKS, *ON_REQUEST)]
    some = typed("-s", server.url, "--only", "session*", "--skip", "*-input", "--json")
    assert [line.get("id") for line in lines_of(some.out)] == ["session", None]


def test_budget_limits_the_calls_and_skips_checks(server: EmbeddedServer, typed: Callable[..., Done]) -> None:
    """Checks beyond the budget are not made, and the run is not a success."""
    done = typed("-s", server.url, "--budget", "3", "--json")
    verdict = lines_of(done.out)[-1]
    assert (done.code, verdict["budget"]) == (3, 3)
    assert verdict["calls"] <= 3
    assert verdict["counts"]["not_run"] > 10


def test_exit_code_2_before_the_first_call(
    subtests: pytest.Subtests, server: EmbeddedServer, typed: Callable[..., Done]
) -> None:
    for options, word in (
        (("--only", "helth"), "no check matches 'helth'"),
        (("--junit", "no/such/place.xml"), "--junit"),
        (("--budget", "0"), "--budget"),
        (("--token-file", "none"), "none"),
    ):
        with subtests.test(options=options, word=word):
            done = typed("-s", server.url, *options)
            assert (done.code, done.out) == (2, "")
            assert word in done.err
    assert len(server.faults.requests) == 0


def test_unwritable_junit_file_keeps_the_verdict(server: EmbeddedServer, typed: Callable[..., Done]) -> None:
    """The disk is full at the end: that is reported after the verdict, and changes only exit code 0."""
    good = typed("-s", server.url, "--only", "health", "--junit", "/dev/full")
    assert good.code == 2
    verdict, problem = good.err.splitlines()[-2:]
    assert verdict == "✓ 1 check passed"
    assert problem.startswith("error: --junit: /dev/full can't be written: ")
    server.faults.next_answers("GET", "/health", [500])
    assert typed("-s", server.url, "--only", "health", "--junit", "/dev/full").code == 4


def test_quiet_and_verbose(server: EmbeddedServer, typed: Callable[..., Done]) -> None:
    """Quiet: nothing but what failed. Verbose: what each check is about."""
    quiet = typed("-s", server.url, *FEW, "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    verbose = typed("-s", server.url, *FEW, "-v")
    assert "GET /health returns OK" in verbose.err
    server.faults.next_answers("GET", "/health", [500])
    broken = typed("-s", server.url, "--only", "health", "-q")
    assert broken.code == 4
    assert broken.err.splitlines()[0].startswith("✗ fail         health ")


def test_ctrl_c_cleans_up(tmp_path: Path) -> None:
    """130, the sessions that were opened are cancelled, and the JUnit file is there."""
    with running_server(processing_seconds=60) as server:
        process = start("smoke", "-s", server.url, "--json", "--junit", "report.xml", home=tmp_path)
        assert process.stdout is not None
        while '"unknown-session"' not in process.stdout.readline():  # the next one uploads, and waits for an answer
            pass
        process.send_signal(signal.SIGINT)
        done = finish(process)
        assert server.faults.count("POST", "/api/upload/cancel/*") == 2, "an unknown one, and the one that was open"
    verdict = lines_of(done.out)[-1]
    assert (done.code, verdict["exit_code"], verdict["left"]) == (130, 130, [])
    assert check_junit((tmp_path / "report.xml").read_text())[0].get("tests") == str(len(CHECKS))


def test_signal_ends_a_command_that_waits_to_write_its_junit_file(server: EmbeddedServer, tmp_path: Path) -> None:
    """The file is a pipe that nothing reads. The first signal may come before or after the last check."""
    os.mkfifo(tmp_path / "report.xml")
    process = start("smoke", "-s", server.url, "--json", "--only", "health", "--junit", "report.xml", home=tmp_path)
    assert process.stdout is not None
    while '"exit_code"' not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130


@pytest.mark.thorough
def test_on_a_terminal_of_40_columns(server: EmbeddedServer, tmp_path: Path) -> None:
    """Colours, and the running check; no line is wider than the terminal."""
    command = (
        f"stty cols 40; {shlex.quote(sys.executable)} -m uploader_cli smoke -s {server.url} --only 'l*' {' '.join(FEW)}"
    )
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        capture_output=True,
        check=False,
        timeout=60,
        env=environment(tmp_path, TERM="xterm"),
    )
    shown = done.stdout.decode()
    assert done.returncode == 0, shown
    assert "\x1b[32m✓\x1b[0m health" in shown
    assert "… session\r\x1b[K" in shown
    for line in shown.replace("\r\n", "\n").split("\n"):
        seen = line.rpartition("\x1b[K")[2]
        for colour in ("\x1b[0m", "\x1b[32m", "\x1b[2m"):
            seen = seen.replace(colour, "")
        assert len(seen) <= 40, seen


@pytest.mark.parametrize(("option", "path"), [("--server", ""), ("--server", "/up"), ("--tus-endpoint", "/files/")])
def test_redirect_names_the_address_to_use(option: str, path: str, tmp_path: Path) -> None:
    """Not that of a call, or of an upload."""

    def moved(peer: Peer) -> None:
        while True:
            line, _, _ = peer.request()
            peer.answer(301, Location=f"https://new.example{line.split()[1]}")

    with ScriptedServer(moved) as server:
        done = uploader("smoke", option, server.url + path, "--json", home=tmp_path)
    assert done.code == 6, done.err
    assert f'"301, to https://new.example{path}"' in done.out
