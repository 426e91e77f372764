"""`uploader serve`: the bundled server behind the project's own command."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from time_limits import PATIENCE
from typer.main import get_command

from uploader_cli.__main__ import main
from uploader_cli.cli.app import app
from uploader_server.__main__ import configured, parser
from uploader_server.__main__ import main as server_main
from uploader_server.config import OPTIONS, ServerConfig

ARGV = [
    *("--host", "::1", "--port", "0", "--root", "some dir", "--durability", "none", "--as", "reference"),
    *("--max-files", "3", "--max-size", "8MB", "--types", "mp4,avi", "--rate-limit", "100", "--session-ttl", "60"),
    *("--no-tus", "--no-packs", "--no-anonymous-tus", "--no-ui", "--upload-ttl", "3600", "--min-rate", "0"),
    *("--fault", "lose:patch#1", "--fault", "latency:5", "--fault-control"),
    *("--realtime", "flap:3", "--websocket", "off", "--latency", "20", "--processing", "0.5"),
    *("--fail-file", "a*", "--fail-file", "b*", "--analyses", "--analysis-seconds", "1", "--analysis", "silent"),
    *("--cors-origin", "https://a.example", "--allow-host", "b.example", "--behind-proxy", "10.0.0.7"),
    *("--max-connections", "9", "--max-joins", "99", "--max-share", "50"),
    *("--access-log", "-", "--access-log-format", "json", "--verbose"),
]
"""All options, but for those that end the process and those that read files."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """Record the configurations that the server would run with."""
    configs: list[ServerConfig] = []
    monkeypatch.setattr("uploader_server.serving.serve", lambda config, _announce: configs.append(config))
    return configs


@pytest.mark.feature("server/page")
def test_serve_runs_the_server_with_its_own_options(served: list[ServerConfig], tmp_path: Path) -> None:
    for name in ("secret", "token"):
        (tmp_path / name).write_text(f"the-{name}\n")
    files = ["--jwt-secret-file", str(tmp_path / "secret"), "--auth-token-file", str(tmp_path / "token")]
    assert (main(["serve", *ARGV, *files]), server_main([*ARGV, *files])) == (0, 0)
    config: Any
    config, same = served
    assert config == same
    assert (config.jwt_secret, config.auth_token) == ("the-secret", "the-token")
    assert (config.host, config.port, config.root, config.flavour) == ("::1", 0, Path("some dir"), "reference")
    assert (config.tus, config.packs, config.anonymous_tus, config.ui, config.fault_control) == (*4 * [False], True)
    assert (config.faults, config.fail_files) == (("lose:patch#1", "latency:5"), ("a*", "b*"))
    changed = {field.name for field in dataclasses.fields(config) if getattr(config, field.name) != field.default}
    assert changed >= {option.name for option in OPTIONS} - {"list_faults", "print_token", "verbose"}


def test_serve_without_options_uses_the_defaults(served: list[ServerConfig]) -> None:
    assert main(["serve"]) == 0
    (config,) = served
    assert config == ServerConfig(jwt_secret=config.jwt_secret)
    assert len(config.jwt_secret) == 64


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--realtime", "sometimes"], "--realtime: 'sometimes' is not one of off, refuse, hang"),
        (["--port", "65536"], "--port: '65536' is not a port: a number from 0 to 65535"),
        (["--as", "refrence"], "--as: 'refrence' is not one of bundled, reference"),
        (["--fault", "lose:patch#1", "--fault", "loose:patch"], "--fault: "),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_serve_with_an_invalid_value_exits_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *argv]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {said}")
    assert hint == "hint: see: uploader serve --help"


def test_serve_has_the_options_of_the_server() -> None:
    own = {flag for option in OPTIONS for flag in (option.flag, *option.short)} | {"-h", "--help"}
    serve: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    assert {flag for param in serve.params for flag in param.opts} | {"-h", "--help"} == own


def test_serve_accepts_durations() -> None:
    argv = ["--session-ttl", "1h30m", "--upload-ttl", "2d", "--processing", "500s", "--analysis-seconds", "1.5"]
    config = configured(vars(parser().parse_args(argv)))
    assert (config.session_ttl, config.upload_ttl) == (5400, 172_800)
    assert (config.processing_seconds, config.analysis_seconds) == (500, 1.5)


def test_missing_extra_shows_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda name: None if name == "granian" else object())
    assert main(["serve"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert (
        error == "error: `uploader serve` needs the bundled server, which is not installed (extra server: no granian)"
    )
    assert re.fullmatch(r"hint: pip install 'granian<3,>=\S+' 'multipart\S+' 'prometheus-client\S+' .*", hint)


def test_serve_with_too_few_descriptors_exits_2(tmp_path: Path) -> None:
    """With fewer it would start, and fail in the middle of requests."""
    command = shlex.join([sys.executable, "-m", "uploader_cli", "serve", "--port", "0", "--root", f"{tmp_path}/root"])
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n 63; exec {command}"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the limit of file descriptors is 63: too low for a server\nhint: allow at least 64: ulimit -n 64\n"
    )
    assert not (tmp_path / "root").exists()


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
