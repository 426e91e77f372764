"""`uploader judge` as a command: its outputs, its exit codes, and clients that do not work."""

from __future__ import annotations

import json
import runpy
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from command import finish, start, uploader

if TYPE_CHECKING:
    from command import Process

CLIENT = Path(__file__).parent / "ietf_client.py"
CORRECT = f"{shlex.quote(sys.executable)} -SIE {shlex.quote(str(CLIENT))} {{url}} {{file}}"
FEW = ("--only", "ietf-plain", "--only", "ietf-404")


def test_client_of_the_protocol_passes(tmp_path: Path) -> None:
    done = uploader("judge", "--for", CORRECT, *FEW, "--junit", tmp_path / "judge.xml", "--json", home=tmp_path)
    *checks, end = map(json.loads, done.out.splitlines())
    assert (done.code, [one["verdict"] for one in checks]) == (0, ["pass", "pass"]), done.err
    assert [one["requests"][-1] for one in checks] == ["POST 200", "HEAD 404"]
    assert (end["type"], end["client"], end["calls"], end["exit_code"]) == ("verdict", CORRECT, 3, 0)
    suite = ET.parse(tmp_path / "judge.xml").getroot()[0]
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("uploader judge", "2", "0")


def test_client_of_tus_passes(tmp_path: Path) -> None:
    client = CORRECT.replace("ietf_client", "tus_client")
    done = uploader("judge", "--protocol", "tus", "--for", client, "--only", "tus-4*", "--json", home=tmp_path)
    *checks, _ = map(json.loads, done.out.splitlines())
    assert (done.code, [one["verdict"] for one in checks]) == (0, ["pass", "pass"]), done.err


@pytest.mark.parametrize(
    ("client", "code", "verdict", "words"),
    [
        ("true", 3, "error", "sent no request: exit code 0, no output"),
        ("/nowhere/client {url}", 3, "error", "can't be started: exit code 127"),
        (f"{CORRECT} more", 3, "error", "sent no request: exit code 1, TypeError"),
        (f"{CORRECT}; exit 1", 4, "fail", "expected exit code 0 and a complete upload"),
        (f"{CORRECT.replace('{file}', shlex.quote(str(CLIENT)))}", 7, "fail", "exit code 0 only for"),
        ("curl -sS -f -T {file} {url}", 0, "not offered", "sends no Upload-Complete"),
        ('curl -sS -f -T "$JUDGE_FILE" "$JUDGE_URL"', 0, "not offered", "sends no Upload-Complete"),
        ("sleep 60", 3, "error", "did not end within 1 s"),
    ],
)
def test_client_that_does_otherwise(client: str, code: int, verdict: str, words: str, tmp_path: Path) -> None:
    done = uploader("judge", "--for", client, "--only", "ietf-plain", "--timeout", "1", home=tmp_path)
    assert done.code == code, done.err
    assert f" {verdict} " in done.err
    assert words in " ".join(done.err.split())


def test_warning_fails_with_strict_only(tmp_path: Path) -> None:
    gives_up = (CLIENT.read_text(encoding="utf-8")).replace("if self.url is None:", "if True:")
    (tmp_path / "client.py").write_text(gives_up, encoding="utf-8")
    how = ("judge", "--for", f"{sys.executable} client.py {{url}} {{file}}", "--only", "ietf-104-early")
    assert uploader(*how, home=tmp_path).code == 0
    strict = uploader(*how, "--strict", "--junit", "judge.xml", home=tmp_path)
    assert strict.code == 4, strict.err
    failure = ET.parse(tmp_path / "judge.xml").find(".//failure")
    assert failure is not None
    assert failure.get("message") == "it gives up, which the draft permits"


def invited(process: Process) -> tuple[Path, dict[str, str]]:
    """Read what a client is to send, and the URLs by situation."""
    assert process.stderr is not None
    line, urls = "", {}
    while not line.startswith("Send "):
        line = process.stderr.readline()
    file = Path(line.split()[1])
    for _ in range(2):
        url = process.stderr.readline().strip()
        urls[url.split("/")[3]] = url
    return file, urls


def test_clients_that_come_are_judged_at_the_interrupt(tmp_path: Path) -> None:
    process = start("judge", *FEW, home=tmp_path)
    file, urls = invited(process)
    client = runpy.run_path(str(CLIENT))["main"]
    assert client(urls["ietf-plain"], file) == 0
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 0, done.err
    assert "1 check passed (1 skipped)" in done.err
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "tus-*"], "--only: no situation matches 'tus-*'"),
        (["--only", "ietf-404", "--skip", "*"], "--skip excludes all situations of --only"),
        (["--for", "true", "--junit", "/nowhere/judge.xml"], "--junit: no such directory: /nowhere"),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = uploader("judge", *arguments, home=tmp_path)
    assert (done.code, message in done.err) == (2, True), done.err


def test_list_has_all_situations(tmp_path: Path) -> None:
    done = uploader("judge", "--list", home=tmp_path)
    assert done.code == 0
    assert "ietf-cancel " in done.out
    assert done.out.count("(section ") == len(done.out.splitlines())
