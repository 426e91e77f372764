"""`uploader serve`: the bundled server behind the project's own command."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
from patience import PATIENCE
from typer.main import get_command

from uploader_cli.__main__ import main
from uploader_cli.cli.app import app
from uploader_server.__main__ import configured, parser


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the server's own command line was called with."""
    calls: list[list[str]] = []

    def serve(argv: list[str], prog: str) -> int:
        assert prog == "uploader serve"
        calls.append(argv)
        return 0

    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, "uploader_server.__main__", SimpleNamespace(main=serve))
    return calls


def test_serve_passes_options_to_the_server(handed_over: list[list[str]]) -> None:
    argv = ["--host", "::1", "--port", "0", "--root", "some dir", "--durability", "none", "--as", "reference"]
    argv += ["--max-files", "3"]
    argv += ["--max-size", "8MB", "--types", "mp4,avi", "--rate-limit", "100", "--session-ttl", "60"]
    argv += ["--no-tus", "--no-packs", "--no-anonymous-tus", "--upload-ttl", "3600", "--min-rate", "0"]
    argv += ["--fault", "lose:patch#1", "--fault", "latency:5", "--list-faults", "--fault-control"]
    argv += ["--realtime", "flap:3", "--websocket", "off", "--latency", "20", "--processing", "0.5"]
    argv += ["--fail-file", "a*", "--fail-file", "b*", "--analysis-seconds", "1", "--analysis", "silent"]
    argv += ["--jwt-secret-file", "secret", "--auth-token-file", "token"]
    argv += ["--cors-origin", "https://a.example", "--allow-host", "b.example", "--behind-proxy", "10.0.0.7"]
    argv += ["--max-connections", "9", "--max-joins", "99", "--max-share", "50"]
    argv += ["--access-log", "-", "--access-log-format", "json"]
    argv += ["--print-token", "--verbose"]
    assert main(["serve", *argv]) == 0
    assert handed_over == [argv]


def test_serve_has_the_options_of_the_server() -> None:
    own = {flag for action in parser()._actions for flag in action.option_strings}
    serve: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    assert {flag for param in serve.params for flag in param.opts} | {"-h", "--help"} == own


def test_serve_accepts_durations() -> None:
    argv = ["--session-ttl", "1h30m", "--upload-ttl", "2d", "--processing", "500s", "--analysis-seconds", "1.5"]
    config = configured(parser().parse_args(argv))
    assert (config.session_ttl, config.upload_ttl) == (5400, 172_800)
    assert (config.processing_seconds, config.analysis_seconds) == (500, 1.5)


def test_serve_without_options_passes_none(handed_over: list[list[str]]) -> None:
    assert main(["serve"]) == 0
    assert handed_over == [[]]


def test_missing_extra_shows_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda name: None if name == "granian" else object())
    assert main(["serve"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: `uploader serve` needs the bundled server, which is not installed (no granian)"
    assert re.fullmatch(r"hint: pip install 'granian<3,>=\S+' 'multipart\S+' 'prometheus-client\S+' .*", hint)


def test_serve_answers_and_stops() -> None:
    """It prints its address, answers, and stops on SIGTERM."""
    command = [sys.executable, "-u", "-m", "uploader_cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            url = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            with urlopen(f"{url}/health", timeout=PATIENCE) as answer:
                assert json.load(answer)["status"] == "OK"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_serve_with_an_invalid_value_exits_2() -> None:
    command = [sys.executable, "-m", "uploader_cli", "serve", "--realtime", "sometimes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2
    assert "sometimes" in done.stderr
    assert "Traceback" not in done.stderr
